"""The poison pill: what one firing hits, all of them that use the same thing stop at; and how they start again.

A limit is written down as a hold that heals (`holds.py`), with the provider's own reset time, or with a wait that grows
from time to time where there is none that can be believed. When its time has come exactly one firing goes first, its
canary. At the canary's first answer the hold is lifted; if it is limited again the hold lasts longer; if it dies, or
has nothing to do, another takes its place. No canary lifts what a person set.
"""

from __future__ import annotations

from typing import NamedTuple

from watchbill import holds
from watchbill.gates import capped, snapshot
from watchbill.ledger import holds as rows
from watchbill.ledger.db import Ledger
from watchbill.ledger.holds import Hold
from watchbill.live import Firing
from watchbill.outcomes import Ended

#: No provider's window is longer; one that says otherwise is not believed.
LONGEST_S = 8 * 86400
#: A canary that has had no answer for so long is replaced.
CANARY_S = 300
#: The first wait where no end is known; each further strike doubles it.
FIRST_WAIT_S = {"rate_limit": 900, "billing": 3600, "overloaded": 120, "github_primary": 900, "github_secondary": 60}
_GROWS_TO_S = 5 * 3600


class Limit(NamedTuple):
    """What was hit."""

    scope: str  # account | github | agent | ...
    subject: str
    kind: str  # a key of FIRST_WAIT_S, or `breaker`
    reason: str
    until: int | None = None  # the provider's own reset, UTC epoch seconds, not yet believed
    first_wait_s: int | None = None  # None: as FIRST_WAIT_S
    evidence: str | None = None


def swallow(ledger: Ledger, limit: Limit, author: str, now: int) -> int:
    """Write the hold, or lengthen the one that stands; until when it lasts."""
    with ledger.transaction(durable=True):
        known = rows.healing(ledger, limit.scope, limit.subject, limit.kind)
        again = known is not None and (known.until or 0) <= now  # hit again after its end: by the canary
        before = known.strikes if known else rows.healed_lately(ledger, limit.scope, limit.subject, limit.kind, now)
        strikes = before + (1 if again or known is None else 0)
        until = end_of(limit, strikes, now)
        rows.heal_or_lengthen(
            ledger,
            Hold(0, limit.scope, limit.subject, limit.kind, limit.reason, author, now, until, limit.evidence,
                 strikes=strikes),
        )  # fmt: skip
        return max(until, (known.until or 0) if known else 0)


def end_of(limit: Limit, strikes: int, now: int) -> int:
    """Until when a limit holds that was hit `strikes` times in a row.

    The provider's reset, where it can be believed: in the future, and within the longest window there is. From the
    second strike on never less than the grown wait, lest a reset of a few seconds be tried again and again.
    """
    first = limit.first_wait_s or FIRST_WAIT_S.get(limit.kind, 900)
    grown = now + min(first << min(strikes - 1, 20), max(first, _GROWS_TO_S))
    if limit.until is None or not now < limit.until <= now + LONGEST_S:
        return grown
    return limit.until if strikes == 1 else max(limit.until, grown)


def go_first(f: Firing) -> None:
    """Past the gates: become the canary of every hold that waits for one. When another is faster: go on with the
    fallback engine, if there is one that nothing holds, else Ended `held`."""
    missed = _try_first(f)
    if missed is None:
        return
    seen = snapshot.take(f.ledger, f.ports.home, f.agent, f.fleet, f.row.host, f.ports.clock)
    other = capped.usable(f.agent, seen)
    if other is not None and other != f.use:
        f.ports.use = other
        if f.held(beginning=True) is None and _try_first(f) is None:
            return
    raise _beaten(missed)


def _beaten(hold: Hold) -> Ended:
    return Ended("held", f"{holds.said(hold)}; another firing tries it first", holds.reason_id(hold))


def _try_first(f: Firing) -> Hold | None:
    """None: it is the canary of all that wait for one. Else a hold that another was faster at."""
    waiting = mine(f)
    if not waiting:
        return None
    with f.ledger.transaction(durable=True):
        taken = [hold for hold in waiting if rows.go_first(f.ledger, hold.id, f.id, f.now, f.now + CANARY_S)]
        if len(taken) < len(waiting):
            rows.give_back(f.ledger, f.id)
    if len(taken) < len(waiting):
        return next(hold for hold in waiting if hold not in taken)
    f.canary_of = tuple(hold.id for hold in taken)
    f.note("canary", of=[holds.said(hold) for hold in taken])
    return None


def mine(f: Firing) -> list[Hold]:
    """The holds that this firing would have to be the canary of."""
    subjects = holds.subjects_of(f.agent, f.row.host, f.use)
    return holds.to_try(holds.applying(rows.standing(f.ledger, f.now), subjects), f.now)


def still_first(f: Firing) -> None:
    """Right before the engine starts: it was not replaced, and is the canary too of what has come to its end since.

    Ended `held` when another is faster, or it is no limit that waits but a stop whose end somebody has to look at.
    """
    stop = next((hold for hold in mine(f) if holds.stops(hold)), None)
    if stop is not None:
        raise Ended("held", holds.said(stop), holds.reason_id(stop))
    missed = _try_first(f)
    if missed is not None:
        raise _beaten(missed)


def answered(f: Firing, scopes: frozenset[str]) -> None:
    """What was limited has answered: lift the holds of these scopes that this firing is the canary of."""
    if not f.canary_of:
        return
    standing = {hold.id: hold for hold in rows.standing(f.ledger, f.now)}
    healed = [id for id in f.canary_of if id in standing and standing[id].scope in scopes]
    if not healed:
        return
    with f.ledger.transaction(durable=True):
        for id in healed:
            alone = standing[id].scope == "agent"  # nobody else waits for a turn
            rows.heal(f.ledger, id, f.id, f.now, f.now + (0 if alone else holds.EASE_S))
    f.canary_of = tuple(id for id in f.canary_of if id not in healed)
    f.note("what was limited answers again", holds=healed)
