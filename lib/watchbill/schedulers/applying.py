"""Bring the system's scheduler to what the roster wants, and no further.

Idempotent: what is as it should be is not touched. Atomic for each agent: a change that cannot be verified is taken
back, and the others stand. Whoever was paused behind our back stays paused, whatever else about its unit is renewed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from watchbill import lock
from watchbill.compiled import Compiled
from watchbill.errors import Fixable
from watchbill.home import Home
from watchbill.schedulers import header, manifest, registry, units
from watchbill.schedulers import survey as surveying
from watchbill.schedulers.base import Change, Deferred, Failed, File, Outcome, Say, Scheduler
from watchbill.schedulers.manifest import Applied, Manifest
from watchbill.schedulers.survey import Seen, Survey

_PATIENCE_S = 10.0
_WRITES = ("add", "change", "restore", "arm")


class Done(NamedTuple):
    """What became of one agent's unit."""

    agent: str
    change: str  # one of survey.CHANGES: what was to be done
    ended: str  # done | kept (nothing was to be done, or is not ours to do) | failed | deferred
    what: str  # a sentence; empty for what needs none


def apply(home: Home, roster: Compiled, say: Say, *, only: str | None = None, prune: bool = False) -> list[Done]:
    """What was done, by agent. Fixable: there is no scheduler here, or somebody else applies just now."""
    _ours_to_change(home)
    scheduler = registry.usable(roster.fleet.timers.use)
    with _alone(home):
        _whole_when_it_moves(home, scheduler, only)
        _leave_other(home, scheduler, say)
        _remove_strays(home, scheduler, say)
        _make_room(home, roster, say)
        seen = surveying.take(home, roster)
        if seen.problem:
            raise seen.problem
        mine = [one for one in seen.agents.values() if only in (None, one.agent)]
        changing = tuple(one.agent for one in mine if one.unit and one.change in _WRITES and not one.paused)
        if changing:
            manifest.write(home, seen.manifest._replace(scheduler=scheduler.name, pending=changing))
        outcomes = _install(seen, mine, say)
        going = [one for one in mine if one.change == "remove" or (prune and one.change == "prune")]
        gone = [_Mine(one.agent, one.name, one.disk) for one in going]
        outcomes |= _take_away(home, scheduler, gone, say)
        _remember(home, seen, mine, outcomes)
    return [_told(one, outcomes, prune) for one in mine]


def uninstall(home: Home, say: Say) -> list[Done]:
    """Everything of this home goes, also what nobody remembers; units of others stay."""
    _ours_to_change(home)
    with _alone(home):
        done = []
        for scheduler in registry.SCHEDULERS.values():
            mine = _of(home, scheduler, manifest.read(home))
            if not mine:
                continue
            if problem := scheduler.unavailable():
                fix = f"where {scheduler.name} answers, `watchbill uninstall` again"
                raise Fixable(problem.id, problem.what, why=problem.why, fix=fix, outcome="unavailable")
            outcomes = _take_away(home, scheduler, mine, say)
            done += [_ended(one.agent, "remove", outcomes.get(one.agent)) for one in mine]
        if all(one.ended == "done" for one in done):
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(home.units)
    return done


def installed(home: Home) -> list[str]:
    """Agents that `uninstall` would take a unit from."""
    remembered = manifest.read(home)
    return sorted({mine.agent for one in registry.SCHEDULERS.values() for mine in _of(home, one, remembered)})


def rearm(home: Home, roster: Compiled, agent: str) -> Outcome:
    """Let an agent that was paused behind our back fire by itself again. Fixable: the system does not answer."""
    with _alone(home):
        seen = surveying.take(home, roster)
        if seen.problem:
            raise seen.problem
        mine = seen.agents.get(agent)
        if mine is None or mine.unit is None or not mine.paused:
            return None
        change = Change(mine.unit, mine.disk, mine.wanted, arm=True)
        if mine.disk == mine.wanted:
            outcome = seen.scheduler.arm(mine.name, mine.wanted)
        else:
            outcome = seen.scheduler.install([change], lambda _: None).get(agent)
        if outcome is None:
            _remember(home, seen, [mine._replace(change="change")], {agent: None})
        return outcome


@contextlib.contextmanager
def _alone(home: Home) -> Iterator[None]:
    """One apply a home. Not called as the agents' locks are: who holds one of those is taken for a firing."""
    path = os.path.join(home.locks, "apply")
    try:
        with lock.mirror_lock(path, _PATIENCE_S):
            yield
    except lock.Busy as busy:
        why = "another `watchbill apply`, `uninstall` or `resume` of this home is at work"
        raise Fixable("WB-SCHED-01", f"{path} is locked", why=why, fix="wait for it", outcome="running") from busy


def _ours_to_change(home: Home) -> None:
    """Whoever applies has the timers, and what they start is his: root's would fire beside those of its owner."""
    owner = os.stat(home.root).st_uid
    if owner != os.geteuid():
        what = f"{home.root} belongs to the user {owner}, and this is {os.geteuid()}"
        raise Fixable("WB-SCHED-05", what, fix="type it as the user who owns the home", outcome="unauthorized")


def _whole_when_it_moves(home: Home, scheduler: Scheduler, only: str | None) -> None:
    remembered = manifest.read(home)
    if only and remembered.agents and remembered.scheduler != scheduler.name:
        what = f"--agent {only}: all timers move from {remembered.scheduler} to {scheduler.name}, or none"
        raise Fixable("WB-SCHED-06", what, fix="`watchbill apply` without --agent")


def _make_room(home: Home, roster: Compiled, say: Say) -> None:
    """What has to be there before a unit is: systemd ends a firing whose log's folder is missing (209/STDOUT)."""
    for folder in (home.logs, home.held):
        os.makedirs(folder, mode=0o700, exist_ok=True)
    for file in manifest.differing(units.launchers(home, roster)):
        anew = os.path.lexists(file.path) or manifest.applied_at(home)
        manifest.put(file)
        if anew:
            say(f"{file.path} is written anew")


def _leave_other(home: Home, scheduler: Scheduler, say: Say) -> None:
    """`[schedule] use` was changed: two systems would start everything twice."""
    remembered = manifest.read(home)
    if remembered.scheduler in (None, scheduler.name) or remembered.scheduler not in registry.SCHEDULERS:
        return
    other = registry.SCHEDULERS[remembered.scheduler]
    mine = _remembered(home, remembered)
    if other.unavailable() and mine:
        say(f"timers of {other.name} may be left where that is: it is not here")
    elif mine:
        failed = [one for one in _take_away(home, other, mine, say).values() if one is not None]
        if failed:
            what = f"{failed[0].agent}: its timer of {other.name} stays: {failed[0].what}"
            fix = f'`watchbill apply` again, or for now [schedule] use = "{other.name}"'
            raise Fixable("WB-SCHED-02", what, fix=fix, outcome="unavailable")
        say(f"{len(mine)} timers of {other.name} removed: {scheduler.name} takes over")
    manifest.write(home, manifest.NOTHING)


def _remove_strays(home: Home, scheduler: Scheduler, say: Say) -> None:
    """Units of this home under a name that it has no more would fire beside those that it has."""
    remembered = manifest.read(home)
    strays = [one for one in _of(home, scheduler, remembered) if one.name != units.unit_name(home, one.agent)]
    if strays and not scheduler.unavailable():
        names = [one.name for one in strays]
        say(f"removing what has another name now: {', '.join(names)}")
        scheduler.remove(names, [file for one in strays for file in one.files], say)


class _Mine(NamedTuple):
    """What is to be removed of an agent."""

    agent: str
    name: str
    files: tuple[File, ...]


def _remembered(home: Home, remembered: Manifest) -> list[_Mine]:
    """What was applied, but for what another home has taken as its own: this one may be its copy."""
    mine = [_Mine(agent, one.name, manifest.present(one.files)) for agent, one in remembered.agents.items()]
    return [
        one
        for one in mine
        if one.name == units.unit_name(home, one.agent) and not any(surveying.whose(home, file) for file in one.files)
    ]


def _of(home: Home, scheduler: Scheduler, remembered: Manifest) -> list[_Mine]:
    """This home's units in a system: remembered, or by what their files say, whatever they are called; also those that
    it had where it lay before it was moved."""
    found = {one.name: one for one in _remembered(home, remembered) if remembered.scheduler == scheduler.name}
    for file in scheduler.found(units.EVERY):
        said, name = header.read(file.content), surveying.stem(file)
        if said is not None and (said.home == home.root or _left_behind(said.home, remembered, file)):
            known = found.get(name) or _Mine(said.agent, name, ())
            if file.path not in dict(known.files):
                known = known._replace(files=(*known.files, file))
            found[name] = known
    return [found[name] for name in sorted(found)]


def _left_behind(root: str, remembered: Manifest, file: File) -> bool:
    known = {one.path for applied in remembered.agents.values() for one in applied.files}
    return not os.path.isdir(root) and file.path in known


def _install(seen: Survey, mine: Iterable[Seen], say: Say) -> dict[str, Outcome]:
    changes = [
        Change(one.unit, one.disk, one.wanted, arm=not one.paused)
        for one in mine
        if one.unit is not None and one.change in _WRITES
    ]
    return dict(seen.scheduler.install(changes, say)) if changes else {}


def _take_away(home: Home, scheduler: Scheduler, mine: Sequence[_Mine], say: Say) -> dict[str, Outcome]:
    """By agent. Forgotten first: who is found half removed was left so by a crash, and was paused by nobody."""
    if not mine:
        return {}
    remembered = manifest.read(home)
    rest = {agent: one for agent, one in remembered.agents.items() if agent not in {one.agent for one in mine}}
    manifest.write(home, remembered._replace(agents=rest))
    agents = {one.name: one.agent for one in mine}
    files = [file for one in mine for file in one.files]
    try:
        outcomes = {agents[name]: outcome for name, outcome in scheduler.remove(list(agents), files, say).items()}
    except Fixable:  # it does not answer: nothing is known to be gone
        manifest.write(home, remembered)
        raise
    stay = {agent: one for agent, one in remembered.agents.items() if outcomes.get(agent) is not None}
    manifest.write(home, remembered._replace(agents={**rest, **stay}))
    return outcomes


def _remember(home: Home, seen: Survey, mine: Iterable[Seen], outcomes: Mapping[str, Outcome]) -> None:
    """What stands now. Who is paused outside keeps what was applied: by that it is known as paused."""
    now = int(time.time())
    known = {agent: one for agent, one in seen.manifest.agents.items() if one.name == units.unit_name(home, agent)}
    for one in mine:
        if outcomes.get(one.agent) is not None:
            continue
        if one.agent in outcomes and one.unit is None:
            known.pop(one.agent, None)
        elif one.unit is not None and one.state != "foreign" and not (one.paused and one.agent not in outcomes):
            since = one.applied.at if one.applied and not _moved(one) else now
            known[one.agent] = Applied(one.name, since, one.wanted, one.unit.schedule.text)
    unfinished = tuple(agent for agent, outcome in outcomes.items() if isinstance(outcome, Failed) and agent in known)
    manifest.write(home, Manifest(seen.scheduler.name, known, unfinished))


def _moved(one: Seen) -> bool:
    """Whether it begins to wait anew: what was missed before is nobody's."""
    return one.change in ("add", "change", "restore", "arm") or one.paused


def _told(one: Seen, outcomes: Mapping[str, Outcome], prune: bool) -> Done:
    if one.agent in outcomes:
        done = _ended(one.agent, one.change, outcomes[one.agent])
        if done.ended == "done" and one.paused:
            return done._replace(what=f"stays {_paused(one)}")
        return done
    if one.change == "foreign":
        return Done(one.agent, one.change, "failed", one.what)
    if one.paused:
        return Done(one.agent, one.change, "kept", _paused(one))
    if one.change == "prune" and not prune:
        return Done(
            one.agent, one.change, "kept", "not in the roster any more: `watchbill apply --prune` removes its timer"
        )
    return Done(one.agent, one.change, "kept", "")


def _paused(one: Seen) -> str:
    ends = "" if "." in one.agent else f"; `watchbill resume {one.agent}` ends that"
    return f"paused outside: {one.what}{ends}"


def _ended(agent: str, change: str, outcome: Outcome) -> Done:
    if isinstance(outcome, Failed):
        return Done(agent, change, "failed", outcome.what)
    if isinstance(outcome, Deferred):
        return Done(agent, change, "deferred", outcome.what)
    return Done(agent, change, "done", "")
