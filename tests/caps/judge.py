"""Holds the ledger's history to the promise, event by event; pure.

At every instant settled + reserved <= cap + one request for each firing that was live when something was last granted:
at that moment it was within the cap, and since then only those could settle above what they had reserved.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from watchbill.money import UNITS


class Key(NamedTuple):
    """One cap."""

    scope: str
    subject: str
    period: str
    unit: str


class Account:
    """What stands against one cap."""

    def __init__(self) -> None:
        self.cap: int | None = None
        self.settled = self.reserved = self.highest = 0
        self.live: set[str] = set()
        self.live_at_grant = 0


class Judge:
    """Replays `reserved` and `settled` events; what was wrong is in `violations`."""

    def __init__(self, request: Mapping[str, int]) -> None:
        self.request = request
        self.accounts: dict[Key, Account] = defaultdict(Account)
        self.open: dict[tuple[str, int], list[tuple[Key, int]]] = {}
        self.settled: dict[str, dict[str, int]] = {}
        self.violations: list[str] = []
        self.grants = self.most_live = 0

    def replay(self, events: Iterable[tuple[int, str, str, str]]) -> None:
        """Rows (seq, kind, subject, body) in order."""
        for seq, kind, firing, text in events:
            body = json.loads(text)
            if kind == "reserved":
                self._reserved(seq, firing, body)
            elif kind == "settled":
                self._settled(seq, firing, body)

    def _reserved(self, seq: int, firing: str, body: dict[str, object]) -> None:
        held = []
        for scope, subject, period, unit, cap, reserved in body["caps"]:  # type: ignore[attr-defined]
            key = Key(scope, subject, period, unit)
            account = self.accounts[key]
            if cap is not None and account.settled + account.reserved + reserved > cap:
                self._wrong(seq, key, f"granted {reserved} on {account.settled} + {account.reserved} of {cap}")
            account.cap = cap
            account.reserved += reserved
            account.live.add(firing)
            account.live_at_grant = len(account.live)
            held.append((key, reserved))
            self._check(seq, key)
        self.open[firing, body["try"]] = held  # type: ignore[index]
        self.grants += 1
        self.most_live = max(self.most_live, len(self.open))

    def _settled(self, seq: int, firing: str, body: dict[str, int]) -> None:
        held = self.open.pop((firing, body["try"]), None)
        if held is None:
            self.violations.append(f"event {seq}: {firing} settled what was not open")
            return
        self.settled[firing] = {unit: body[unit] for unit in UNITS}
        for key, reserved in held:
            account = self.accounts[key]
            account.reserved -= reserved
            account.settled += body[key.unit]
            account.live.discard(firing)
            self._check(seq, key)

    def _check(self, seq: int, key: Key) -> None:
        account = self.accounts[key]
        stands = account.settled + account.reserved
        account.highest = max(account.highest, stands)
        if account.cap is not None and stands > account.cap + self.request[key.unit] * account.live_at_grant:
            self._wrong(seq, key, f"{account.settled} + {account.reserved} stand against {account.cap}")

    def _wrong(self, seq: int, key: Key, what: str) -> None:
        self.violations.append(f"event {seq}: {' '.join(key)}: {what}")

    def at_the_end(
        self,
        truly: Mapping[str, Mapping[str, int]],
        spend: Iterable[tuple[str, str, str, str, int, int]],
        full: Iterable[Key],
    ) -> float:
        """The worst utilisation of the caps in `full`, which turned somebody away for good.

        `truly`: what each firing really spent, by unit; `spend`: the ledger's own sums.
        """
        for firing, used in truly.items():
            recorded = self.settled.get(firing)
            if recorded is None or any(recorded[unit] < used[unit] for unit in UNITS):
                self.violations.append(f"{firing} spent {dict(used)} and {recorded} is recorded")
        if self.open:
            self.violations.append(f"open at the end: {sorted(self.open)[:3]}")
        for *which, settled, reserved in spend:
            key = Key(*which)
            account = self.accounts[key]
            if (settled, reserved) != (account.settled, account.reserved):
                self._wrong(0, key, f"the sums {settled} + {reserved} are not {account.settled} + {account.reserved}")
            if reserved:
                self._wrong(0, key, f"{reserved} reserved at the end")
        return min((self.accounts[key].settled / (self.accounts[key].cap or 1) for key in full), default=0.0)
