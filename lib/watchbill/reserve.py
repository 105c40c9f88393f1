"""reserve: in one transaction, re-read the holds, check every cap, and write down what is about to be claimed.

The claim row carries the id of the commit that will be pushed, so that after a crash anybody on this host can tell
whether the push was ours; the reservation carries the worst case, so that what is spent was always granted before.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from watchbill import effects, money
from watchbill.claims.record import VERSION, ClaimRecord
from watchbill.compiled import Cap, Repo
from watchbill.gates import capped
from watchbill.gates.snapshot import Refusal
from watchbill.ledger import claims, firings, polls, reservations
from watchbill.ledger.db import Refused
from watchbill.ledger.decisions import Decision
from watchbill.ledger.reservations import AboveCap, Subjects
from watchbill.live import Firing, Target
from watchbill.outcomes import Ended


class Reserved(NamedTuple):
    """A claim about to be made."""

    target: Target
    record: ClaimRecord
    intended: str  # the commit to be pushed; it lies in the mirror


def worst_case(f: Firing, target: Target) -> Reserved | None:
    """None: another firing of this host has it. Raises Ended (capped, held)."""
    record, worst = first_record(f, target), money.worst_case(f.agent.caps, f.ports.headroom_micro)
    intended = f.ports.claim_refs(target.repo).write(record, parent=target.tip, head=None)
    try:
        with f.ledger.transaction(durable=True):
            effects.allowed(f, target)
            claims.intend(
                f.ledger,
                f.id,
                f.row.host,
                target.repo_id,
                target.repo.full_name,
                target.issue.number,
                target.generation,
                intended,
            )
            firings.target(
                f.ledger,
                f.id,
                target.repo_id,
                target.repo.full_name,
                target.issue.number,
                target.branch,
                target.generation,
            )
            reservations.reserve(f.ledger, subjects(f, target), worst, caps(f, target), f.now)
            if f.options.dry_run:
                raise _rehearsed(target)  # and all of this is rolled back
            polls.give_back_all(f.ledger, f.id)  # the claim row says from now on whose it is
    except AboveCap as above:
        end = _capped(f, target, above)
        if above.wanted.scope == "issue":
            return None  # this issue has had its share; others have not
        raise end from above
    except Refused as error:
        if "claims" not in str(error):
            raise
        owner = claims.live_on(f.ledger, target.repo_id, target.issue.number)
        who = f"firing {owner.firing} of this host reserved it first" if owner else "another firing was first"
        f.decide(
            Decision("reserve", f"{target.repo.full_name}#{target.issue.number}", "lost", "reserved-by-another", who)
        )
        return None
    return Reserved(target, record, intended)


def _rehearsed(target: Target) -> Ended:
    return Ended(
        "idle",
        f"dry run: would claim {target.repo.full_name}#{target.issue.number}"
        f" as generation {target.generation}, attempt {target.attempt}; nothing was changed",
        "dry-run",
    )


def used_up(f: Firing, repo: Repo, repo_id: int, number: int, spent_micro: int) -> Refusal | None:
    """Whether an issue has had its share: none of its caps has room for one more firing of this agent.

    `spent_micro`: what its claim's record says, of all hosts. What this firing itself used and did not settle yet
    counts; what is reserved at the moment does not, for it may come back.
    """
    worst = money.worst_case(f.agent.caps, f.ports.headroom_micro)
    subject = f"{repo_id}#{number}"
    for cap in f.fleet.caps:
        if cap.scope != "issue":
            continue
        settled = reservations.spent(f.ledger, "issue", subject, "", cap.unit).settled + f.used.get(cap.unit, 0)
        if cap.unit == "usd":
            settled = max(settled, spent_micro)
        standing = money.Standing(cap, f"{repo.full_name}#{number}", "", settled, 0)
        if money.above(standing, worst):
            return capped.refusal(standing, worst.get(cap.unit, 0))
    return None


def first_record(f: Firing, target: Target) -> ClaimRecord:
    """The record of a new generation."""
    worst = money.worst_case(f.agent.caps, f.ports.headroom_micro)
    return ClaimRecord(
        version=VERSION,
        repo_id=target.repo_id,
        number=target.issue.number,
        generation=target.generation,
        sequence=0,
        state="active",
        role=f.agent.role,
        firing=f.id,
        agent=f.agent.name,
        host=f.row.host,
        boot=f.row.boot,
        pid=f.row.pid,
        nonce=os.urandom(8).hex(),
        ttl=f.fleet.claims.ttl_s,
        issued=f.now,
        label_event=target.label_event,
        base=target.base,
        head=None,
        pr_floor=target.pr_floor,
        pr=None,
        attempt=target.attempt,
        # With all that this firing may spend: who finds it silent has no better figure. What it did spend, it says.
        spent=(target.previous.spent if target.previous else 0) + worst.get("usd", 0),
        outcome=None,
        title=None,
        body=None,
    )


def subjects(f: Firing, target: Target) -> Subjects:
    """Whose caps this firing counts against, in the day and month of this very moment."""
    now, zone = f.ports.clock.now(), f.fleet.timezone
    return Subjects(
        firing=f.id,
        issue=_subject(target),
        agent=f.agent.name,
        day=money.period("fleet_day", now, zone),
        month=money.period("fleet_month", now, zone),
    )


def caps(f: Firing, target: Target) -> dict[tuple[str, str], int]:
    """Every limit that a reservation is held against, by scope and unit.

    Not the firing's own: the worst case is that limit and a request more.
    """
    limits = {(cap.scope, cap.unit): cap.limit for cap in (*f.agent.caps, *f.fleet.caps) if cap.scope != "firing"}
    if ("issue", "usd") in limits:
        limits["issue", "usd"] = max(0, limits["issue", "usd"] - _spent_elsewhere(f, target))
    return limits


def _subject(target: Target) -> str:
    return f"{target.repo_id}#{target.issue.number}"


def _spent_elsewhere(f: Firing, target: Target) -> int:
    """What the claim's record says was spent on the issue, beyond what this host's ledger has of it: micro-dollars."""
    here = reservations.spent(f.ledger, "issue", _subject(target), "", "usd")
    return max(0, (target.previous.spent if target.previous else 0) - here.settled - here.reserved)


def _capped(f: Firing, target: Target, above: AboveCap) -> Ended:
    wanted, (settled, reserved) = above.wanted, above.standing
    named, cap = wanted.subject, Cap(wanted.scope, wanted.unit, wanted.cap or 0)
    if wanted.scope == "issue":
        named = f"{target.repo.full_name}#{target.issue.number}"
        cap = next(whole for whole in f.fleet.caps if (whole.scope, whole.unit) == (wanted.scope, wanted.unit))
        settled += _spent_elsewhere(f, target) if wanted.unit == "usd" else 0
    standing = money.Standing(cap, named, wanted.period, settled, reserved)
    refusal = capped.refusal(standing, wanted.reserved)
    f.decide(Decision("reserve", named, "refuse", refusal.reason_id, refusal.reason, dict(refusal.numbers)))
    return Ended("capped", refusal.reason, refusal.reason_id)
