"""Claims in words: one record, and what one commit of a claim ref did to the one before it. Pure."""

from __future__ import annotations

from collections.abc import Callable

from watchbill import money
from watchbill.claims import rules
from watchbill.claims.record import ClaimRecord, Unreadable


def holder(record: ClaimRecord, here: str) -> str:
    """Who: `bosun on this host`, `bosun on host 157093c55949`."""
    return f"{record.agent} on {place(record.host, here)}"


def place(host: str, here: str) -> str:
    return "this host" if host == here else f"host {host}"


def span(seconds: float) -> str:
    """45s, 12m, 3h 20m, 2d 4h."""
    whole = int(seconds)
    for size, unit, below, rest in ((86400, "d", 3600, "h"), (3600, "h", 60, "m")):
        if whole >= size:
            more = whole % size // below
            return f"{whole // size}{unit}" + (f" {more}{rest}" if more else "")
    return f"{whole // 60}m" if whole >= 60 else f"{whole}s"


def said(before: ClaimRecord | Unreadable | None, after: ClaimRecord | Unreadable, here: str) -> str:
    """What happened between two commits of a claim ref, for people."""
    if isinstance(after, Unreadable):
        return f"unreadable: {after.reason}"
    if isinstance(before, Unreadable):
        return f"{_state(after)}, written by {holder(after, here)} over the record that could not be read"
    try:
        operation = rules.follow(before, after)
    except rules.IllegalMove as illegal:
        return f"{_state(after)}, by {holder(after, here)}, which no rule allows: {illegal}"
    return _OPERATIONS.get(operation, _state)(after) if operation not in _BEGIN else _begun(before, after, here)


#: What most commits of a long run say.
RENEWED = "renewed"
_BEGIN = {"claim", "takeover", "borrow"}


def _begun(before: ClaimRecord | None, after: ClaimRecord, here: str) -> str:
    who = f"{holder(after, here)}: try {after.attempt}"
    if after.pr is not None:
        return f"pull request #{after.pr} borrowed by {holder(after, here)} to {after.role}"
    if before is not None and before.state == "active":
        return f"taken over from {holder(before, here)} by {who}"
    return f"claimed by {who}"


def spent(record: ClaimRecord) -> str:
    """What all generations have cost so far, as the end of a sentence; only where one ends."""
    ends = record.spent and record.state in ("pr", "released", "done")
    return f"; spent on it so far: {money.usd(record.spent)}" if ends else ""


_OPERATIONS: dict[str, Callable[[ClaimRecord], str]] = {
    "renew": lambda _: RENEWED,
    "publish": lambda record: f"work pushed as {str(record.head)[:12]}",
    "finish": lambda record: f"pull request #{record.pr} opened",
    "return": lambda record: f"pull request #{record.pr} given back",
    "merge": lambda record: "merged" if record.pr is None else f"pull request #{record.pr} merged",
    "reopen": lambda record: f"pull request #{record.pr} is open again",
    "release(retry)": lambda _: "given back, to be tried again",
    "release(human)": lambda _: "handed to a person",
}


def _state(record: ClaimRecord) -> str:
    return rules.phase(record)
