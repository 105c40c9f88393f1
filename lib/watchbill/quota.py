"""GitHub's limits, kept for every firing of this host: what one of them hits, all of them stop at.

A limit becomes a hold of scope github that heals (`pill`). New firings stop at their first gate; those at work make no
further request of the API, and leave what they cannot do now (a label, a repair, a pull request) to later firings.
Pushes go on: they are git's, and the claims must hold. At the end of the limit one firing asks first, its canary: one
that was let past the gates for it, or one that was at work all the time. Its answer lifts the hold.
"""

from __future__ import annotations

import sys
from typing import Any

from watchbill import holds, pill
from watchbill.clock import Clock
from watchbill.forge.base import Answer, RateLimited
from watchbill.ledger import holds as rows
from watchbill.ledger import polls
from watchbill.ledger.db import Ledger
from watchbill.ledger.holds import Hold

SCOPE, PRIMARY, SECONDARY = "github", "github_primary", "github_secondary"
#: A quota is low below so many requests, and below so small a part of it.
_FEW = 50
_PART = 20
_ROW = "quota github"


class Kept:
    """The limits as a firing has to heed them. Satisfies `forge.base.Limits`."""

    def __init__(self, ledger: Ledger, clock: Clock, agent: str, firing: str) -> None:
        self._ledger = ledger
        self._clock = clock
        self._agent = agent
        self._firing = firing
        self._canary_of: tuple[Hold, ...] = ()
        self._low_told = False

    def before(self) -> None:
        """One indexed read of the ledger: another firing may have hit a limit since the last request."""
        now = int(self._clock.now())
        standing = limits(self._ledger, now)
        for hold in standing:
            if not self._may_try(hold, now):
                until = int(holds.free_at(hold, self._agent, now))
                said = holds.said(hold, self._agent, now)
                raise RateLimited(said, until=until, secondary=hold.kind == SECONDARY, status=0)
        self._canary_of = tuple(standing)

    def limited(self, error: RateLimited) -> None:
        swallow(self._ledger, error, self._agent, int(self._clock.now()))

    def answered(self, answer: Answer) -> None:
        healed = [hold for hold in self._canary_of if _proves(answer, hold)]
        if healed:
            now = int(self._clock.now())
            with self._ledger.transaction(durable=True):
                for hold in healed:
                    rows.heal(self._ledger, hold.id, self._firing, now, now + holds.EASE_S)
            self._canary_of = ()
        if _is_low(answer) and not self._low_told:
            self._low_told = True
            _tell_low(self._ledger, answer, self._firing, int(self._clock.now()))

    def _may_try(self, hold: Hold, now: int) -> bool:
        """Whether we are the canary of a limit that has come to its end, or become it."""
        if not holds.to_try([hold], now):
            return False
        if hold.canary == self._firing and now < (hold.canary_until or 0):
            return True
        with self._ledger.transaction(durable=True):
            return rows.go_first(self._ledger, hold.id, self._firing, now, now + pill.CANARY_S)


class Told:
    """The limits as a person hears of them, whose requests are made all the same. Satisfies `forge.base.Limits`."""

    def __init__(self, ledger: Ledger, clock: Clock, author: str) -> None:
        self._ledger = ledger
        self._clock = clock
        self._author = author
        self._said = False

    def before(self) -> None:
        now = int(self._clock.now())
        for hold in [] if self._said else limits(self._ledger, now):
            print(f"note: {holds.said(hold, now=now)}; asked all the same, as it was you who asked", file=sys.stderr)
        self._said = True

    def limited(self, error: RateLimited) -> None:
        swallow(self._ledger, error, self._author, int(self._clock.now()))

    def answered(self, answer: Answer) -> None:
        """Proves nothing to the fleet: the hold stays for its canary."""


def limits(ledger: Ledger, now: int) -> list[Hold]:
    """The limits of GitHub's that have not healed; a person's hold stops firings, not what they must give back."""
    return [
        hold
        for hold in rows.standing(ledger, now)
        if hold.scope == SCOPE and hold.kind in (PRIMARY, SECONDARY) and hold.lifted_at is None
    ]


def swallow(ledger: Ledger, error: RateLimited, author: str, now: int) -> int:
    """A limit that was hit, as a hold; until when it lasts, UTC epoch seconds."""
    kind = SECONDARY if error.secondary else PRIMARY
    return pill.swallow(ledger, pill.Limit(SCOPE, "", kind, str(error)[:200], error.until), author, now)


def low(ledger: Ledger, now: int) -> dict[str, Any] | None:
    """The quota when it was last seen to be low, until it is reset: remaining, limit, resets_at, seen_at."""
    found = polls.get(ledger, _ROW).body
    return dict(found) if found and found["resets_at"] > now else None


def _proves(answer: Answer, hold: Hold) -> bool:
    """Whether this answer shows that a limit is over. What GitHub thinks of writes no read can show; and a 304, which
    costs nothing, is given above the quota as well, unless it says that something remains."""
    if hold.kind == SECONDARY:
        return answer.writes
    return answer.counted or bool(answer.remaining)


def _is_low(answer: Answer) -> bool:
    if answer.remaining is None or not answer.limit or answer.resets_at is None:
        return False
    return answer.remaining < _FEW or answer.remaining * _PART < answer.limit


def _tell_low(ledger: Ledger, answer: Answer, firing: str, now: int) -> None:
    """Put on record, and nobody is held for it: numbers for `status`."""
    body = {"remaining": answer.remaining, "limit": answer.limit, "resets_at": answer.resets_at, "seen_at": now}
    with ledger.transaction():
        if polls.take(ledger, _ROW, firing, now, now):
            polls.put(ledger, _ROW, firing, None, now * 1000, body)
