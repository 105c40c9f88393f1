"""What holds for an issue now, and what would change it: asked of the same functions that the next firing asks.

Nothing is written but what was learnt on the way (the shared poll, the sighting of a claim), as by any firing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from watchbill import examine, gates, look, mend, poll
from watchbill.claims import reconcile
from watchbill.clock import moment
from watchbill.forge.base import Issue, NotFound
from watchbill.gates import snapshot
from watchbill.gates.snapshot import Refusal
from watchbill.ledger import claims, firings, polls, steps
from watchbill.ledger import holds as hold_rows
from watchbill.ledger.decisions import Decision
from watchbill.live import Firing
from watchbill.look import Listed
from watchbill.reports import claims as words


class Outlook(NamedTuple):
    """One agent's view of an issue."""

    text: str  # a sentence or two, for people
    would_take: bool  # the next firing of this agent takes it
    outcome: str | None  # of a gate that refuses this agent
    until: int | None  # when that changes by itself, if that is known
    verdicts: tuple[Decision, ...]  # of every gate, and on the issue


def ahead(f: Firing, repo: str, number: int, *, offline: bool) -> Outlook:
    """What the next firing of `f.agent` would make of it. Raises what the outside raises, unless `offline`."""
    seen = snapshot.take(f.ledger, f.ports.home, f.agent, f.fleet, f.row.host, f.ports.clock)
    refusal, passed = gates.check(f.agent, seen)
    if offline:
        working = _working(f, repo, number, None)
        holding, verdict = _by_ledger(f, repo, number)
        follows, until = _follows(f, verdict, refusal)
        if verdict.verdict == "take":
            follows = f"whether {f.agent.name} may take it, the remote has to say"
        return Outlook(working or f"{holding}; {follows}", False, "unavailable", until, (*passed, verdict))
    about = mend.facts(f, f.fleet.repos[repo], number)
    working = _working(f, repo, number, about)
    if working is not None:
        return Outlook(working, False, None, None, tuple(passed))
    try:
        issue = about.claim.target.issue if about else f.ports.forge.issues.read(repo, number)
    except NotFound:
        return Outlook("there is no such issue, or this account may not see it", False, None, None, tuple(passed))
    verdict = _verdict(f, repo, issue, about)
    follows, until = _ahead(f, issue, about, verdict, refusal)
    takes = verdict.verdict == "take" and refusal is None
    return Outlook(f"{_holding(f, issue, about)}; {follows}", takes, refusal.outcome if refusal else None, until,
                   (*passed, verdict))  # fmt: skip


def _working(f: Firing, repo: str, number: int, about: mend.About | None) -> str | None:
    """A firing of this host has it, by the claim ref where that was read: at work, or killed and not yet buried."""
    for row in firings.live(f.ledger, f.row.host):
        if (row.repo, row.number) != (repo, number) or (about and about.claim.record.firing != row.id):
            continue
        if not look.alive(row):
            return (f"{row.agent} had it and its process is gone; the next firing of any agent on this host repairs"
                    " what it left")  # fmt: skip
        where = steps.of_firing(f.ledger, row.id)
        at = f", now in the step {where[-1].name}" if where else ""
        return (f"{row.agent} is at work on it since {moment(row.started)}{at}; it stops when the issue is closed"
                f" or labelled {f.fleet.labels.do_not_pickup}")  # fmt: skip
    return None


# With the remote


def _ahead(
    f: Firing, issue: Issue, about: mend.About | None, verdict: Decision, refusal: Refusal | None
) -> tuple[str, int | None]:
    """What happens next, and when by itself: by the next firing, else by the next repair, else by a person."""
    if verdict.verdict == "take":
        return _follows(f, verdict, refusal)
    if about is None:
        if verdict.reason_id == "moved-on":
            return f"no agent takes it until it is open and carries {f.agent.takes}", None
        return _follows(f, verdict, refusal)
    moves = [repair for repair in mend.due(f, about) if isinstance(repair, reconcile.Move)]
    if moves:
        then = _THEN.get(moves[-1].operation, "").format(takes=f.agent.takes)
        return f"{_who_mends(f, issue, about)} moves its claim on, as {moves[-1].why}; {then}", None
    if about.facts.phase in _OWNED:
        left_s = _left_s(f, about)
        return f"if it stays silent for {words.span(left_s)} more, {_OWNED[about.facts.phase]}", f.now + left_s
    if about.facts.pull == "open":
        return _MERGE, None
    if about.facts.phase == "unreadable":
        return "`watchbill claims release` writes one that can be", None
    if about.facts.phase == "done" and about.facts.issue == "closed":
        return "nothing more is due", None
    return _follows(f, verdict, refusal)


def _who_mends(f: Firing, issue: Issue, about: mend.About) -> str:
    if claims.live_on(f.ledger, about.claim.target.repo_id, issue.number) is not None:
        return "the next firing on this host"
    sweeps = any(agent.role == "sweep" for agent in f.roster.agents.values())
    return "the next sweep" + ("" if sweeps else " (no agent of this roster sweeps)")


_MERGE = "it is a person's turn: merge the pull request, or close it"
#: What a repair leads to.
_THEN = {
    "release(retry)": "then it is tried again",
    "release(human)": "to have it done again a person puts {takes} on it",
    "merge": "then it is done",
    "finish": "then it is a person's turn: merge the pull request, or close it",
    "return": "then it is a person's turn: merge the pull request, or close it",
    "reopen": "then it is a person's turn: merge the pull request, or close it",
}
#: Where somebody may be at work, and what happens when nobody is.
_OWNED = {
    "active": "it is given back to be tried again",
    "published": "its pull request is opened all the same",
    "active(role)": "it is given back to its pull request",
}


def _left_s(f: Firing, about: mend.About) -> int:
    """How long its tip has to stand unchanged until somebody else may act."""
    record, target = about.claim.record, about.claim.target
    known = mend.takeover(f, target.repo_id, record.number, about.seen)
    wait_s = known.grace_s + (0 if about.facts.phase == "published" else record.ttl)
    return max(0, round(wait_s - known.unchanged_s))


def _holding(f: Firing, issue: Issue, about: mend.About | None) -> str:
    """Who has it, or where it stands."""
    closed = "the issue is closed; " if issue.state != "open" else ""
    if about is None:
        return f"{closed}nobody has ever claimed it"
    if about.facts.issue == "gone":
        closed = "the issue is gone, or this account may not see it; "
    return closed + _stands(f, about)


def _stands(f: Firing, about: mend.About) -> str:
    record = about.claim.record
    pull = f"pull request #{about.pull}" if about.pull else "its pull request"
    who = words.holder(record, f.row.host)
    if about.facts.phase == "unreadable":
        return "its claim record cannot be read, so it is held for a person"
    if about.facts.phase == "active":
        gone = {"dead": "that firing is over", "silent": "and has been silent for too long"}.get(about.facts.owner)
        return f"{who} has it (try {record.attempt}), {gone or 'and may be at work'}"
    return {
        "published": f"{who} has pushed its work and not opened the pull request yet",
        "pr": f"{pull} is {_PULLS.get(about.facts.pull, 'there')}",
        "active(role)": f"{who} works on {pull} ({record.role})",
        "done": f"done: {pull} was merged",
        "released(retry)": "it was given back to be tried again",
        "released(human)": "it is in a person's hands",
    }[about.facts.phase]


_PULLS = {"open": "open", "closed": "closed unmerged", "merged": "merged", "unsure": "not to be found"}


def _verdict(f: Firing, repo: str, issue: Issue, about: mend.About | None) -> Decision:
    """First by the ledger, as `look` does, then by number, as `examine` does."""
    if polls.get(f.ledger, look.query(repo, f.agent.takes)).body is None:
        poll.refresh(f)
    repo_id = poll.facts(f, repo).id
    tip = about.seen.tip if about else None
    listed = Listed(repo, repo_id, issue.number, issue.title, poll.digest(issue), issue.labels, tip)
    told = _judged(f, listed)
    if told.verdict != "take":
        return told
    try:
        target = examine.terms(f, listed)
    except examine.Not as no:
        return told._replace(step="examine", verdict="skip", reason_id=no.reason.id, reason=no.reason.text)
    said = f"labelled by {target.labelled_by}: generation {target.generation}, try {target.attempt}"
    return told._replace(step="examine", reason_id="eligible", reason=said)


def _judged(f: Firing, listed: Listed) -> Decision:
    standing = hold_rows.standing(f.ledger, f.now)
    body = polls.get(f.ledger, look.query(listed.repo, f.agent.takes)).body or {}
    return look.judge(f.ledger, f.fleet, f.agent, listed, {"base": "", **body}, standing, f.now + 1, f.now)


# Without it


def _by_ledger(f: Firing, repo: str, number: int) -> tuple[str, Decision]:
    """The same as far as this host remembers."""
    question = look.query(repo, f.agent.takes)
    known = polls.get(f.ledger, question)
    body: dict[str, Any] = known.body or {}
    last = claims.last_won(f.ledger, body["repo_id"], number) if "repo_id" in body else None
    holding = f"this host's last claim on it is {last.record}" if last else "this host has never claimed it"
    subject = f"{repo}#{number}"
    for issue in body.get("issues", ()):
        if issue["number"] == number:
            listed = Listed(repo, body["repo_id"], number, issue["title"], issue["digest"], tuple(issue["labels"]),
                            body["claims"].get(str(number)))  # fmt: skip
            return holding, _judged(f, listed)
    when = moment(known.fetched_ms // 1000) if known.fetched_ms else None
    said = f"it was not among the open issues labelled {f.agent.takes} at {when}" if when else "nobody has looked yet"
    return holding, Decision("look", subject, "skip", "not-listed", said)


# What follows


def _follows(f: Firing, verdict: Decision, refusal: Refusal | None) -> tuple[str, int | None]:
    """(whose turn it is, when that changes by itself)."""
    agent, takes = f.agent.name, f.agent.takes
    if verdict.verdict == "take":
        if refusal is not None:
            return f"{agent} would take it, but {refusal.reason}", refusal.until
        when = "" if f.agent.schedule == "manual" else f" ({f.agent.schedule})"
        return f"the next firing of {agent}{when} takes it", None
    until = verdict.numbers.get("next_at") or verdict.numbers.get("until")
    again = f"to have it done again a person puts {takes} on it"
    said = {
        "needs-new-label": again,
        "moved-on": again,
        "not-listed": verdict.reason,
        "label-says-no": f"no agent takes it while it is {verdict.reason}",
        "pull-request-open": _MERGE,
    }.get(verdict.reason_id, verdict.reason)
    return said, int(until) if until else None
