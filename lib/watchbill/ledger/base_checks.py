"""Table `base_checks`: whether a check was green on a base commit; checks run once on a base."""

from __future__ import annotations

from typing import NamedTuple

from watchbill.ledger.db import Ledger


class BaseCheck(NamedTuple):
    """What one command said on one commit."""

    exit: int
    digest: str  # blob with its output


#: A red answer is believed for so long: what was missing on the host may be there by then.
RED_S = 900


def get(ledger: Ledger, base: str, command: str, now: int) -> BaseCheck | None:
    """None: not known, or red so long ago that it is asked again."""
    row = ledger.row("base_check_get", base=base, command=command, red_since=now - RED_S)
    return BaseCheck(*row) if row else None


def put(ledger: Ledger, base: str, command: str, check: BaseCheck, at: int) -> None:
    ledger.write("base_check_put", base=base, command=command, exit=check.exit, digest=check.digest, at=at)
