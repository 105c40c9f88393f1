"""projection: what people see of a claim: the one label and the one comment. They tell, and never decide.

Labels have no precondition at the forge and comments no uniqueness: both are read before they are written, and said
again by whoever finds them wrong.
"""

from __future__ import annotations

from watchbill import effects, lifecycle, poll, render
from watchbill.claims import rules
from watchbill.forge.base import ForgeError, Issue
from watchbill.ledger import firings
from watchbill.ledger.firings import Firing as Row
from watchbill.live import Claim, Firing

#: A look at the claim refs is good for so long.
LONG_AGO_S = 10.0


def project(
    f: Firing, claim: Claim, state: str, *, settling: bool = False, issue: Issue | None = None, why: str = ""
) -> bool:
    """Show people the truth: the one label and the one comment. False: the forge did not take it, try again later.

    `issue`: as read a moment ago; `why`: what the comment says beside the firing's own end.
    """
    target, forge = claim.target, f.ports.forge
    try:
        if issue is None:
            issue = forge.issues.read(target.repo.full_name, target.issue.number) if settling else target.issue
        wanted = lifecycle.edit(state, issue.state == "open", frozenset(issue.labels), f.labels_of(claim.record.agent))
        relabel(f, claim, f"label {state}", wanted.add, wanted.remove, settling=settling)
        comment(f, claim, state, settling=settling, why=why)
    except ForgeError as error:
        f.note("labels and comment not written now", state=state, error=str(error))
        return False
    return True


def relabel(
    f: Firing, owned: Claim, kind: str, add: tuple[str, ...], remove: tuple[str, ...], *, settling: bool = False
) -> None:
    """Say of the claim what is true of it at `owned.tip`; nothing, when it has moved on since.

    Add before remove: a torn edit leaves two labels, which is repaired, and never none. Labels have no precondition:
    who froze, and woke up late, looks before, and takes back what could pass for a person's word.
    """
    target, names = owned.target, f.labels_of(owned.record.agent)
    issues, name, number = f.ports.forge.issues, target.repo.full_name, target.issue.number

    def label() -> effects.Receipt:
        began, long_ago_s = f.ports.clock.elapsed(), min(LONG_AGO_S, f.fleet.claims.grace_s)
        if began - f.looked_at > long_ago_s and not _still_at(f, owned):
            return {"stale": owned.tip}
        if add:
            issues.add_labels(name, number, add)
        late = f.ports.clock.elapsed() - began > long_ago_s
        if names.implement in add and late and not _still_at(f, owned):
            issues.remove_label(name, number, names.implement)
            return {"stale": owned.tip}
        for gone in remove:
            issues.remove_label(name, number, gone)
        return {"added": add, "removed": remove}

    effects.perform(f, target, kind, {"add": add, "remove": remove}, label, settling=settling)


def _still_at(f: Firing, owned: Claim) -> bool:
    there = f.ports.claim_refs(owned.target.repo).read(owned.record.number).tip
    f.looked()
    return there == owned.tip


def _tried(f: Firing, repo: str, number: int) -> tuple[Row, ...]:
    """The last firings of this host whose engine ran on the issue, before this one: what was tried."""
    ran = [row for row in firings.of_issue(f.ledger, repo, number) if row.engine is not None and row.id != f.id]
    return tuple(ran[-(rules.MOST_TRIES - 1) :])


def comment(f: Firing, claim: Claim, state: str, *, settling: bool = False, why: str = "") -> None:
    """The one comment on the issue, found by our author id and its marker, then edited."""
    target, forge = claim.target, f.ports.forge
    name, number = target.repo.full_name, target.issue.number
    place = (target.repo_id, number)
    why = why or f.end_reason
    most = rules.MOST_TRIES
    takes = f.labels_of(claim.record.agent).implement
    tried = _tried(f, name, number) if state == "released(human)" else ()
    said = render.template(
        "comment.md.j2", f=f, record=claim.record, state=state, why=why, most=most, takes=takes, tried=tried
    )
    body = f.redact(said)

    def ours() -> int | None:
        if not target.issue.comments and state == "active" and target.generation == 1:
            return None
        me = poll.myself(f).id
        found = [c.id for c in forge.issues.comments(name, number) if c.author.id == me and render.MARKER in c.body]
        return min(found, default=None)

    def write() -> effects.Receipt:
        known = f.comment_ids.get(place) or ours()
        made = (
            forge.issues.edit_comment(name, known, number, body) if known else forge.issues.comment(name, number, body)
        )
        f.comment_ids[place] = made.id
        return {"comment": made.id}

    def look() -> effects.Receipt | None:
        found = ours()
        if found is not None:
            f.comment_ids[place] = found
        return {"comment": found} if found and state == "active" else None

    ordinal = claim.record.sequence  # it may come to the same state twice
    effects.perform(f, target, f"comment {state}", {"state": state}, write, look, ordinal=ordinal, settling=settling)
