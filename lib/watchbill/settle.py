"""settle: actual cost, outcome, release. `repair` does the same for a firing that died.

What a firing owns is given back in the order in which a crash does least harm: the work is kept, then the claim ref
moves (the truth), then labels and comment (what people see), then the money and the row.
"""

from __future__ import annotations

import os
import random

from watchbill import (
    billing,
    breaker,
    claim,
    collect,
    effects,
    evidence,
    projection,
    reserve,
    sessions,
    tidy,
)
from watchbill.claims import rules
from watchbill.claims.refs import Move
from watchbill.errors import Fixable
from watchbill.forge.base import ForgeError
from watchbill.gates.snapshot import Refusal
from watchbill.git import GitError
from watchbill.ledger import attempts, claims, firings, holds, polls, reservations
from watchbill.ledger import effects as ledger_effects
from watchbill.live import Claim, Firing, Target, Tree
from watchbill.outcomes import DIED, Ended, Ending

_BACKOFF_S = 900
#: A person's no, heard while the firing was at work.
_SAID_NO = ("issue-closed", "label-says-no")
#: Ends that cut work short which somebody can go on from.
_STOPPED = frozenset({"cancelled", "held", "unauthorized", "unavailable", DIED})
OUTSIDE = (ForgeError, GitError, Fixable, Ended, OSError)


def close(f: Firing, end: Ending) -> Ending:
    """Give back everything this firing owns and write down how it ended. Fails only when the ledger does."""
    f.end_reason = end.reason
    charge = billing.of(f)
    f.settled, f.used = (charge.used["usd"], charge.basis), charge.used
    keep_work(f)
    sessions.keep(f)
    if f.kept:
        end = end._replace(reason=f"{end.reason} (kept: {f.kept})")
    if f.claim is not None:
        release(f, end)
    with f.ledger.transaction(durable=True):
        reservations.settle(f.ledger, f.id, charge.used, charge.basis, f.now)
        polls.give_back_all(f.ledger, f.id)
        breaker.after(f, end)
        holds.give_back(f.ledger, f.id)
        firings.end(f.ledger, f.id, end, f.now, charge.told)
    f.note(f"ended: {end.outcome}: {end.reason}")
    return end


def keep_work(f: Firing) -> None:
    """Paid-for work that does not land is a commit in the mirror; if even that fails, the tree stays."""
    if f.claim is None or f.tree is None or f.published or not f.engine_started:
        return
    mirror = f.ports.mirror(f.claim.target.repo)
    try:
        commit = f.work.commit if f.work else _frozen(f, f.claim.target, f.tree)
        if commit is None:
            return
        f.kept, f.kept_commit = mirror.keep(f.id, commit), commit
        evidence.keep(f, "kept", f"{f.kept} {commit}\n", {"ref": f.kept, "commit": commit, "mirror": mirror.path})
    except OUTSIDE as error:
        tidy.hold(f.tree.root, str(error))
        f.note("the work could not be kept as a commit; its tree stays", path=f.tree.path, error=str(error))


def _frozen(f: Firing, target: Target, tree: Tree) -> str | None:
    """What an engine that was cut short had changed so far; None when nothing."""
    mirror = f.ports.mirror(target.repo)
    if not os.path.isdir(tree.path) or not os.path.exists(tree.index_copy):
        return None
    collect.only_files(tree.path)
    frozen = mirror.freeze(tree.path, tree.base, tree.index_copy)
    if frozen == mirror.tree_of(tree.base):
        return None
    said = f"Work in progress on #{target.issue.number} [skip ci]\n\nAgent: {f.agent.name}\nFiring: {f.id}\n"
    return str(mirror.commit(frozen, tree.base, said, f.agent.name, f.now))


def release(f: Firing, end: Ending) -> None:
    """active -> released(retry | human), then the labels. What cannot be reached now a later firing repairs."""
    assert f.claim is not None
    if end.outcome == "lost":
        with f.ledger.transaction():
            claims.end(f.ledger, f.id, "superseded", f.claim.record.state, f.claim.tip, f.now)
        return
    try:
        claim.adopt(f)
        if not claims.still_won(f.ledger, f.id) or f.claim.record.state not in ("active", "published"):
            return  # another has it, or it is finished: what is left to do, the next firing of this host does
        if f.claim.record.state == "published" and end.reason_id not in _SAID_NO:
            f.note("the work is published; the next firing of this host rolls it forward")
            return
        to = _release_to(f, f.claim.target, end)
        if to == "retry" and (refusal := _used_up(f, f.claim)) is not None:
            to, f.end_reason = "human", f"{f.end_reason}; {refusal.reason}"
            with f.ledger.transaction():
                attempts.clear(f.ledger, f.agent.role, f"{f.claim.target.repo_id}#{f.claim.record.number}")
        record = f.claim.record._replace(
            attempt=f.claim.record.attempt - (0 if f.counted else 1), spent=claim.spent(f, f.claim.record)
        )
        further = _put_by(f, f.claim, to, end)
        record = claim.next_record(f.now, record, state="released", outcome=to)
        receipt = claim.move(f, record, *further, settling=True)
        if further and receipt["verdict"] in ("moved", "refused"):
            f.note("work in progress stays on this host", reason=receipt["reason"])
            receipt = claim.move(f, record, settling=True)
        if receipt["verdict"] == "ok" and projection.project(f, f.claim, f"released({to})", settling=True):
            claim.over(f)
    except OUTSIDE as error:
        f.note("the claim could not be released; the next firing of this host does it", error=str(error))


def _used_up(f: Firing, owned: Claim) -> Refusal | None:
    """An issue that no firing may be spent on any more is a person's, who can raise its cap."""
    target = owned.target
    return reserve.used_up(f, target.repo, target.repo_id, target.issue.number, claim.spent(f, owned.record))


def _put_by(f: Firing, owned: Claim, to: str, end: Ending) -> tuple[Move, ...]:
    """What goes with the release: half-done work for whoever is next, or all of it out of the way for a person."""
    target, session = owned.target, f.ports.claim_refs(owned.target.repo)
    if to == "human":
        return claim.aside(f, owned, owned.record.head, target.wip_tip)
    stopped = end.outcome in _STOPPED or end.reason_id == "deadline"
    if f.kept_commit is None or not stopped or f.kept_commit == target.wip_tip:
        return ()
    mirror = f.ports.mirror(target.repo)
    changes = mirror.changes(owned.record.base, mirror.tree_of(f.kept_commit))
    held_back = collect.findings(f, target, changes)
    if held_back:
        f.note("work in progress stays on this host: the scan holds it back", first=held_back[0].kind)
        return ()
    return (Move(session.wip_ref(owned.record.number), target.wip_tip or "", f.kept_commit),)


def _release_to(f: Firing, target: Target, end: Ending) -> str:
    """retry or human; an end that says something about the issue is counted here, once."""
    if end.outcome == "needs_human" or end.reason_id in _SAID_NO or claim.said_no(f, target.issue):
        return "human"
    name = f"{target.repo_id}#{target.issue.number}"
    if end.outcome not in breaker.COUNTED:
        return "retry"
    f.counted = f.engine_started or end.outcome == DIED
    once = effects.key(target, target.generation, f"attempt of {f.id}")
    known = ledger_effects.get(f.ledger, once)
    if known is not None and known.receipt is not None:
        return str(known.receipt["to"])
    made = max(attempts.get(f.ledger, f.agent.role, name, target.digest).tries, target.attempt - 1)
    tries = made + 1 if f.counted else made
    to = "human" if tries >= rules.MOST_TRIES else "retry"
    wait_s = _BACKOFF_S * 2 ** (min(max(tries, 1), rules.MOST_TRIES) - 1) * random.uniform(1.0, 1.25)
    with f.ledger.transaction():
        ledger_effects.intend(f.ledger, once, f.id, "attempt", {"tries": tries}, f.now)
        ledger_effects.receive(f.ledger, once, {"to": to}, f.now)
        if to == "human":
            attempts.clear(f.ledger, f.agent.role, name)
        else:
            attempts.put(f.ledger, f.agent.role, name, target.digest, tries, int(f.now + wait_s))
    return to
