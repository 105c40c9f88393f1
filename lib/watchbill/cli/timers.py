"""What `status` says of the timers: the system's view of each agent's, who is overdue, gate files that nobody set."""

from __future__ import annotations

from typing import Any, NamedTuple

from watchbill import gatefiles, overdue
from watchbill.cli import fires, shared
from watchbill.compiled import Agent
from watchbill.errors import Fixable
from watchbill.ledger import holds
from watchbill.schedulers import survey
from watchbill.schedulers.survey import Seen, Survey

#: What still fires by itself, though not as it should, or as far as anybody knows.
_FIRES = ("armed", "drifted", "stale", "unknown")
_FIXES = {"paused outside": "resume {}", "not applied": "apply", "orphan": "apply --prune"}


class Timers(NamedTuple):
    """All that is known of them."""

    survey: Survey | None  # None: files of ours could not be read
    overdue: dict[str, int]  # agent -> the first slot that passed without a firing
    problems: list[Fixable]


def look(fleet: shared.Opened, now: int) -> Timers:
    """Never fails for the system's sake: what it does not tell is a problem among others."""
    try:
        seen, silent = survey.take(fleet.home, fleet.roster), None
        if seen.problem and seen.manifest.agents:
            silent = seen.problem
    except OSError as error:
        seen, silent = None, Fixable("WB-STATUS-01", f"{error.filename}: {error.strerror}")
    except Fixable as problem:
        seen, silent = None, problem
    late = overdue.look(fleet.home, fleet.ledger, fleet.roster, fleet.host, now) if fleet.roster else []
    problems = [silent] if silent else []
    problems += [_overdue(one.agent, one.slot, seen) for one in late]
    problems += [_stray(path) for path in gatefiles.strays(fleet.home, holds.standing(fleet.ledger, now), fleet.host)]
    problems += [_orphan(one) for one in (seen.agents.values() if seen else ()) if one.state in ("orphan", "foreign")]
    return Timers(seen, {one.agent: one.slot for one in late}, problems)


def as_object(timers: Timers, agent: Agent, now: int) -> dict[str, Any]:
    """Keys of an agent in `status --json`."""
    seen = timers.survey.agents.get(agent.name) if timers.survey else None
    state = seen.state if seen else "none" if agent.schedule == "manual" else "unknown"
    return {
        "next": _next(seen, now) if seen else None,
        "timer": state,
        "timer_reason": (seen.what or None) if seen else None,
        "drift": seen.change if seen and seen.change != "none" else None,
        "overdue_since": timers.overdue.get(agent.name),
    }


def cell(one: dict[str, Any]) -> str:
    """The timer of an agent as a person reads it."""
    words = f"{one['timer']}: {one['timer_reason']}" if one["timer_reason"] else str(one["timer"])
    words += ", `apply` would change it" if one["drift"] in ("change", "restore", "remove") else ""
    return words + (", overdue" if one["overdue_since"] is not None else "")


def _next(seen: Seen, now: int) -> int | None:
    """As the system tells it, else as its schedule says; None: not by itself, or nobody knows."""
    loaded = seen.loaded
    if loaded.armed and loaded.next is not None:
        return loaded.next
    if not (loaded.armed or seen.state in _FIRES) or seen.unit is None:
        return None
    schedule = seen.unit.schedule
    if schedule.entries:
        return next(iter(fires.epochs(schedule, now, 1)), None)
    counted = (loaded.last or 0) + (schedule.interval_s or 0)
    return counted if counted > now else None


def _overdue(agent: str, slot: int, seen: Survey | None) -> Fixable:
    one = seen.agents.get(agent) if seen else None
    why = overdue.reasons(seen).get(agent, "") if seen else ""
    fix = "`watchbill doctor` runs its checks as the timer does; what the last one said is in `watchbill logs {}`"
    if seen and seen.problem:
        fix = seen.problem.fix or fix
    elif one and one.state != "armed":
        fix = f"`watchbill {_FIXES.get(one.state, 'apply')}`"
    return Fixable("WB-STATUS-02", overdue.said(agent, slot, why), fix=fix.replace("{}", agent))


def _stray(path: str) -> Fixable:
    return Fixable(
        "WB-STATUS-03",
        f"the file {path} holds {'every agent' if path.endswith('/all') else 'that agent'}, and no hold says why",
        why="somebody made it, or a `resume` died halfway",
        fix=f"`{gatefiles.lifting(path)}` removes it",
    )


def _orphan(seen: Seen) -> Fixable:
    what = f"the timer of {seen.agent}: {seen.what}"
    if seen.state == "foreign":
        return Fixable("WB-STATUS-04", what, fix="move that file away, then `watchbill apply`")
    return Fixable("WB-STATUS-04", what, fix=f"`watchbill apply{' --prune' if seen.change == 'prune' else ''}`")
