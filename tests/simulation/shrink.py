"""From a schedule that fails to the least that still fails: fewer faults, people's acts, hosts, outages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simulation.schedule import Outcome, Plan, run

Item = tuple[str, Any]


def shrink(p: Plan, kind: str, say: Callable[[str], None]) -> Outcome:
    """The smallest variation found whose violations include one of this kind, with its trace."""
    faults = run(p).faults
    items: list[Item] = [("fault", key) for key in faults]
    items += [("act", at) for at in range(len(p.acts))]
    items += [("outage", at) for at in range(len(p.outages))]
    items += [("host", at) for at in range(p.hosts)] + [("steward", at) for at in range(p.hosts)]
    runs = 0

    def fails(kept: list[Item]) -> bool:
        nonlocal runs
        runs += 1
        return any(v.kind == kind for v in _only(p, faults, kept, trace=False).violations)

    if not fails(items):
        raise ValueError(f"seed {p.seed} has no violation of the kind {kind!r} when its faults are played back")
    pieces = 2
    while len(items) > 1:
        size = max(1, len(items) // pieces)
        for begin in range(0, len(items), size):
            rest = items[:begin] + items[begin + size :]
            if fails(rest):
                items, pieces = rest, max(2, pieces - 1)
                say(f"{len(items)} left after {runs} runs")
                break
        else:
            if size == 1:
                break
            pieces = min(len(items), pieces * 2)
    return _only(p, faults, items, trace=True)


def _only(p: Plan, faults: dict[Any, str], kept: list[Item], *, trace: bool) -> Outcome:
    """Run with nothing of what can be left out but these."""
    keep = set(kept)
    some = p._replace(
        acts=tuple(act for at, act in enumerate(p.acts) if ("act", at) in keep),
        outages=tuple(one for at, one in enumerate(p.outages) if ("outage", at) in keep),
        crew=tuple(n if ("host", at) in keep else 0 for at, n in enumerate(p.crew)),
        stewards=tuple(on and ("steward", at) in keep for at, on in enumerate(p.stewards)),
    )
    return run(some, replay={key: fault for key, fault in faults.items() if ("fault", key) in keep}, trace=trace)
