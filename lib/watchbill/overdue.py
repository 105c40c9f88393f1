"""The dead-man's switch: an agent whose timer is silent is noticed by its peers.

Whoever is past its gates looks whether every other agent that was applied on this host has fired since its last slot,
with whatever outcome: also a refused firing shows that the timer lives. A silent one is said once, in the log and in
table `overdue`, with what the system's scheduler says of it; only then is that asked. When it fires again, that is
over.

Nobody is blamed for a host that slept or was off. Timers catch up within two minutes of waking, so a slot only counts
as missed when some firing began here after it was overdue, and two minutes have passed since.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from watchbill import ending, holds
from watchbill.clock import moment
from watchbill.compiled import Agent, Compiled
from watchbill.errors import Fixable
from watchbill.gates import snapshot
from watchbill.home import Home
from watchbill.ids import new_id
from watchbill.ledger import holds as hold_rows
from watchbill.ledger import overdue as rows
from watchbill.ledger.db import Ledger, Refused
from watchbill.ledger.overdue import Episode, Last
from watchbill.live import Firing
from watchbill.schedulers import manifest, schedule, slots, spread, zone

if TYPE_CHECKING:
    from watchbill.schedulers.survey import Seen, Survey

#: A slot may be served so late: the spread of a minute, a manager that is being reloaded, a host that has much to do.
#: Not longer for longer periods, for a calendar is caught up at once whatever its period.
GRACE_S = 900
#: Timers have caught up so long after a host woke.
_AWAKE_S = 120
#: A process's start is known to the second, and from the time of boot, which is known to the second too.
_EARLY_S = 5


class Overdue(NamedTuple):
    """An agent that should have fired."""

    agent: str
    slot: int  # the first that passed without a firing, UTC epoch seconds
    counts_at: int  # from when on that was too late


def overdue(agents: Iterable[Agent], since: Mapping[str, int], now: int) -> list[Overdue]:
    """Who should have fired and did not. Pure, but for the host's zone.

    `since`: agent -> from when on it was to fire by itself and did not, UTC epoch seconds; without one it is not asked.
    """
    found = []
    for agent in agents:
        if (silent := since.get(agent.name)) is None:
            continue
        if agent.slots:
            latest = slots.due(agent.slots, now - GRACE_S)
            if latest is not None and latest > silent:
                slot = _first(agent, silent)
                found.append(Overdue(agent.name, slot, slot + GRACE_S))
        elif interval := schedule.check(agent.schedule).interval_s:
            # It counts from when its timer was loaded, and after a reload or a boot from then: up to a period later.
            late = Overdue(agent.name, silent + interval, silent + 2 * interval + GRACE_S)
            found += [late] if late.counts_at < now else []
    return found


def _first(agent: Agent, after: int) -> int:
    """Its first slot after that time."""
    wanted = spread.shifted(schedule.check(agent.schedule), agent.name)
    return int(schedule.next_fires(wanted, datetime.fromtimestamp(after, zone.local()), 1)[0].timestamp())


def silent_since(applied: int, last: Last | None) -> int | None:
    """From when on an agent was to fire by itself and did not; None: it is at work."""
    if last is None:
        return applied
    if last.ended is None:
        return None
    return max(applied, last.started + _EARLY_S, last.ended, last.due or 0)


def look(home: Home, ledger: Ledger, roster: Compiled, host: str, now: int) -> list[Overdue]:
    """Who is overdue on this host, as far as its ledger and its disk know."""
    applied = manifest.since(home)
    if not applied:
        return []
    crew = [
        _as_applied(agent, applied[agent.name].schedule)
        for agent in roster.agents.values()
        if agent.name in applied and agent.schedule != "manual"
    ]
    since = {
        agent.name: silent
        for agent in crew
        if (silent := silent_since(applied[agent.name].at, rows.last_of(ledger, host, agent.name, now))) is not None
    }
    silent_ones = {one.agent for one in overdue(crew, since, now)}
    # While a pause has its gate file the system starts nothing, and leaves no trace of that.
    later = {name: max(since[name], rows.freed_at(ledger, host, name)) for name in silent_ones}
    found = overdue(crew, later, now)
    return [one for one in found if not _held(home, ledger, roster.agents[one.agent], host, now)]


def _as_applied(agent: Agent, text: str) -> Agent:
    """By the schedule that its timer has, which need not be the one that its file says by now."""
    if text == " ".join(agent.schedule.lower().split()):
        return agent
    try:
        return agent._replace(schedule=text, slots=spread.slots(schedule.check(text), agent.name))
    except ValueError:  # what was applied is on record in words that nobody understands any more
        return agent


def _held(home: Home, ledger: Ledger, agent: Agent, host: str, now: int) -> bool:
    """What is held is not to fire; whether it would is seen when it is resumed."""
    if snapshot.gate_file(home, agent.name):
        return True
    heeded = holds.heeded(hold_rows.standing(ledger, now), agent.name, now)
    return bool(holds.applying(heeded, holds.subjects_of(agent, host, None)))


def notice(f: Firing) -> None:
    """Look after the others, and say of each that has fallen silent that it has, once. Never a reason to fail."""
    if f.options.dry_run:
        return
    try:
        found = {one.agent: one for one in look(f.ports.home, f.ledger, f.roster, f.row.host, f.now)}
        known = rows.open_ones(f.ledger, f.row.host)
        _end(f, [one for one in known.values() if one.agent not in found])
        new = [one for name, one in found.items() if name not in known]
        if new and _was_awake(f, min(one.counts_at for one in new)):
            _report(f, [one for one in new if _was_awake(f, one.counts_at)])
    except (Fixable, Refused, OSError) as problem:
        f.note("whether an agent is overdue cannot be told now", error=str(problem))
    except Exception as error:  # a mistake of ours about others is no reason to do nothing oneself
        ending.of(f, error)


def _end(f: Firing, known: Iterable[Episode]) -> None:
    for one in known:
        last = rows.last_of(f.ledger, f.row.host, one.agent, f.now)
        fired = last is not None and last.started + _EARLY_S >= one.slot
        if fired or one.agent not in manifest.since(f.ports.home):
            with f.ledger.transaction():
                rows.end(f.ledger, f.row.host, one.agent, last.started if fired and last else f.now)
            f.note(f"{one.agent} is not overdue any more")


def _was_awake(f: Firing, at: int) -> bool:
    """Whether this host was surely awake then or later, and has had the time to catch up."""
    began = rows.last_before(f.ledger, f.row.host, new_id(f.now - _AWAKE_S))
    return began is not None and began >= at


def _report(f: Firing, new: Iterable[Overdue]) -> None:
    from watchbill.schedulers import survey  # which brings every adapter along

    why = reasons(survey.take(f.ports.home, f.roster))
    for one in new:
        episode = Episode(one.agent, one.slot, f.now, f.id, f.redact(why.get(one.agent, "nobody knows why")))
        with f.ledger.transaction():
            first = rows.begin(f.ledger, f.row.host, episode)
        if first:
            f.note(said(one.agent, one.slot, episode.why))


def reasons(seen: Survey) -> dict[str, str]:
    """By agent: what the system's scheduler says of its unit, as the reason for a silence."""
    name = seen.scheduler.name
    if seen.problem:
        return dict.fromkeys(seen.agents, f"{name} does not answer: {seen.problem.what}")
    return {agent: _reason(name, one) for agent, one in seen.agents.items()}


def _reason(name: str, seen: Seen) -> str:
    if seen.state == "armed":
        last = f", and started it last at {moment(seen.loaded.last)}" if seen.loaded.last else ""
        return f"{name} says that its timer is armed{last}; what it starts may die before it can leave a row"
    return f"{seen.state}: {seen.what}" if seen.what else f"{name} says: {seen.state}"


def said(agent: str, slot: int, why: str) -> str:
    """One sentence."""
    return f"{agent} is overdue: it has not fired since its slot of {moment(slot)}. {why[:1].upper()}{why[1:]}"
