"""report: tell the person at the terminal; the ledger has been told already."""

from __future__ import annotations

from watchbill.ledger import firings
from watchbill.ledger.firings import Firing as Row
from watchbill.live import Firing
from watchbill.outcomes import Ending
from watchbill.reports import ending as told


def tell(f: Firing, end: Ending) -> None:
    """Exactly one line on stdout, or with --json one object."""
    row = firings.get(f.ledger, f.id)
    assert row is not None, end
    _print(f, row)


def rehearsed(f: Firing, end: Ending) -> Ending:
    """The same for a dry run, which has no row."""
    _print(
        f, f.row._replace(ended=f.now, outcome=end.outcome, exit=end.exit, reason=end.reason, reason_id=end.reason_id)
    )
    return end


def late(f: Firing, end: Ending, error: Exception) -> None:
    """Something failed after the firing had ended: the one line is still said, once."""
    f.note("after the end", error=repr(error))
    if not f.told:
        rehearsed(f, end)


def _print(f: Firing, row: Row) -> None:
    cap = next((cap.limit for cap in f.agent.caps if cap.scope == "firing" and cap.unit == "usd"), None)
    f.told = True
    told.tell(row, f.ports.home.logs, json=f.options.json, scheduled=f.options.scheduled, cap_micro=cap)
