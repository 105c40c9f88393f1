"""The only door to the outside: an intent before, a receipt after.

Whatever Watchbill pushes, opens, labels, comments or posts goes through `perform`. Before: holds and the claim are
read again, and an intent is written. After: a receipt. An answer that was lost is looked up outside and adopted; it is
never guessed, and nothing is done twice for one key. The four boundaries of every effect (before the intent, after it,
after the act, after the receipt) are the crash points that tests enumerate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from watchbill import holds
from watchbill.forge.base import ForgeError, Unknown
from watchbill.git import GitError
from watchbill.ledger import claims, effects
from watchbill.ledger.db import Refused
from watchbill.live import Firing, Target
from watchbill.outcomes import Ended

Receipt = dict[str, Any]

#: Verdicts of a push that settle an effect for good; everything that is no push is `ok` when it returns.
_FINAL = ("ok", "lost")


def key(target: Target, generation: int, kind: str, ordinal: int = 0) -> str:
    """The idempotency key of one effect."""
    return f"{target.repo_id}/{target.issue.number}/{generation}/{kind}/{ordinal}"


def perform(
    f: Firing,
    target: Target,
    kind: str,
    intent: dict[str, Any],
    act: Callable[[], Receipt],
    look: Callable[[], Receipt | None] | None = None,
    *,
    ordinal: int = 0,
    settling: bool = False,
) -> Receipt:
    """Do one thing outside, at most once; its receipt.

    `act` does it and answers, or raises forge.base.Unknown when it cannot say. `look` reads outside whether it has
    happened; None for what may as well be done again. `settling`: giving back what we own is never held up by a hold.
    """
    if not settling:
        allowed(f, target)
    name = key(target, target.generation, kind, ordinal)
    known = effects.get(f.ledger, name)
    if known is None and _intended(f, name, kind, intent):
        found = None
    elif known is not None and known.receipt is not None:
        return known.receipt
    else:
        found = look() if look else None  # a firing died, or lost the answer, between intent and receipt
    receipt = found if found is not None else _act(act, look)
    if receipt.get("verdict", "ok") not in _FINAL:
        return receipt  # turned away: nothing was done, and it may be done another time
    with f.ledger.transaction():
        effects.receive(f.ledger, name, receipt, f.now)
    f.note(f"effect {kind}", **receipt)
    return receipt


def _intended(f: Firing, name: str, kind: str, intent: dict[str, Any]) -> bool:
    """False when another process intended the same thing at this very moment."""
    try:
        with f.ledger.transaction(durable=True):
            effects.intend(f.ledger, name, f.id, kind, intent, f.now)
    except Refused:
        return False
    return True


def _act(act: Callable[[], Receipt], look: Callable[[], Receipt | None] | None) -> Receipt:
    try:
        return act()
    except Unknown as unknown:
        try:
            found = look() if look else None
        except (ForgeError, GitError):
            raise unknown from None
        if found is not None:
            return {**found, "adopted": True}
        raise


def allowed(f: Firing, target: Target, *, beginning: bool = False) -> None:
    """Raise Ended when a hold, a signal or a lost claim forbids any further effect.

    `beginning`: also for a hold that stops nothing under way; who owns nothing yet always begins.
    """
    f.obey()
    hold = f.held(target, beginning=beginning or f.claim is None)
    if hold is not None:
        raise Ended("held", holds.said(hold, f.agent.name, f.now), holds.reason_id(hold))
    if f.claim is not None and not claims.still_won(f.ledger, f.id):
        raise Ended("lost", "the claim is not ours any more; no further effect", "claim-superseded")
