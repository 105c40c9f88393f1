"""examine: the end of `look`. A listed issue read by number: may it be claimed, by whose word, and with which text?

A list is a hint. What decides is read here: the issue itself, who put the label on, the claim ref, the pull requests
that already exist for its branch.
"""

from __future__ import annotations

from watchbill import admit, poll
from watchbill.claims import rules
from watchbill.claims.refs import Seen
from watchbill.forge.base import Issue, LabelEvent, NotFound, Pull
from watchbill.ledger import claims, firings, polls, sightings
from watchbill.ledger.attempts import get as attempts_of
from watchbill.ledger.decisions import Decision
from watchbill.live import Firing, Target
from watchbill.look import Listed, query, won_meanwhile

#: A firing reads at most so many issues by number: the rest wait for the next one.
MOST = 10
#: After so many seconds another may examine an issue: this one has died over it.
_EXAMINED_S = 120


def target(f: Firing, listed: Listed) -> Target | None:
    """The terms on which this issue may be claimed, or None; either way the verdict is on record."""
    subject = f"{listed.repo}#{listed.number}"

    def skip(reason_id: str, reason: str) -> None:
        """Put it on record; there is no target."""
        _let_go(f, listed)
        winner = _winner_meanwhile(f, listed)
        if winner is not None:
            f.decide(Decision("examine", subject, "lost", "taken-meanwhile", winner))
        else:
            f.decide(Decision("examine", subject, "skip", reason_id, reason))

    if not _ours_to_examine(f, listed):
        return None
    forge = f.ports.forge
    try:
        issue = forge.issues.read(listed.repo, listed.number)
    except NotFound as gone:
        skip("issue-gone", str(gone))
        return None
    event, refusal = _authorised(f, listed.repo, issue)
    if refusal is not None or event is None:
        reason = refusal or admit.Reason("label-without-event", f"nobody is on record as putting {f.agent.takes} there")
        skip(*reason)
        return None
    repo = f.fleet.repos[listed.repo]
    branch = f"watchbill/issue-{issue.number}"
    seen = f.ports.claim_refs(repo).read(issue.number)
    start = rules.may_start(seen.record, event.id, _expired(f, listed.repo_id, issue.number, seen))
    if isinstance(start, rules.Refusal):
        skip(start.reason_id, start.text)
        return None
    pulls = forge.pulls.by_head(listed.repo, branch)
    standing = [pull for pull in pulls if pull.state == "open"]
    if standing:
        skip("pull-request-open", f"pull request #{standing[0].number} for it is open")
        return None
    admitted, left_out = _admitted(f, listed.repo, issue)
    mirror = f.ports.mirror(repo)
    default_branch = polls.get(f.ledger, query(listed.repo, f.agent.takes)).body["default_branch"]
    base = mirror.refresh(default_branch)
    digest = poll.digest(issue)
    tried = attempts_of(f.ledger, f.agent.role, f"{listed.repo_id}#{issue.number}", digest)
    f.decide(
        Decision(
            "examine",
            subject,
            "take",
            "eligible",
            f"labelled by {event.actor.login}, generation {start.generation}",
            {"label_event": event.id, "generation": start.generation},
        )
    )
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
        label_event=start.label_event,
        attempt=tried.tries + 1,
        pr_floor=_floor(pulls),
        branch=branch,
        base=base,
        branch_tip=seen.branch_tip,
        fixes_base=f.fleet.labels.fixes_base in issue.labels,
    )


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


def _authorised(f: Firing, repo: str, issue: Issue) -> tuple[LabelEvent | None, admit.Reason | None]:
    """The label event that puts this issue up for claiming, or why it does not count."""
    names = f.fleet.labels
    for label in (names.do_not_pickup, names.plan_pending):
        if label in issue.labels:
            return None, admit.Reason("label-says-no", f"labelled {label}")
    if issue.state != "open" or f.agent.takes not in issue.labels:
        return None, admit.Reason(
            "moved-on", f"it is {issue.state} and labelled {', '.join(issue.labels) or 'nothing'}"
        )
    event = _last_word(f, f.ports.forge.issues.label_events(repo, issue.number))
    if event is None:
        return None, None
    permission = f.ports.forge.repository.permission(repo, event.actor.login)
    return event, admit.eligible(issue, event, permission, admit.policy(f.fleet.trust))


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


def _expired(f: Firing, repo_id: int, number: int, seen: Seen) -> rules.Takeover:
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


def _floor(pulls: tuple[Pull, ...]) -> int:
    return max((pull.number for pull in pulls), default=0)
