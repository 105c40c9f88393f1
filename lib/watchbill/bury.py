"""bury: end the rows, the processes and the money of firings whose process is gone. Needs nothing but this host."""

from __future__ import annotations

from watchbill import billing, breaker, look, process
from watchbill.billing import Charge
from watchbill.compiled import Breaker, Compiled
from watchbill.engines import keeper
from watchbill.home import Home
from watchbill.ledger import claims, firings, holds, polls, reservations, steps
from watchbill.ledger.db import Ledger
from watchbill.outcomes import DIED, Ending


def the_dead(
    ledger: Ledger, home: Home, host: str, roster: Compiled | None, now: int, stopped: Ending | None = None
) -> None:
    """End the rows and processes of firings whose process is gone. Needs nothing but this host.

    `stopped`: how those end that a person's stop has killed; it says nothing of agent or issue.

    Rows of another host id in this ledger are of a home that was copied or moved: their processes mean nothing here,
    and their claims are another's to settle.
    """
    for owned in claims.live_elsewhere(ledger, host):
        with ledger.transaction():
            claims.end(ledger, owned.firing, "superseded", owned.record, owned.tip, now)
    for row in firings.live_elsewhere(ledger, host):
        _one(ledger, row, billing.of_the_unknown(ledger, home, row, roster), roster, now, stopped)
    for row in firings.live(ledger, host):
        if look.alive(row):
            continue
        process.end_marked(keeper.MARKER, row.id)
        _one(ledger, row, billing.of_the_dead(ledger, home, row, roster), roster, now, stopped)


def _one(
    ledger: Ledger, row: firings.Firing, charge: Charge, roster: Compiled | None, now: int, stopped: Ending | None
) -> None:
    where = steps.of_firing(ledger, row.id)
    with ledger.transaction(durable=True):
        reservations.settle(ledger, row.id, charge.used, charge.basis, now)
        if row.engine is None and charge.used["firings"]:
            firings.starts_engine(ledger, row.id, firings.UNKNOWN, firings.UNKNOWN, None)
        holds.give_back(ledger, row.id)
        polls.give_back_all(ledger, row.id)
        reason = f"its process {row.pid} ended without a word" + (f" in {where[-1].name}" if where else "")
        end = stopped or Ending(DIED, reason, "died")
        if firings.end(ledger, row.id, end, now, charge.told) and row.engine is not None and stopped is None:
            breaker.failed(ledger, row, roster.fleet.breaker if roster else Breaker(), end, now)
