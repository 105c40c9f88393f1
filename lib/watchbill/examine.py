"""examine: the end of `look`. A listed issue read by number: may it be claimed, by whose word, and with which text?

A list is a hint. What decides is read here: the issue itself, who put the label on, the claim ref, the pull requests
that already exist for its branch.
"""

from __future__ import annotations

from watchbill import admit, elsewhere, ending, foreign, mend, poll, reserve
from watchbill.claims import rules
from watchbill.claims.refs import Seen
from watchbill.compiled import Repo
from watchbill.forge.base import Issue, LabelEvent, NotFound
from watchbill.ledger import claims, firings, polls
from watchbill.ledger.attempts import get as attempts_of
from watchbill.ledger.decisions import Decision
from watchbill.live import Firing, Target
from watchbill.look import Listed, won_meanwhile

#: A firing reads at most so many issues by number: the rest wait for the next one.
MOST = 10
#: After so many seconds another may examine an issue: this one has died over it.
_EXAMINED_S = 120
#: What was refused lately comes last for so long.
_REFUSED_S = 900


class Not(Exception):
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
        found = terms(f, listed)
    except Not as no:
        _let_go(f, listed)
        _remember(f, listed)
        winner = _winner_meanwhile(f, listed)
        lost = Decision("examine", subject, "lost", "taken-meanwhile", winner or "")
        f.decide(lost if winner else Decision("examine", subject, "skip", *no.reason))
        return None
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # a mistake of ours about one issue
        _let_go(f, listed)
        f.decide(Decision("examine", subject, "skip", "bug", ending.of(f, error).reason))
        return None
    numbers = {"label_event": found.label_event, "generation": found.generation, "attempt": found.attempt}
    said = f"labelled by {found.labelled_by}: generation {found.generation}, attempt {found.attempt}"
    f.decide(Decision("examine", subject, "take", "eligible", said, numbers))
    return found


def terms(f: Firing, listed: Listed) -> Target:
    """The terms on which it may be claimed now, read by number; raises Not."""
    repo = f.fleet.repos[listed.repo]
    issue = _read(f, listed)
    events = f.ports.forge.issues.label_events(listed.repo, issue.number)
    event = _authorised(f, listed.repo, issue, events)
    seen = f.ports.claim_refs(repo).read(issue.number)
    elsewhere.heed(f, repo, seen.hold_tip)
    foreign.notice(f, repo, (seen,))
    start = _start(f, listed, seen, event)
    if not _branch_is_ours(f, repo, issue.number, seen):
        raise Not("branch-in-the-way", f"{rules.work_branch(issue.number)} holds commits that are not ours; rename it")
    pulls = f.ports.forge.pulls.by_head(listed.repo, rules.work_branch(issue.number))
    for pull in pulls:
        if pull.state == "open":
            raise Not("pull-request-open", f"pull request #{pull.number} for it is open")
    admitted, left_out = _admitted(f, listed.repo, issue)
    attempt = _tried(f, listed, issue, seen) + 1
    refusal = reserve.used_up(f, repo, listed.repo_id, issue.number, _spent(seen))
    if refusal is not None:
        raise Not(refusal.reason_id, refusal.reason)
    if attempt > rules.MOST_TRIES:
        raise Not("tries-spent", f"its {rules.MOST_TRIES} tries are made; the sweep hands it to a person")
    default_branch = poll.facts(f, listed.repo).default_branch
    return Target(
        repo=repo,
        repo_id=listed.repo_id,
        default_branch=default_branch,
        issue=issue,
        digest=poll.digest(issue),
        admitted=admitted,
        left_out=left_out,
        tip=seen.tip,
        previous=seen.record if isinstance(seen.record, rules.ClaimRecord) else None,
        generation=start.generation,
        # The newest one seen, be it our own: where we act in a person's name, a label that we put back ourselves must
        # not pass for this person's later word.
        # Of every label that some agent takes: what was asked of two agents at once is one word.
        label_event=max(start.label_event, *(e.id for e in events if e.label in f.taken and e.added)),
        labelled_by=event.actor.login,
        attempt=attempt,
        pr_floor=max((pull.number for pull in pulls), default=0),
        branch=rules.work_branch(issue.number),
        base=f.ports.mirror(repo).refresh(default_branch),
        branch_tip=seen.branch_tip,
        wip_tip=seen.wip_tip,
        fixes_base=f.fleet.labels.fixes_base in issue.labels,
    )


def _spent(seen: Seen) -> int:
    """What all hosts together spent on the issue, by its claim's record: micro-dollars."""
    return seen.record.spent if isinstance(seen.record, rules.ClaimRecord) else 0


def _read(f: Firing, listed: Listed) -> Issue:
    """The issue as it is now, still open and still labelled."""
    try:
        issue = f.ports.forge.issues.read(listed.repo, listed.number)
    except NotFound as gone:
        raise Not("issue-gone", str(gone)) from gone
    names = f.fleet.labels
    for label in (names.do_not_pickup, names.plan_pending):
        if label in issue.labels:
            raise Not("label-says-no", f"labelled {label}")
    if issue.state != "open" or f.agent.takes not in issue.labels:
        raise Not("moved-on", f"it is {issue.state} and labelled {', '.join(issue.labels) or 'nothing'}")
    return issue


def _authorised(f: Firing, repo: str, issue: Issue, events: tuple[LabelEvent, ...]) -> LabelEvent:
    """The label event that puts this issue up for claiming."""
    event = rules.last_word(events, f.agent.takes, poll.myself(f))
    if event is None:
        raise Not("label-without-event", f"nobody is on record as putting {f.agent.takes} there")
    refusal = admit.eligible(issue, event, _permission(f, repo, event), admit.policy(f.fleet.trust))
    if refusal is not None:
        raise Not(*refusal)
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
    if isinstance(seen.record, rules.ClaimRecord) and seen.record.repo_id != listed.repo_id:
        raise Not("claim-unreadable", f"its claim is of another repository, {seen.record.repo_id}; held for a person")
    known = claims.last_won(f.ledger, listed.repo_id, listed.number)
    takeover = mend.takeover(f, listed.repo_id, listed.number, seen)
    start = rules.may_start(seen.record, event.id, takeover, known.generation if known else 0)
    if isinstance(start, rules.Refusal):
        raise Not(start.reason_id, start.text)
    return start


def _branch_is_ours(f: Firing, repo: Repo, number: int, seen: Seen) -> bool:
    """Whether the work branch, if it is there, holds what a generation of ours published."""
    if seen.branch_tip is None or (isinstance(seen.record, rules.ClaimRecord) and seen.branch_tip == seen.record.head):
        return True
    return seen.tip is not None and f.ports.claim_refs(repo).published(number, seen.branch_tip)


def _tried(f: Firing, listed: Listed, issue: Issue, seen: Seen) -> int:
    """Tries on the same person's word: by the ledger, and by the record, whoever's they were."""
    record = seen.record if isinstance(seen.record, rules.ClaimRecord) else None
    if record is not None and rules.begins_anew(record):
        return 0
    here = attempts_of(f.ledger, f.agent.role, f"{listed.repo_id}#{issue.number}", poll.digest(issue)).tries
    return max(here, record.attempt if record else 0)


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


def in_order(f: Firing, candidates: tuple[Listed, ...]) -> list[Listed]:
    """Oldest first; but those that were looked at lately, and not to be had, after all others: ten of them would
    otherwise keep every firing from the eleventh."""
    since_ms = (f.now - _REFUSED_S) * 1000

    def lately(listed: Listed) -> bool:
        known = polls.get(f.ledger, _refusal(listed))
        return known.fetched_ms > since_ms and known.body == [listed.digest, listed.tip]

    return sorted(candidates, key=lately)


def _remember(f: Firing, listed: Listed) -> None:
    with f.ledger.transaction():
        polls.take(f.ledger, _refusal(listed), f.id, f.now, f.now)
        polls.put(f.ledger, _refusal(listed), f.id, None, f.now * 1000, [listed.digest, listed.tip])


def _refusal(listed: Listed) -> str:
    return f"refused {listed.repo_id}#{listed.number}"


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


def _admitted(f: Firing, repo: str, issue: Issue) -> tuple[tuple[admit.Section, ...], tuple[str, ...]]:
    comments = f.ports.forge.issues.comments(repo, issue.number) if issue.comments else ()
    return admit.sections(issue, comments, admit.policy(f.fleet.trust))
