"""What the gates decide from: the clock, the ledger and the disk, read once. Standard library only."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from watchbill import fitness, lock, money
from watchbill.clock import Clock
from watchbill.compiled import Agent, Fleet, Host
from watchbill.fitness import Condition
from watchbill.home import Home
from watchbill.ledger import firings, holds, reservations, windows
from watchbill.ledger.db import Ledger
from watchbill.ledger.firings import Firing
from watchbill.ledger.holds import Hold
from watchbill.ledger.windows import Window
from watchbill.money import Standing


class Refusal(NamedTuple):
    """Why this firing ends before it begins."""

    outcome: str  # held | running | capped
    reason_id: str
    reason: str  # a sentence with the numbers in it
    numbers: Mapping[str, Any]
    until: int | None = None  # when it could change, if that is known


class Snapshot(NamedTuple):
    """Everything a gate may know."""

    now: int
    host: str
    timezone: str
    holds: tuple[Hold, ...]  # all that stand, heal, or healed just now
    lock_held: bool  # another process holds this agent's lock
    live: Firing | None  # the row of this agent's live firing, if the ledger has one
    caps: tuple[Standing, ...]  # the agent's day, the fleet's day and month
    windows: tuple[Window, ...]  # of the accounts it draws on, as far as an engine told
    limits: Host  # what this host has to be to be fit
    condition: Condition  # what it is, as far as there is a limit for it
    gate: str | None = None  # the gate file that is there, see gatefiles


def lock_path(home: Home, agent: str) -> str:
    """One firing an agent a host: this file's kernel lock is held from the gates to the end."""
    return os.path.join(home.locks, f"{agent}.lock")


def standing(ledger: Ledger, agent: Agent, fleet: Fleet, now: float) -> tuple[Standing, ...]:
    """What stands against every cap that is known before an issue is chosen."""
    found = []
    for cap in (*agent.caps, *fleet.caps):
        if cap.scope in ("firing", "issue"):
            continue
        subject = agent.name if cap.scope == "day" else "fleet"
        period = money.period(cap.scope, now, fleet.timezone)
        spent = reservations.spent(ledger, cap.scope, subject, period, cap.unit)
        found.append(Standing(cap, subject, period, spent.settled, spent.reserved))
    return tuple(found)


def gate_file(home: Home, agent: str) -> str | None:
    """The file that holds this agent, the whole fleet's first."""
    return next((path for path in (home.gate(), home.gate(agent)) if os.path.exists(path)), None)


def take(ledger: Ledger, home: Home, agent: Agent, fleet: Fleet, host: str, clock: Clock) -> Snapshot:
    """Read it all once."""
    now = clock.now()
    held = lock.held(lock_path(home, agent.name))
    mine = [row for row in firings.live(ledger, host) if row.agent == agent.name] if held else []
    return Snapshot(
        now=int(now),
        host=host,
        timezone=fleet.timezone,
        holds=tuple(holds.standing(ledger, int(now))),
        lock_held=held,
        live=mine[0] if mine else None,
        caps=standing(ledger, agent, fleet, now),
        windows=tuple(
            window
            for use in agent.uses
            if use.most_used_ppm is not None
            for window in windows.of_account(ledger, use.account, int(now))
        ),
        limits=fleet.host,
        condition=fitness.read(home.root, fleet.host),
        gate=gate_file(home, agent.name),
    )
