"""Table `streaks`: how many firings in a row went wrong."""

from __future__ import annotations

from watchbill.ledger.db import Ledger


def failed(ledger: Ledger, scope: str, subject: str) -> int:
    """One more; how many in a row now."""
    row = ledger.row("streak_failed", scope=scope, subject=subject)
    assert row is not None
    return int(row[0])


def over(ledger: Ledger, scope: str, subject: str) -> None:
    ledger.write("streak_over", scope=scope, subject=subject)
