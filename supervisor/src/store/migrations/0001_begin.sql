-- Objects: what they say as JSON, and beside it the few columns that queries and foreign keys need.
-- The columns `phase` cost nothing: they are computed when somebody reads them with sqlite3.

CREATE TABLE devnets (
    namespace TEXT NOT NULL,
    name      TEXT NOT NULL,
    revision  INTEGER NOT NULL,
    metadata  TEXT NOT NULL,
    spec      TEXT NOT NULL,
    status    TEXT NOT NULL,
    phase     TEXT GENERATED ALWAYS AS (json_extract(status, '$.phase')) VIRTUAL,
    PRIMARY KEY (namespace, name)
) STRICT;

CREATE TABLE nodes (
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
CREATE INDEX nodes_by_devnet ON nodes (namespace, devnet);

CREATE TABLE launches (
    namespace TEXT NOT NULL,
    name      TEXT NOT NULL,
    devnet    TEXT NOT NULL,
    node      TEXT NOT NULL,
    revision  INTEGER NOT NULL,
    metadata  TEXT NOT NULL,
    spec      TEXT NOT NULL,
    status    TEXT NOT NULL,
    phase     TEXT GENERATED ALWAYS AS (json_extract(status, '$.phase')) VIRTUAL,
    PRIMARY KEY (namespace, name),
    FOREIGN KEY (namespace, node) REFERENCES nodes (namespace, name) ON DELETE CASCADE
) STRICT;
CREATE INDEX launches_by_node ON launches (namespace, node);
CREATE INDEX launches_by_devnet ON launches (namespace, devnet);

-- What a lease is on belongs to the machine: its name is unique over all namespaces.
CREATE TABLE leases (
    namespace TEXT NOT NULL,
    name      TEXT NOT NULL UNIQUE,
    devnet    TEXT NOT NULL,
    node      TEXT,
    revision  INTEGER NOT NULL,
    metadata  TEXT NOT NULL,
    spec      TEXT NOT NULL,
    PRIMARY KEY (namespace, name),
    FOREIGN KEY (namespace, devnet) REFERENCES devnets (namespace, name) ON DELETE CASCADE
) STRICT;
CREATE INDEX leases_by_devnet ON leases (namespace, devnet);

CREATE TABLE plans (
    namespace TEXT NOT NULL,
    name      TEXT NOT NULL,
    devnet    TEXT NOT NULL,
    revision  INTEGER NOT NULL,
    metadata  TEXT NOT NULL,
    spec      TEXT NOT NULL,
    PRIMARY KEY (namespace, name),
    FOREIGN KEY (namespace, devnet) REFERENCES devnets (namespace, name) ON DELETE CASCADE
) STRICT;
CREATE INDEX plans_by_devnet ON plans (namespace, devnet);

-- The change feed. AUTOINCREMENT: sqlite_sequence keeps the last revision when all rows are compacted away.
CREATE TABLE changes (
    revision  INTEGER PRIMARY KEY AUTOINCREMENT,
    kind      TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name      TEXT NOT NULL,
    deleted   INTEGER NOT NULL,
    object    TEXT NOT NULL
) STRICT;

-- The audit trail; it outlives the devnets that it tells of.
CREATE TABLE events (
    seq       INTEGER PRIMARY KEY AUTOINCREMENT,
    id        TEXT NOT NULL UNIQUE,
    namespace TEXT NOT NULL,
    kind      TEXT NOT NULL,
    name      TEXT NOT NULL,
    devnet    TEXT NOT NULL,
    launch    TEXT,
    event     TEXT NOT NULL
) STRICT;
CREATE INDEX events_by_devnet ON events (devnet);
CREATE INDEX events_by_launch ON events (launch) WHERE launch IS NOT NULL;

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
