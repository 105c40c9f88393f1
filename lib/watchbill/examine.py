"""examine: the end of `look`. A listed issue read by number: may it be claimed, by whose word, and with which text?

A list is a hint. What decides is read here: the issue itself, who put the label on, the claim ref, the pull requests
that already exist for its branch.
"""

from __future__ import annotations

from watchbill import admit, poll
from watchbill.claims import rules
from watchbill.claims.refs import Seen
from watchbill.forge.base import Issue, LabelEvent, NotFound
from watchbill.ledger import claims, firings, polls, sightings
from watchbill.ledger.attempts import get as attempts_of
from watchbill.ledger.decisions import Decision
from watchbill.live import Firing, Target
from watchbill.look import Listed, query, won_meanwhile

#: A firing reads at most so many issues by number: the rest wait for the next one.
MOST = 10
#: After so many seconds another may examine an issue: this one has died over it.
_EXAMINED_S = 120


class _Not(Exception):
    """This issue is not to be claimed now."""

    def __init__(self, id: str, text: str) -> None:
        super().__init__(text)
        self.reason = admit.Reason(id, text)


def target(f: Firing, listed: Listed) -> Target | None:
    """The terms on which this issue may be claimed, or None; either way the verdict is on record."""
    if not _ours_to_examine(f, listed):
        return None
    subject = f"{listed.repo}#{listed.number}"
    try:
        found = _terms(f, listed)
    except _Not as no:
        _let_go(f, listed)
        winner = _winner_meanwhile(f, listed)
        lost = Decision("examine", subject, "lost", "taken-meanwhile", winner or "")
        f.decide(lost if winner else Decision("examine", subject, "skip", *no.reason))
        return None
    numbers = {"label_event": found.label_event, "generation": found.generation, "attempt": found.attempt}
    said = f"labelled by {found.labelled_by}: generation {found.generation}, attempt {found.attempt}"
    f.decide(Decision("examine", subject, "take", "eligible", said, numbers))
    return found


def _terms(f: Firing, listed: Listed) -> Target:
    repo = f.fleet.repos[listed.repo]
    issue = _read(f, listed)
    events = f.ports.forge.issues.label_events(listed.repo, issue.number)
    event = _authorised(f, listed.repo, issue, events)
    seen = f.ports.claim_refs(repo).read(issue.number)
    start = _start(f, listed, seen, event)
    before = seen.record.head if isinstance(seen.record, rules.ClaimRecord) else None
    if seen.branch_tip not in (None, before):
        raise _Not("branch-in-the-way", f"{rules.work_branch(issue.number)} holds commits that are not ours; rename it")
    pulls = f.ports.forge.pulls.by_head(listed.repo, rules.work_branch(issue.number))
    for pull in pulls:
        if pull.state == "open":
            raise _Not("pull-request-open", f"pull request #{pull.number} for it is open")
    admitted, left_out = _admitted(f, listed.repo, issue)
    default_branch = polls.get(f.ledger, query(listed.repo, f.agent.takes)).body["default_branch"]
    digest = poll.digest(issue)
    tried = attempts_of(f.ledger, f.agent.role, f"{listed.repo_id}#{issue.number}", digest)
    return Target(
        repo=repo,
        repo_id=listed.repo_id,
        default_branch=default_branch,
        issue=issue,
        digest=digest,
        admitted=admitted,
        left_out=left_out,
        tip=seen.tip,
        previous=seen.record if isinstance(seen.record, rules.ClaimRecord) else None,
        generation=start.generation,
        # The newest one seen, be it our own: where we act in a person's name, a label that we put back ourselves must
        # not pass for this person's later word.
        label_event=max(start.label_event, *(e.id for e in events if e.label == f.agent.takes and e.added)),
        labelled_by=event.actor.login,
        attempt=tried.tries + 1,
        pr_floor=max((pull.number for pull in pulls), default=0),
        branch=rules.work_branch(issue.number),
        base=f.ports.mirror(repo).refresh(default_branch),
        branch_tip=seen.branch_tip,
        fixes_base=f.fleet.labels.fixes_base in issue.labels,
    )


def _read(f: Firing, listed: Listed) -> Issue:
    """The issue as it is now, still open and still labelled."""
    try:
        issue = f.ports.forge.issues.read(listed.repo, listed.number)
    except NotFound as gone:
        raise _Not("issue-gone", str(gone)) from gone
    names = f.fleet.labels
    for label in (names.do_not_pickup, names.plan_pending):
        if label in issue.labels:
            raise _Not("label-says-no", f"labelled {label}")
    if issue.state != "open" or f.agent.takes not in issue.labels:
        raise _Not("moved-on", f"it is {issue.state} and labelled {', '.join(issue.labels) or 'nothing'}")
    return issue


def _authorised(f: Firing, repo: str, issue: Issue, events: tuple[LabelEvent, ...]) -> LabelEvent:
    """The label event that puts this issue up for claiming."""
    event = _last_word(f, events)
    if event is None:
        raise _Not("label-without-event", f"nobody is on record as putting {f.agent.takes} there")
    refusal = admit.eligible(issue, event, _permission(f, repo, event), admit.policy(f.fleet.trust))
    if refusal is not None:
        raise _Not(*refusal)
    return event


def _permission(f: Firing, repo: str, event: LabelEvent) -> str:
    """What whoever labelled may do; an account that is gone may do nothing. Bots count by id only: see `admit`."""
    if event.actor.kind != "User" and event.actor.id not in admit.policy(f.fleet.trust).ids:
        return "none"
    try:
        return f.ports.forge.repository.permission(repo, event.actor.login)
    except NotFound:
        return "none"


def _start(f: Firing, listed: Listed, seen: Seen, event: LabelEvent) -> rules.Start:
    """The generation that may begin."""
    known = claims.last_won(f.ledger, listed.repo_id, listed.number)
    takeover = _takeover(f, listed.repo_id, listed.number, seen)
    start = rules.may_start(seen.record, event.id, takeover, known.generation if known else 0)
    if isinstance(start, rules.Refusal):
        raise _Not(start.reason_id, start.text)
    return start


def _ours_to_examine(f: Firing, listed: Listed) -> bool:
    """One firing of a host examines an issue at a time; the others go on to the next issue at once.

    Fifty firings of the same second then spread over the issues, instead of all asking about the oldest.
    """
    question, subject = _question(listed), f"{listed.repo}#{listed.number}"
    with f.ledger.transaction():
        ours = polls.take(f.ledger, question, f.id, f.now, f.now + _EXAMINED_S)
        other = polls.get(f.ledger, question).refreshing_by
        owner = claims.live_on(f.ledger, listed.repo_id, listed.number)
        if ours and owner is not None:
            polls.give_back(f.ledger, question, f.id)
    if ours and owner is None:
        return True
    by = firings.get(f.ledger, owner.firing if owner else str(other))
    who = f"{by.agent} (firing {by.id})" if by else "another firing"
    said = f"claimed it first, as generation {owner.generation}" if owner else "is claiming it"
    f.decide(Decision("examine", subject, "lost", "taken-meanwhile", f"{who} {said}"))
    return False


def _question(listed: Listed) -> str:
    return f"examine {listed.repo_id}#{listed.number}"


def _let_go(f: Firing, listed: Listed) -> None:
    with f.ledger.transaction():
        polls.give_back(f.ledger, _question(listed), f.id)


def _winner_meanwhile(f: Firing, listed: Listed) -> str | None:
    """Who took the issue between our start and now, if somebody of this host did: that is a race lost, not idleness."""
    last = claims.last_won(f.ledger, listed.repo_id, listed.number)
    if last is None or last.firing == f.id or not won_meanwhile(f.ledger, last, f.row.started):
        return None
    owner = firings.get(f.ledger, last.firing)
    who = f"{owner.agent} (firing {last.firing})" if owner else f"firing {last.firing}"
    return f"{who} claimed it first, as generation {last.generation}"


def _last_word(f: Firing, events: tuple[LabelEvent, ...]) -> LabelEvent | None:
    """The newest time that somebody else than our bot put the label on; None when somebody else took it off since.

    Our own edits are projections: a label that we put back after a failed try stands on the word of whoever put it
    there first. Where we act in a person's name (`auth = "gh"`), what this person did counts as a person's.
    """
    me = poll.myself(f)
    for event in reversed(events):
        if event.label != f.agent.takes or (event.actor.id == me.id and me.kind != "User"):
            continue
        return event if event.added else None
    return None


def _takeover(f: Firing, repo_id: int, number: int, seen: Seen) -> rules.Takeover:
    """What this host knows about the owner of an active claim: dead here, or unchanged for how long."""
    if seen.tip is None or not isinstance(seen.record, rules.ClaimRecord):
        return rules.Takeover(False, 0.0, f.fleet.claims.grace_s)
    ours = claims.last_won(f.ledger, repo_id, number)
    dead_here = (
        seen.record.host == f.row.host
        and ours is not None
        and ours.firing == seen.record.firing
        and ours.state not in ("intended", "won")
    )
    unchanged = sightings.unchanged_s(f.ledger, repo_id, number, seen.tip, f.ports.clock.elapsed(), f.row.boot)
    return rules.Takeover(dead_here, unchanged, f.fleet.claims.grace_s)


def _admitted(f: Firing, repo: str, issue: Issue) -> tuple[tuple[admit.Section, ...], tuple[str, ...]]:
    comments = f.ports.forge.issues.comments(repo, issue.number) if issue.comments else ()
    return admit.sections(issue, comments, admit.policy(f.fleet.trust))
