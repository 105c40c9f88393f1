"""billing: what a firing is charged when it ends, in every unit; also one that nobody saw end."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from watchbill import engines, prices, sessions
from watchbill.compiled import Compiled, Use
from watchbill.engines import bill
from watchbill.engines.base import Engine, Usage
from watchbill.engines.bill import Bill, Tariff
from watchbill.errors import Fixable
from watchbill.home import Home
from watchbill.ledger import firings, meters, reservations, steps
from watchbill.ledger.db import Ledger
from watchbill.ledger.firings import Used
from watchbill.live import Firing


class Charge(NamedTuple):
    """What is settled."""

    used: Mapping[str, int]  # by unit
    basis: str

    @property
    def told(self) -> Used:
        """As the firing's own row has it."""
        return Used(self.used["usd"], self.basis, self.used["tokens"], self.used["turns"])


_NOT_STARTED = Charge(reservations.NOTHING, "not started")


def of(f: Firing) -> Charge:
    """Of a firing that ends by itself."""
    if f.result is not None:
        charged = Bill(f.result.cost_micro, f.result.basis)
        return _in_every_unit(_reserved(f.ledger, f.id), charged, f.result.usage)
    if not f.engine_started:
        return _NOT_STARTED
    row = firings.get(f.ledger, f.id)  # something broke while the engine ran
    return of_the_dead(f.ledger, f.ports.home, row, f.roster) if row else _NOT_STARTED


def of_the_unknown(ledger: Ledger, home: Home, row: firings.Firing, roster: Compiled | None) -> Charge:
    """Of a firing that may live on for all we know, under another id of this host: all that it may still spend."""
    charge, held = of_the_dead(ledger, home, row, roster), _reserved(ledger, row.id)
    if charge == _NOT_STARTED:
        return charge
    return Charge({unit: max(amount, held.get(unit, 0)) for unit, amount in charge.used.items()}, charge.basis)


def of_the_dead(ledger: Ledger, home: Home, row: firings.Firing, roster: Compiled | None) -> Charge:
    """Of a firing whose process is gone: by its stream so far, its transcript, or its reservation."""
    held = _reserved(ledger, row.id)
    if row.engine is None:  # in the step and without a mark: an older program's, upgraded under while it ran
        began = any(step.name == "engine" for step in steps.of_firing(ledger, row.id))
        whole = Bill(held.get("usd", 0), "reservation")
        return _in_every_unit(held, whole, Usage()) if began else _NOT_STARTED
    meter = meters.get(ledger, row.id)
    known = Bill(meter.cost_micro, meter.basis) if meter and meter.cost_micro is not None else None
    usage = Usage(meter.tokens, 0, meter.turns) if meter else Usage()
    if known is not None and meter is not None and meter.final:
        return _in_every_unit(held, known, usage)
    found = known
    place = os.path.join(home.worktrees, row.id)
    try:
        engine = engines.named(row.engine)
        tariff = _tariff(roster, row, engine, held.get("usd", 0))
        found, heard = bill.of_the_dead(
            engine, os.path.join(place, "engine.log"), os.path.join(place, "home"), known, tariff,
            sessions.before(ledger, row.id))  # fmt: skip
        usage = max((usage, heard), key=lambda one: one.tokens)
    except Fixable:
        pass  # an engine that is not here any more
    anything = any(held.get(unit) for unit in ("usd", "tokens", "turns"))
    assumed = Bill(held.get("usd", 0), "reservation" if anything else "unmeasured")
    return _in_every_unit(held, found or assumed, usage)


def _tariff(roster: Compiled | None, row: firings.Firing, engine: Engine, reserved_micro: int) -> Tariff:
    table = roster.fleet.prices if roster else {}
    request_micro = bill.request_micro(_use(roster, row), engine)
    return Tariff(
        lambda model, tokens: prices.price(model, tokens, table), row.model, request_micro, reserved_micro, True, "deny"
    )


def _use(roster: Compiled | None, row: firings.Firing) -> Use | None:
    agent = roster.agents.get(row.agent) if roster else None
    return next((use for use in (agent.uses if agent else ()) if use.engine == row.engine), None)


def _in_every_unit(held: Mapping[str, int], cost: Bill, usage: Usage) -> Charge:
    """Tokens and turns that were not told are charged as reserved, like dollars. A nothing can be told, too."""
    nothing = cost.micro == 0 and usage.turns == 0 and cost.basis in ("engine", "notional", "priced")
    free = nothing or cost.basis in ("free", "unmeasured")
    tokens = usage.tokens if usage.tokens or free else held.get("tokens", 0)
    turns = usage.turns if usage.turns or free else held.get("turns", 0)
    return Charge({"usd": cost.micro, "tokens": tokens, "turns": turns, "firings": 1}, cost.basis)


def _reserved(ledger: Ledger, firing: str) -> dict[str, int]:
    return {row.unit: row.reserved for row in reservations.open_of(ledger, firing) if row.scope == "firing"}
