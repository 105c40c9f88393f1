"""land: commit exactly that tree id -> fenced push -> exactly one pull request -> label.

The fence: the work branch and the claim move in one atomic push, each with its explicit expected value. A firing that
froze here and woke after a takeover lands nothing. From that push on the work is committed: anybody can roll it
forward from the claim's record without running the agent again, which is what `mend` does.
"""

from __future__ import annotations

from watchbill import claim, collect, effects, projection, verify, wording
from watchbill.claims import rules
from watchbill.claims.record import ClaimRecord
from watchbill.claims.refs import Move
from watchbill.forge.base import ForgeError, Issue, Pull, RateLimited, Refused, Unreachable
from watchbill.ledger import firings
from watchbill.live import Claim, Firing, Target, Work
from watchbill.outcomes import Ended, Ending

#: The kind of the effect that opens the pull request.
PULL = "pull request"
_PAUSES_S = (1.0, 4.0, 15.0)
#: A limit that is over sooner is waited for; a secondary one lasts a minute.
_LIMIT_S = 120


def publish(f: Firing, work: Work) -> Ending:
    """Push the work, open the pull request, finish the claim."""
    _still_wanted(f)
    _push(f, work)
    issue = _still_wanted(f)
    assert f.claim is not None
    finish(f, open_pull(f, f.claim), issue)
    return Ending("pull_request", f"pull request #{f.pull} opened", "landed")


def _still_wanted(f: Firing) -> Issue:
    """A person who closed the issue or labelled it do-not-pickup while we worked is obeyed; read by number."""
    assert f.claim is not None
    issue = _read_patiently(f, f.claim.target)
    no = claim.said_no(f, issue)
    if no is not None:
        raise no
    return issue


def _push(f: Firing, work: Work) -> None:
    """The fenced push. A person who pushed to the branch meanwhile is not overwritten: once, we go on top of them."""
    receipt = _pushed(f, work)
    if receipt["verdict"] == "moved" and "/wip/" in receipt["ref"]:  # somebody deleted what we went on from
        f.claim = f.claim and f.claim._replace(target=f.claim.target._replace(wip_tip=None))
        receipt = _pushed(f, work)
    if receipt["verdict"] == "moved":
        again = _on_top_of_theirs(f, work)
        _still_wanted(f)  # that took its time
        receipt = _pushed(f, again)
    if receipt["verdict"] == "lost":
        raise Ended("lost", "another owner took the issue over; nothing landed, the work is kept", "fenced-off")
    if receipt["verdict"] == "moved":
        raise _branch_moved(f, "pushed again")
    if receipt["verdict"] != "ok":
        raise claim.refused(receipt, "publishing push")
    f.published = True


def _pushed(f: Firing, work: Work) -> effects.Receipt:
    assert f.claim is not None
    target, held = f.claim.target, f.claim
    title, body = wording.pull_request(f, held)
    record = claim.next_record(
        f.now,
        held.record,
        state="published",
        head=work.commit,
        title=title,
        body=body,
        spent=claim.spent(f, held.record),
    )
    session = f.ports.claim_refs(target.repo)
    moves = [Move(session.branch_ref(record.number), target.branch_tip or "", work.commit)]
    if target.wip_tip and f.earlier == "applied":  # it has become this work
        moves.append(Move(session.wip_ref(record.number), target.wip_tip, ""))
    return claim.move(f, record, *moves, head=work.commit)


def _on_top_of_theirs(f: Firing, work: Work) -> Work:
    """The work once more, on what a person pushed to its branch: scanned and checked like the first."""
    assert f.claim is not None
    assert f.tree is not None
    target = f.claim.target
    mirror = f.ports.mirror(target.repo)
    session = f.ports.claim_refs(target.repo)
    theirs = session.read(target.issue.number).branch_tip
    if theirs is None:
        raise _branch_moved(f, "deleted what was there")
    if session.published(target.issue.number, theirs):
        raise _branch_moved(f, "put back what an earlier generation had pushed")  # and a person had turned down
    mirror.have(theirs, f"refs/heads/{target.branch}")
    tree = mirror.merge(theirs, work.commit)
    if tree is None:
        raise _branch_moved(f, "pushed what conflicts with the work")
    f.say(f"somebody pushed to {target.branch}: the work goes on top of {theirs[:12]}")
    f.claim = f.claim._replace(target=target._replace(branch_tip=theirs))
    moved = f.tree._replace(base=theirs)
    try:
        again = collect.scanned(f, target, moved, tree)
        verify.work(f, target, moved, again, place="verify-again")
    except Ended as end:
        if end.ending.outcome == "checks_failed":
            raise _branch_moved(f, "pushed what makes the checks fail together with the work") from end
        raise
    return again


def _branch_moved(f: Firing, how: str) -> Ended:
    branch = f.target.branch
    return Ended("needs_human", f"somebody {how}: {branch} is theirs; nothing landed, the work is kept", "branch-moved")


def _read_patiently(f: Firing, target: Target) -> Issue:
    """Work that was paid for and checked is not given up because one read found nobody there."""
    for pause_s in _PAUSES_S:
        try:
            return f.ports.forge.issues.read(target.repo.full_name, target.issue.number)
        except Unreachable as away:
            f.note("the forge did not answer; asking again", pause_s=pause_s, error=str(away))
            _wait(f, pause_s)
        except RateLimited as limited:
            left_s = (limited.until or 0) - f.now
            if not 0 <= left_s <= _LIMIT_S:
                raise
            f.note("GitHub's limit is over soon; waiting", pause_s=left_s + 1)
            _wait(f, left_s + 1)
    return f.ports.forge.issues.read(target.repo.full_name, target.issue.number)


def _wait(f: Firing, seconds: float) -> None:
    """And keep the claim meanwhile, and obey."""
    while seconds > 0:
        f.ports.clock.sleep(min(seconds, 5))
        seconds -= 5
        claim.renew(f)
        f.obey()


def pull_ordinal(record: ClaimRecord) -> int:
    """Tells apart the pull requests of two heads, for a generation's number can come back when its ref is deleted."""
    return int(str(record.head)[:8], 16)


def open_pull(f: Firing, owned: Claim) -> int:
    """Exactly one: looked up first, created once, and whatever a lost answer or a 422 hides is adopted."""
    target, record, pulls = owned.target, owned.record, f.ports.forge.pulls
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
            return {"number": asked(target.default_branch).number}
        except Refused as refused:
            found = ours()
            if found is not None:
                return found
            renamed = f.ports.forge.repository.facts(name).default_branch
            if renamed == target.default_branch:
                raise refused
            return {"number": asked(renamed).number}

    def asked(base: str) -> Pull:
        return pulls.create(
            name,
            head=target.branch,
            base=base,
            title=record.title or "",
            body=record.body or "",
            draft=not target.repo.checks,
        )

    receipt = effects.perform(f, target, PULL, {"head": record.head}, create, ours, ordinal=pull_ordinal(record))
    f.pull = int(receipt["number"])
    with f.ledger.transaction():
        firings.opened(f.ledger, record.firing, f.pull)
    return f.pull


def finish(f: Firing, pull: int, issue: Issue) -> None:
    """own tip -> pr; then the labels. Work that has its pull request is never undone by what fails here."""
    assert f.claim is not None
    mark(f, f.claim.target, pull)
    record = claim.next_record(f.now, f.claim.record, state="pr", pr=pull, outcome="pull_request")
    moved = claim.move(f, record, head=record.head, settling=True)
    if moved["verdict"] == "ok" and projection.project(f, f.claim, "pr", settling=True, issue=issue):
        claim.over(f)
    else:
        f.note("not finished; the next firing of this host does it", verdict=moved["verdict"])


def mark(f: Firing, target: Target, pull: int) -> None:
    """Our label on the pull request; that it cannot be put there stops nothing."""

    def authored() -> effects.Receipt:
        f.ports.forge.issues.add_labels(target.repo.full_name, pull, (f.fleet.labels.authored,))
        return {"label": f.fleet.labels.authored}

    try:
        effects.perform(f, target, "label pull request", {"pull": pull}, authored, settling=True)
    except ForgeError as error:
        f.note("the pull request could not be labelled", error=str(error))
