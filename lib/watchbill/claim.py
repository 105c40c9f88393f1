"""claim: the swap of the claim ref; then the label and the comment that tell people."""

from __future__ import annotations

import os
from typing import Any

from watchbill import effects, lifecycle, poll, render
from watchbill.claims.record import ClaimRecord, Unreadable
from watchbill.claims.refs import Move, Verdict
from watchbill.forge.base import ForgeError, Unknown
from watchbill.git import GitError
from watchbill.ledger import claims, reservations
from watchbill.ledger.decisions import Decision
from watchbill.live import Claim, Firing, Target
from watchbill.money import UNITS
from watchbill.outcomes import Ended
from watchbill.reserve import Reserved

#: How many candidates one firing tries to win.
MOST = 3


def take(f: Firing, reserved: Reserved) -> Claim | None:
    """Own the issue, or lose it to another: then one transaction closes claim row and reservation."""
    target = reserved.target
    refs = f.ports.claim_refs(target.repo)
    ref = refs.ref(target.issue.number)

    def swap() -> effects.Receipt:
        return told(refs.swap(Move(ref, target.tip or "", reserved.intended)), reserved.intended)

    def look() -> effects.Receipt | None:
        ours = refs.read(target.issue.number).tip == reserved.intended
        return {"verdict": "ok", "reason": "", "tip": reserved.intended} if ours else None

    # Two firings that want the same generation are two effects: the swap decides between them, not the key.
    receipt = effects.perform(f, target, f"claim by {f.id}", {"ref": ref, "to": reserved.intended}, swap, look)
    if receipt["verdict"] == "ok":
        with f.ledger.transaction(durable=True):
            claims.win(f.ledger, f.id, target.repo_id, target.issue.number, reserved.intended, f.now)
        f.claim = Claim(target, reserved.record, reserved.intended)
        f.renewed()
        project(f, f.claim, "active")
        return f.claim
    if receipt["verdict"] in ("lost", "moved"):
        _give_up(f, target)
        return None
    raise refused(receipt, "claim")


def told(verdict: Verdict, tip: str) -> effects.Receipt:
    """A verdict as a receipt. One that is unknown is none: raises Unknown, so that it is looked up and tried again."""
    if verdict.kind == "unknown":
        raise Unknown(f"the remote did not say what became of a push: {verdict.reason}")
    return {"verdict": verdict.kind, "reason": verdict.reason, "tip": tip}


def _give_up(f: Firing, target: Target) -> None:
    subject = f"{target.repo.full_name}#{target.issue.number}"
    with f.ledger.transaction():
        claims.lose(f.ledger, f.id, target.repo_id, target.issue.number, f.now)
        for unit in UNITS:
            reservations.settle(f.ledger, f.id, unit, 0, "lost", f.now)
    f.decide(Decision("claim", subject, "lost", "lost-the-swap", "another host's claim was there first"))


def refused(receipt: effects.Receipt, what: str) -> Ended:
    """A push that was neither won nor lost, as the end of a firing."""
    if receipt["reason"].startswith("auth"):
        return Ended("unauthorized", f"the remote refused the {what}: {receipt['reason']}", "push-unauthorized")
    return Ended("needs_human", f"the remote refused the {what}: {receipt['reason']}", "push-refused")


def next_record(record: ClaimRecord, **changes: Any) -> ClaimRecord:
    """What the next commit of the same generation says; `move` gives it its place in the sequence."""
    return record._replace(nonce=os.urandom(8).hex(), **changes)


def move(
    f: Firing, record: ClaimRecord, *further: Move, head: str | None = None, settling: bool = False
) -> effects.Receipt:
    """Advance our own claim to `record`, in one atomic push with `further` refs; the receipt's verdict says what came.

    The intended id is written down before it is pushed.
    """
    if claims.unresolved(f.ledger, f.id):
        adopt(f)  # lest the only trace of a push whose answer was lost be written over
    claim = f.claim
    assert claim is not None
    record = record._replace(sequence=claim.record.sequence + 1)
    refs = f.ports.claim_refs(claim.target.repo)

    def push() -> effects.Receipt:
        intended = refs.write(record, parent=claim.tip, head=head)
        with f.ledger.transaction(durable=True):
            if not claims.intend_next(f.ledger, f.id, intended):
                return {"verdict": "lost", "reason": "the claim is not ours any more", "tip": claim.tip}
        return told(refs.swap(Move(refs.ref(record.number), claim.tip, intended), *further), intended)

    def look() -> effects.Receipt | None:
        row, seen = claims.of_firing(f.ledger, f.id), refs.read(record.number)
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
    elif receipt["verdict"] == "lost":
        with f.ledger.transaction():
            claims.end(f.ledger, f.id, "superseded", claim.record.state, claim.tip, f.now)
    return receipt


def adopt(f: Firing) -> ClaimRecord | Unreadable | None:
    """Read the claim ref, and take for ours what a push of ours made of it whose answer was lost; what is there now."""
    assert f.claim is not None
    seen = f.ports.claim_refs(f.claim.target.repo).read(f.claim.record.number)
    if isinstance(seen.record, ClaimRecord) and seen.tip is not None and ours(seen.record, f.claim.record):
        f.claim = Claim(f.claim.target, seen.record, seen.tip)
        with f.ledger.transaction():
            claims.advance(f.ledger, f.id, seen.tip, seen.record.state)
    return seen.record


def ours(found: ClaimRecord, known: ClaimRecord) -> bool:
    """Whether a record that was found is of the same owner as one we made."""
    return (found.generation, found.firing) == (known.generation, known.firing)


def over(f: Firing) -> None:
    """The claim is not ours to act on any more: its ref says so, and people have been told."""
    assert f.claim is not None
    with f.ledger.transaction():
        claims.end(f.ledger, f.id, "ended", f.claim.record.state, f.claim.tip, f.now)


def renew(f: Firing) -> str | None:
    """Called while something long runs: renew in time; the reason to stop it when the claim is lost.

    A network error is neither a loss nor a renewal: it is tried again at the next call.
    """
    if f.claim is None or not f.renewal_due():
        return None
    try:
        receipt = move(f, next_record(f.claim.record), settling=True)
    except (ForgeError, GitError) as error:
        f.note("the claim could not be renewed now", reason=str(error))
        return None
    if receipt["verdict"] == "ok":
        f.renewed()
    return "lost" if receipt["verdict"] == "lost" else None


def project(f: Firing, claim: Claim, state: str, *, settling: bool = False) -> bool:
    """Show people the truth: the one label and the one comment. False: the forge did not take it, try again later."""
    target, forge = claim.target, f.ports.forge
    name, number = target.repo.full_name, target.issue.number
    try:
        issue = forge.issues.read(name, number) if settling else target.issue
        wanted = lifecycle.edit(state, issue.state == "open", frozenset(issue.labels), f.fleet.labels)

        def label() -> effects.Receipt:
            if wanted.add:
                forge.issues.add_labels(name, number, wanted.add)
            for gone in wanted.remove:
                forge.issues.remove_label(name, number, gone)
            return {"added": wanted.add, "removed": wanted.remove}

        effects.perform(
            f,
            target,
            f"label {state}",
            {"add": wanted.add, "remove": wanted.remove},
            label,
            settling=settling,
        )
        comment(f, claim, state, settling=settling)
    except ForgeError as error:
        f.note("labels and comment not written now", state=state, error=str(error))
        return False
    return True


def comment(f: Firing, claim: Claim, state: str, *, settling: bool = False) -> None:
    """The one comment on the issue, found by our author id and its marker, then edited."""
    target, forge = claim.target, f.ports.forge
    name, number = target.repo.full_name, target.issue.number
    body = f.redact(render.template("comment.md.j2", f=f, claim=claim, state=state))

    def ours() -> int | None:
        if not target.issue.comments and state == "active" and target.generation == 1:
            return None
        me = poll.myself(f).id
        found = [c.id for c in forge.issues.comments(name, number) if c.author.id == me and render.MARKER in c.body]
        return min(found, default=None)

    def write() -> effects.Receipt:
        known = f.comment_id or ours()
        made = (
            forge.issues.edit_comment(name, known, number, body) if known else forge.issues.comment(name, number, body)
        )
        f.comment_id = made.id
        return {"comment": made.id}

    def look() -> effects.Receipt | None:
        found = ours()
        f.comment_id = found
        return {"comment": found} if found and state == "active" else None

    effects.perform(f, target, f"comment {state}", {"state": state}, write, look, settling=settling)
