"""land: commit exactly that tree id -> fenced push -> exactly one pull request -> label.

The fence: the work branch and the claim move in one atomic push, each with its explicit expected value. A firing that
froze here and woke after a takeover lands nothing. From that push on the work is committed: anybody can roll it
forward from the claim's record without running the agent again, which is what `settle` does for a dead firing.
"""

from __future__ import annotations

from watchbill import claim, effects, render
from watchbill.claims import rules
from watchbill.claims.refs import Move
from watchbill.forge.base import ForgeError, Issue, Refused, Unreachable
from watchbill.ledger import firings
from watchbill.live import Firing, Target, Work
from watchbill.outcomes import Ended, Ending

_PAUSES_S = (1.0, 4.0, 15.0)


def publish(f: Firing, work: Work) -> Ending:
    """Push the work, open the pull request, finish the claim."""
    _still_wanted(f)
    _push(f, work)
    pull = open_pull(f)
    finish(f, pull)
    return Ending("pull_request", f"pull request #{pull} opened", "landed")


def roll_forward(f: Firing) -> None:
    """A dead firing published its work: open its pull request and finish, without running anything again."""
    f.published = True
    finish(f, open_pull(f))


def _still_wanted(f: Firing) -> None:
    """A person who closed the issue or labelled it do-not-pickup while we worked is obeyed; read by number."""
    assert f.claim is not None
    target = f.claim.target
    issue = _read_patiently(f, target)
    if issue.state != "open":
        raise Ended("cancelled", "the issue was closed while it was worked on; the work is kept", "issue-closed")
    if f.fleet.labels.do_not_pickup in issue.labels:
        raise Ended(
            "cancelled", f"the issue was labelled {f.fleet.labels.do_not_pickup}; the work is kept", "label-says-no"
        )


def _push(f: Firing, work: Work) -> None:
    assert f.claim is not None
    target, held = f.claim.target, f.claim
    title, body = render.pull_request(f, held)
    record = claim.next_record(
        held.record, state="published", head=work.commit, title=title, body=body, spent=held.record.spent + f.cost_micro
    )
    branch = Move(f"refs/heads/{target.branch}", target.branch_tip or "", work.commit)
    receipt = claim.move(f, record, branch, head=work.commit)
    if receipt["verdict"] == "lost":
        raise Ended("lost", "another owner took the issue over; nothing landed, the work is kept", "fenced-off")
    if receipt["verdict"] == "moved":
        raise Ended(
            "needs_human", f"somebody pushed to {target.branch}; nothing landed, the work is kept", "branch-moved"
        )
    if receipt["verdict"] != "ok":
        raise claim.refused(receipt, "publishing push")
    f.published = True


def _read_patiently(f: Firing, target: Target) -> Issue:
    """Work that was paid for and checked is not given up because one read found nobody there."""
    for pause_s in _PAUSES_S:
        try:
            return f.ports.forge.issues.read(target.repo.full_name, target.issue.number)
        except Unreachable as away:
            f.note("the forge did not answer; asking again", pause_s=pause_s, error=str(away))
            f.ports.clock.sleep(pause_s)
            claim.renew(f)
            f.obey()
    return f.ports.forge.issues.read(target.repo.full_name, target.issue.number)


def open_pull(f: Firing) -> int:
    """Exactly one: looked up first, created once, and whatever a lost answer or a 422 hides is adopted."""
    assert f.claim is not None
    target, record, pulls = f.claim.target, f.claim.record, f.ports.forge.pulls
    name = target.repo.full_name
    assert record.title is not None
    assert record.head is not None

    def ours() -> effects.Receipt | None:
        for pull in pulls.by_head(name, target.branch):
            if rules.is_ours(pull, record, target.repo_id):
                return {"number": pull.number}
        return None

    def create() -> effects.Receipt:
        found = ours()
        if found is not None:
            return found
        try:
            made = pulls.create(
                name,
                head=target.branch,
                base=target.default_branch,
                title=record.title or "",
                body=record.body or "",
                draft=not target.repo.checks,
            )
        except Refused as refused:
            found = ours()
            if found is None:
                raise refused
            return found
        return {"number": made.number}

    receipt = effects.perform(f, target, "pull request", {"head": record.head}, create, ours)
    f.pull = int(receipt["number"])
    with f.ledger.transaction():
        firings.opened(f.ledger, f.id, f.pull)
    return f.pull


def finish(f: Firing, pull: int) -> None:
    """own tip -> pr; then the labels. Work that has its pull request is never undone by what fails here."""
    assert f.claim is not None
    target = f.claim.target
    name = target.repo.full_name

    def authored() -> effects.Receipt:
        f.ports.forge.issues.add_labels(name, pull, (f.fleet.labels.authored,))
        return {"label": f.fleet.labels.authored}

    try:
        effects.perform(f, target, "label pull request", {"pull": pull}, authored, settling=True)
    except ForgeError as error:
        f.note("the pull request could not be labelled", error=str(error))
    record = claim.next_record(f.claim.record, state="pr", pr=pull, outcome="pull_request")
    moved = claim.move(f, record, head=record.head, settling=True)
    if moved["verdict"] == "ok" and claim.project(f, f.claim, "pr", settling=True):
        claim.over(f)
    else:
        f.note("not finished; the next firing of this host does it", verdict=moved["verdict"])
