"""wake: what a timer starts. The compiled roster entry, one read of the ledger, the gates; and nothing else.

Everything here, and everything it imports at the top, is standard library: a firing that is refused, or has nothing to
do while the shared poll is fresh, never imports a third-party module, forks, or talks to anybody (DESIGN section 17).
Only past that point is `firing` imported, and with it the rest of the program.
"""

import os
from typing import NamedTuple

from watchbill import compiled, gates, process
from watchbill.clock import SystemClock
from watchbill.compiled import Agent, Compiled
from watchbill.errors import Fixable
from watchbill.gates import snapshot
from watchbill.gates.snapshot import Refusal
from watchbill.home import existing_home
from watchbill.host import host_id
from watchbill.ids import new_id
from watchbill.ledger import db
from watchbill.ledger.decisions import Decision
from watchbill.ledger.firings import Firing
from watchbill.outcomes import Ending
from watchbill.schedulers import slots
from watchbill.woken import Options, Woken, refuse


class Past(NamedTuple):
    """Every gate let it pass, and there may be something to do."""

    woken: Woken
    roster: Compiled
    agent: Agent


class Broken(NamedTuple):
    """The roster is invalid, or does not know this agent: nothing is claimed, what is dead is still repaired."""

    woken: Woken
    roster: Compiled | None  # the last that compiled
    problem: Fixable


def up(role: str | None, options: Options) -> int | Past | Broken:
    """An int: the exit status of a firing that ended here. `role`: what the started script is for, if it says so."""
    woken = _wake(role, options)
    roster, problem = compiled.load(woken.home.roster), None
    if compiled.is_current(roster, woken.home.root):
        return _past_roster(role, woken, roster)
    if roster is not None and (agent := roster.agents.get(options.agent)):
        # A pause of the agent or a stop needs no parsing; every other gate could say otherwise after the edit.
        bare = agent._replace(role="", uses=(), repos=(), engine={}, caps=())
        refused = _gates(_as(woken, roster, agent), roster, agent, bare)
        if refused is not None:
            return refused
    try:
        from watchbill.roster import compile_roster  # third-party from here on: the roster was edited

        roster = compile_roster(woken.home.root)
    except Fixable as found:
        problem = found
    if problem is None and roster is not None:
        return _past_roster(role, woken, roster)
    assert problem is not None
    return Broken(woken, roster, problem)


def _wake(role: str | None, options: Options) -> Woken:
    home = existing_home(os.environ, options.home)
    clock = SystemClock()
    me = process.me()
    started = process.started_epoch(me.pid)
    ledger = db.open_ledger(home.ledger)
    id, host = new_id(clock.now()), host_id(home.host)
    row = Firing(id, options.agent, role or "", host, me.boot, me.pid, me.started, None, int(started))
    return Woken(options, home, clock, ledger, row, int(started * 1000))


def _as(woken: Woken, roster: Compiled, agent: Agent) -> Woken:
    """The same, knowing whom it fires, by which roster, and for which slot of the schedule."""
    due = slots.due(agent.slots, woken.clock.now()) if woken.options.scheduled else None
    return woken._replace(row=woken.row._replace(role=agent.role, config=roster.digest, due=due))


def _past_roster(role: str | None, woken: Woken, roster: Compiled) -> int | Past | Broken:
    agent = roster.agents.get(woken.options.agent)
    if agent is None or (role and agent.role != role):
        known = ", ".join(sorted(name for name, other in roster.agents.items() if role in (None, other.role)))
        what = (
            f"agent {woken.options.agent!r} is not in the roster"
            if agent is None
            else (f"agent {agent.name!r} plays the role {agent.role}, not {role}")
        )
        fix = f"one of: {known}" if agent is None else "`watchbill apply`, when its timer still starts the role it had"
        return Broken(woken, roster, Fixable("WB-FIRE-01", f"{woken.home.root}: {what}", fix=fix))
    woken = _as(woken, roster, agent)
    refused = _gates(woken, roster, agent)
    if refused is not None:
        return refused
    from watchbill import look  # not before: a refusal needs none of it

    rest = (
        None
        if woken.options.dry_run or not agent.engine
        else look.at_rest(
            woken.ledger, roster.fleet, agent, woken.row, woken.clock, woken.started_ms, woken.options.scheduled
        )
    )
    if rest is not None:
        return refuse(woken, rest.ending, rest.decisions)
    return Past(woken, roster, agent)


def _gates(woken: Woken, roster: Compiled, agent: Agent, asked: Agent | None = None) -> int | None:
    """None when every gate let it pass. `asked`: what of the agent is known for sure."""
    refusal, verdicts = _asked(woken, roster, asked or agent)
    if refusal is not None and refusal.outcome == "capped" and refusal.numbers.get("reserved"):
        from watchbill import look

        if look.some_died(woken.ledger, woken.row.host):
            from watchbill import bury  # what the dead reserved stands against the cap, and nobody else gets this far

            bury.the_dead(woken.ledger, woken.home, woken.row.host, roster, int(woken.clock.now()))
            refusal, verdicts = _asked(woken, roster, asked or agent)
    if refusal is None:
        return None
    return refuse(woken, Ending(refusal.outcome, refusal.reason, refusal.reason_id), verdicts)


def _asked(woken: Woken, roster: Compiled, agent: Agent) -> tuple[Refusal | None, list[Decision]]:
    fleet = roster.fleet if agent.engine else roster.fleet._replace(caps=())
    seen = snapshot.take(woken.ledger, woken.home, agent, fleet, woken.row.host, woken.clock)
    return gates.check(agent, seen)
