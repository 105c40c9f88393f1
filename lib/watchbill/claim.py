"""claim: the swap of the claim ref; then the label and the comment that tell people."""

from __future__ import annotations

import os
from typing import Any

from watchbill import effects, poll, projection
from watchbill.claims import refs, rules
from watchbill.claims.record import ClaimRecord
from watchbill.claims.refs import Move, Verdict
from watchbill.forge.base import ForgeError, Issue, Unknown
from watchbill.git import GitError
from watchbill.ledger import attempts, claims, reservations
from watchbill.ledger.decisions import Decision
from watchbill.live import Claim, Firing, Target
from watchbill.outcomes import Ended
from watchbill.reserve import Reserved

#: How many candidates one firing tries to win.
MOST = 3


def take(f: Firing, reserved: Reserved) -> Claim | None:
    """Own the issue, or lose it to another: then one transaction closes claim row and reservation."""
    target = reserved.target
    session = f.ports.claim_refs(target.repo)
    ref = session.ref(target.issue.number)

    swept = _rejected_work(f, target)

    def swap() -> effects.Receipt:
        first = Move(ref, target.tip or "", reserved.intended)
        verdict = session.swap(first, *swept)
        if swept and verdict.kind in ("moved", "refused"):
            f.note("an earlier work branch stays where it is", reason=verdict.reason)
            verdict = session.swap(first)
        return told(verdict, reserved.intended)

    def look() -> effects.Receipt | None:
        ours = session.read(target.issue.number).tip == reserved.intended
        return {"verdict": "ok", "reason": "", "tip": reserved.intended} if ours else None

    # Two firings that want the same generation are two effects: the swap decides between them, not the key.
    sent_at = f.ports.clock.elapsed()
    receipt = effects.perform(f, target, f"claim by {f.id}", {"ref": ref, "to": reserved.intended}, swap, look)
    if receipt["verdict"] == "ok":
        with f.ledger.transaction(durable=True):
            claims.win(f.ledger, f.id, target.repo_id, target.issue.number, reserved.intended, f.now)
            if target.attempt == 1:  # a person's new word begins with every try
                attempts.clear(f.ledger, f.agent.role, f"{target.repo_id}#{target.issue.number}")
        if swept:
            target = _after_sweeping(session, target)
        f.claim = Claim(target, reserved.record, reserved.intended)
        f.renewed(sent_at)
        f.looked()
        projection.project(f, f.claim, "active")
        return f.claim
    if receipt["verdict"] in ("lost", "moved"):
        _give_up(f, target)
        return None
    raise refused(receipt, "claim")


def told(verdict: Verdict, tip: str) -> effects.Receipt:
    """A verdict as a receipt. One that is unknown is none: raises Unknown, so that it is looked up and tried again."""
    if verdict.kind == "unknown":
        raise Unknown(f"the remote did not say what became of a push: {verdict.reason}")
    return {"verdict": verdict.kind, "reason": verdict.reason, "tip": tip, "ref": verdict.ref}


def _rejected_work(f: Firing, target: Target) -> tuple[Move, ...]:
    """What an earlier generation left on the work branch goes aside in the push that begins the next: its pull request
    can then not be opened again beside the new one."""
    if target.previous is None or not rules.begins_anew(target.previous):
        return ()
    return aside(f, Claim(target, target.previous, target.tip or ""), target.branch_tip, target.wip_tip)


def _after_sweeping(session: refs.ClaimRefs, target: Target) -> Target:
    """What of it is still there, where the remote let it be: the value that our own push will have to find."""
    seen = session.read(target.issue.number)
    return target._replace(
        branch_tip=target.branch_tip if seen.branch_tip == target.branch_tip else None,
        wip_tip=target.wip_tip if seen.wip_tip == target.wip_tip else None,
    )


def aside(f: Firing, owned: Claim, branch_tip: str | None, wip_tip: str | None) -> tuple[Move, ...]:
    """Further moves that put a generation's work out of the way, kept, so that nobody opens it who wakes up late."""
    session, record = f.ports.claim_refs(owned.target.repo), owned.record
    places = ((session.branch_ref(record.number), branch_tip), (session.wip_ref(record.number), wip_tip))
    there = [(ref, tip) for ref, tip in places if tip]
    if not there:
        return ()
    kept = session.kept_ref(record.number, record.generation)
    names = [kept, f"{kept}-wip"] if len(there) > 1 else [kept]
    for ref, tip in there:
        f.ports.mirror(owned.target.repo).have(tip, ref)  # a person may have added to it
    into = [Move(name, "", tip) for name, (_, tip) in zip(names, there, strict=True)]
    return (*into, *(Move(ref, tip, "") for ref, tip in there))


def _give_up(f: Firing, target: Target) -> None:
    subject = f"{target.repo.full_name}#{target.issue.number}"
    with f.ledger.transaction():
        claims.lose(f.ledger, f.id, target.repo_id, target.issue.number, f.now)
        reservations.settle(f.ledger, f.id, reservations.NOTHING, "lost", f.now)
    f.decide(Decision("claim", subject, "lost", "lost-the-swap", "another host's claim was there first"))


def refused(receipt: effects.Receipt, what: str) -> Ended:
    """A push that was neither won nor lost, as the end of a firing."""
    if receipt["reason"].startswith("auth"):
        return Ended("unauthorized", f"the remote refused the {what}: {receipt['reason']}", "push-unauthorized")
    return Ended("needs_human", f"the remote refused the {what}: {receipt['reason']}", "push-refused")


def next_record(now: float, record: ClaimRecord, **changes: Any) -> ClaimRecord:
    """What the next commit of the same generation says; `move` gives it its place in the sequence."""
    return record._replace(nonce=os.urandom(8).hex(), issued=int(now), **changes)


def move(
    f: Firing,
    record: ClaimRecord,
    *further: Move,
    head: str | None = None,
    settling: bool = False,
    again: bool = True,
    patient: bool = True,
) -> effects.Receipt:
    """Advance our own claim to `record`, in one atomic push with `further` refs; the receipt's verdict says what came.

    The intended id is written down before it is pushed. `again`: once more when what was in the way was a push of our
    own that had been given up for lost. `patient`: see Ports.claim_refs.
    """
    claim = f.claim
    assert claim is not None
    if claims.unresolved(f.ledger, f.id):
        before, claim = claim.record.state, adopt(f)  # lest the only trace of a push without an answer be written over
        if claim.record.state != before:  # it went through late, and what was meant to follow from `before` does not
            kind = "ok" if claim.record.state == record.state else "overtaken"
            return {"verdict": kind, "reason": "an earlier push of ours went through late", "tip": claim.tip}
    record = record._replace(sequence=claim.record.sequence + 1)
    session = f.ports.claim_refs(claim.target.repo, patient)

    def push() -> effects.Receipt:
        intended = session.write(record, parent=claim.tip, head=head)
        f.intended.add(intended)
        with f.ledger.transaction(durable=True):
            if not claims.intend_next(f.ledger, f.id, intended):
                return {"verdict": "lost", "reason": "the claim is not ours any more", "tip": claim.tip}
        return told(session.swap(Move(session.ref(record.number), claim.tip, intended), *further), intended)

    def look() -> effects.Receipt | None:
        row, seen = claims.of_firing(f.ledger, f.id), session.read(record.number)
        ours = row is not None and seen.tip == row.intended != claim.tip
        return {"verdict": "ok", "reason": "", "tip": seen.tip} if ours else None

    intent = {"to": record.state, "generation": record.generation, "sequence": record.sequence, "head": head}
    receipt = effects.perform(
        f, claim.target, f"claim ref to {record.state}", intent, push, look, ordinal=record.sequence, settling=settling
    )
    if receipt["verdict"] == "ok":
        with f.ledger.transaction():
            claims.advance(f.ledger, f.id, receipt["tip"], record.state)
        f.claim = Claim(claim.target, record, receipt["tip"])
        f.looked()
    elif receipt["verdict"] == "lost":
        there = adopt(f)
        if claims.still_won(f.ledger, f.id) and there.tip != claim.tip:  # the loser and the winner are both ours
            return _after_ourselves(f, there, receipt, record, *further, head=head, settling=settling, again=again)
    return receipt


def _after_ourselves(
    f: Firing,
    there: Claim,
    receipt: effects.Receipt,
    record: ClaimRecord,
    *further: Move,
    head: str | None,
    settling: bool,
    again: bool,
) -> effects.Receipt:
    """A push of ours that was given up for lost went through late, or another finished our published work for us."""
    if there.record.state == record.state != "active":
        return {"verdict": "ok", "reason": "", "tip": there.tip}
    if there.record.state == "active" and again:
        return move(f, record, *further, head=head, settling=settling, again=False)
    return receipt


def adopt(f: Firing) -> Claim:
    """Read the claim ref, and take for ours what a push of ours made of it whose answer was lost; our claim as it is.

    What somebody else made of it is ours only if it brought our own work to its end; else the claim is lost.
    """
    assert f.claim is not None
    seen, row = f.ports.claim_refs(f.claim.target.repo).read(f.claim.record.number), claims.of_firing(f.ledger, f.id)
    record = seen.record if isinstance(seen.record, ClaimRecord) else None
    mine = row is not None and seen.tip in {row.intended, row.tip, *f.intended}
    if record is not None and seen.tip is not None and (mine or finished_for(f.claim.record, record)):
        f.claim = Claim(f.claim.target, record, seen.tip)
        with f.ledger.transaction():
            claims.advance(f.ledger, f.id, seen.tip, record.state)
    elif seen.tip != f.claim.tip:
        with f.ledger.transaction():
            claims.end(f.ledger, f.id, "superseded", f.claim.record.state, f.claim.tip, f.now)
    return f.claim


def finished_for(ours: ClaimRecord, found: ClaimRecord) -> bool:
    """Whether somebody else brought our published work to its pull request: our success, whoever wrote it."""
    same = (found.generation, found.firing, found.head) == (ours.generation, ours.firing, ours.head)
    return same and ours.head is not None and found.state in ("pr", "done")


def spent(f: Firing, record: ClaimRecord) -> int:
    """What was spent on the issue, micro-dollars: in place of what this firing reserved, what it used.

    From `published` on a record has it already.
    """
    if record.state != "active":
        return record.spent
    tries = [row for row in reservations.of_firing(f.ledger, f.id) if (row.scope, row.unit) == ("firing", "usd")]
    reserved = tries[-1].reserved if tries else 0  # of this claim; what it reserved for those it lost is not in here
    return max(0, record.spent - reserved) + f.cost_micro


def over(f: Firing) -> None:
    """The claim is not ours to act on any more: its ref says so, and people have been told."""
    assert f.claim is not None
    with f.ledger.transaction():
        claims.end(f.ledger, f.id, "ended", f.claim.record.state, f.claim.tip, f.now)


def renew(f: Firing) -> str | None:
    """Called while something long runs: renew in time; the reason to stop it when the claim is lost.

    A network error is neither a loss nor a renewal: it is tried again at the next call. Published work needs none: for
    a grace it is ours to open, and then whoever does it does the same.
    """
    if f.claim is None or f.claim.record.state != "active" or not f.renewal_due():
        return None
    sent_at = f.ports.clock.elapsed()
    f.renewal_tried(sent_at)
    try:
        receipt = move(f, next_record(f.now, f.claim.record), settling=True, patient=False)
    except (ForgeError, GitError) as error:
        f.note("the claim could not be renewed now", reason=str(error))
        return None
    if receipt["verdict"] == "lost":
        return "lost"
    if receipt["verdict"] == "ok":
        f.renewed(sent_at)
    return _called_off(f, f.claim.target)


def _called_off(f: Firing, target: Target) -> str | None:
    """A person who closed the issue or said no is obeyed within one renewal, before more is spent."""
    try:
        issue = poll.issue_of(f, target.repo, target.issue.number)
    except ForgeError as error:
        f.note("the issue could not be read now", reason=str(error))
        return None
    return None if issue is not None and said_no(f, issue) is None else "called off"


def said_no(f: Firing, issue: Issue) -> Ended | None:
    """A person who closed the issue or labelled it do-not-pickup, as the end of a firing that was at work on it."""
    names = f.fleet.labels
    if issue.state != "open":
        return Ended("cancelled", "the issue was closed while it was worked on; the work is kept", "issue-closed")
    if names.do_not_pickup in issue.labels:
        return Ended("cancelled", f"the issue was labelled {names.do_not_pickup}; the work is kept", "label-says-no")
    return None
