-- Exports: rows of a devnet like its nodes. `phase` is computed when somebody reads it with sqlite3.

CREATE TABLE exports (
    namespace TEXT NOT NULL,
    name      TEXT NOT NULL,
    devnet    TEXT NOT NULL,
    revision  INTEGER NOT NULL,
    metadata  TEXT NOT NULL,
    spec      TEXT NOT NULL,
    status    TEXT NOT NULL,
    phase     TEXT GENERATED ALWAYS AS (json_extract(status, '$.phase')) VIRTUAL,
    PRIMARY KEY (namespace, name),
    FOREIGN KEY (namespace, devnet) REFERENCES devnets (namespace, name) ON DELETE CASCADE
) STRICT;
CREATE INDEX exports_by_devnet ON exports (namespace, devnet);
