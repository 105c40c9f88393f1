"""Table `windows`: how full a subscription's windows were when an engine last said so."""

from typing import NamedTuple

from watchbill.ledger.db import Ledger


class Window(NamedTuple):
    """One window of an account's subscription."""

    account: str
    name: str  # the provider's: five_hour, seven_day, ...
    used_ppm: int  # parts per million
    resets_at: int
    seen_at: int


def put(ledger: Ledger, window: Window) -> None:
    ledger.write("window_put", **window._asdict())


def of_account(ledger: Ledger, account: str, now: int) -> list[Window]:
    """Those that have not been reset since."""
    return [Window(*row) for row in ledger.rows("windows_of_account", account=account, now=now)]
