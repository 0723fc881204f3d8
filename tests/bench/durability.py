"""What it costs to have on record what was done: SQLite commits in the folder of the runs, as the daemon's store makes them."""
import os
import shutil
import sqlite3
import statistics
import time

# Before a child is started again the daemon commits its death and the intent to start it, at once: two launch rows, a node row, three rows
# of changes and two events. The record of the fork comes after it.
COMMITS_OF_A_RESPAWN = 1
ROWS = 8
BYTES = 900


def measure(folder, commits=200):
    """{level: ms}: "normal" outlives a SIGKILL, "full" a power cut too (an fsync each). Respawns need the first, orders the second."""
    out = {}
    for level in ("normal", "full"):
        where = os.path.join(folder, f"durability-{os.getpid()}")
        os.makedirs(where)
        try:
            out[level] = _level(os.path.join(where, "s.db"), level, commits)
        finally:
            shutil.rmtree(where, ignore_errors=True)
    return dict(commits_of_a_respawn=COMMITS_OF_A_RESPAWN, commit_ms=out)


def _level(path, level, commits):
    db = sqlite3.connect(path, isolation_level=None)
    db.executescript("PRAGMA journal_mode=wal; PRAGMA wal_autocheckpoint=0; CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT);")
    db.execute(f"PRAGMA synchronous={level}")
    took = []
    for _ in range(commits):
        t = time.perf_counter_ns()
        db.execute("BEGIN IMMEDIATE")
        for _ in range(ROWS):
            db.execute("INSERT INTO t (v) VALUES (?)", ("x" * BYTES,))
        db.execute("COMMIT")
        took.append((time.perf_counter_ns() - t) / 1e6)
    db.close()
    return dict(n=commits, min=min(took), p50=statistics.median(took), max=max(took))
