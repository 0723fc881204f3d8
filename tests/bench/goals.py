"""The figures to reach, each beside the floor and the best rival of the same folder: reached, missed, or not measured."""

OURS, FLOORS = "devnetd", ("floor", "floor-pump")


def get(d, *path):
    for k in path:
        d = d.get(k) if isinstance(d, dict) else None
    return d


def p50(*path):
    return lambda d: get(d, *path, "p50")


def loop(d):
    took = sorted(get(d, "start200", "crash", "loop_respawn_ms") or [])
    return took[len(took) // 2] if took else None


def all_pss(test):
    def read(d):
        kib = get(d, test, "total_pss_kib")
        return None if kib is None else kib / 1024
    return read


def wake_ups(d):
    return get(d, "idle", "voluntary_per_s")


def lost(d):
    return get(d, "log", "lost")


# what, unit, how a peer's figure is read, the goal from the floor's figure (None: no goal without it)
GOALS = [
    ("kill to respawned, p50", "ms", p50("start200", "crash", "respawn_ms"), lambda floor: floor and 2 * floor, "2 × floor"),
    ("eight kills in a row, p50", "ms", loop, lambda floor: floor and 3 * floor, "3 × floor"),
    ("200 up, median", "s", p50("start200", "start_s"), lambda _: 0.3, ""),
    ("memory with 200 children, all processes", "MiB", all_pss("start200"), lambda _: 15, ""),
    ("memory with 1,000 children, all processes", "MiB", all_pss("start1000"), lambda _: 25, ""),
    ("wake-ups with 200 idle children", "1/s", wake_ups, lambda _: 0, ""),
    ("200 MB to the log, median", "s", p50("log", "total_s"), lambda floor: floor and 1.1 * floor, "floor, 10 % for noise"),
    ("log lines lost", "", lost, lambda _: 0, ""),
    ("status of 200, p50", "ms", p50("start200", "status_ms"), lambda _: 5, ""),
]


def rows(peers, num):
    """Cells of the table: what, goal, ours, floor, best rival, verdict."""
    out = []
    for what, unit, read, goal_of, why in GOALS:
        floor = read(peers.get("floor", {}))
        ours = read(peers.get(OURS, {}))
        goal = goal_of(floor)
        rivals = [(read(d), d["title"]) for n, d in peers.items() if n != OURS and n not in FLOORS]
        best = min((r for r in rivals if r[0] is not None), default=None)
        out.append([f"{what}{', ' + unit if unit else ''}", f"{num(goal)}{' (' + why + ')' if why else ''}", num(ours), num(floor),
                    f"{num(best[0])} ({best[1]})" if best else "–", verdict(ours, goal)])
    return out


def verdict(ours, goal):
    if ours is None or goal is None:
        return "not measured"
    return "reached" if ours <= goal else "**missed**"


def durability(measured, ours, num):
    """One sentence with both: the respawn as it is, and what of it may be the record's."""
    if not measured:
        return None
    n, ms = measured["commits_of_a_respawn"], measured["commit_ms"]
    took = get(ours, "start200", "crash", "respawn_ms", "p50")
    return (f"Durability apart: before a child is started again {n} commit is made that outlives a SIGKILL. Such a commit takes "
            f"{num(ms['normal']['p50'])} ms here (p50 of {ms['normal']['n']}, SQLite alone, same folder), so {num(n * ms['normal']['p50'])} ms of "
            f"{num(took)} ms. An order of a user outlives a power cut too: {num(ms['full']['p50'])} ms a commit.")
