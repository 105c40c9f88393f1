"""Table `holds`: reasons not to fire; some end by a person's hand, some by time, some heal."""

from typing import NamedTuple

from watchbill.ledger import seal
from watchbill.ledger.db import Ledger


class Hold(NamedTuple):
    """One hold that is not over."""

    id: int
    scope: str  # fleet | host | repo | issue | agent | role | engine | account | model | github
    subject: str  # "" for the whole fleet
    kind: str  # pause | stop | rate_limit | breaker | ..., see holds.AUTOMATIC
    reason: str
    author: str
    since: int
    until: int | None  # None: until somebody lifts it
    evidence: str | None = None
    heals: int = 0  # 1: after `until` its canary goes first, and lifts it
    strikes: int = 1  # how often in a row
    canary: str | None = None  # the firing that goes first
    canary_until: int | None = None  # from then on another may take its place
    lifted_at: int | None = None  # healed: agents are let in one by one until `eases_until`
    eases_until: int | None = None


def add(ledger: Ledger, hold: Hold) -> None:
    """`hold.id` is given by the ledger."""
    ledger.write("hold_add", **_given(hold))


def heal_or_lengthen(ledger: Ledger, hold: Hold) -> None:
    """A hold that heals: a new one, or the one that stands made longer. The later end wins; no canary goes any more."""
    ledger.write("hold_put", **_given(hold), strikes=hold.strikes)


def _given(hold: Hold) -> dict[str, object]:
    names = ("scope", "subject", "kind", "reason", "author", "since", "until", "evidence")
    return {name: getattr(hold, name) for name in names}


def standing(ledger: Ledger, now: int) -> list[Hold]:
    """All that somebody may have to heed at `now`, in one statement; `holds.heeded` says who."""
    return [Hold(*row) for row in seal.standing(ledger, now)]


def healing(ledger: Ledger, scope: str, subject: str, kind: str) -> Hold | None:
    """The hold of this kind that has not healed yet."""
    row = ledger.row("hold_healing", scope=scope, subject=subject, kind=kind)
    return Hold(*row) if row else None


def healed_lately(ledger: Ledger, scope: str, subject: str, kind: str, now: int) -> int:
    """The strikes of one that healed so lately that agents are still being let in; 0 without one."""
    found = ledger.rows("hold_healed_lately", scope=scope, subject=subject, kind=kind, now=now)
    return max((int(row[0]) for row in found), default=0)


def go_first(ledger: Ledger, id: int, firing: str, now: int, until: int) -> bool:
    """Become the canary, or stay it for longer. False while another is."""
    return ledger.write("hold_canary", id=id, firing=firing, now=now, until=until) == 1


def give_back(ledger: Ledger, firing: str) -> None:
    """Whatever this firing was the canary of: the next may be."""
    ledger.write("hold_canary_back", firing=firing)


def heal(ledger: Ledger, id: int, firing: str, at: int, eases_until: int) -> bool:
    """The canary came back alive. False when it is not the canary any more, or a later limit was hit since."""
    return ledger.write("hold_heal", id=id, firing=firing, at=at, eases_until=eases_until) == 1


def lift(ledger: Ledger, id: int, by: str, at: int) -> bool:
    """False when somebody else lifted it first."""
    return ledger.write("hold_lift", id=id, by=by, at=at) == 1
