"""look: what could be claimed, and why not the rest.

The host's shared poll lies in the ledger; one firing refreshes it for all, the others read it. GitHub's quota then
depends on hosts and not on agents. This module decides from the ledger alone and is standard library only, because an
idle firing lies on its way; what needs the forge is in `examine.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from watchbill import holds, process
from watchbill.clock import Clock, moment
from watchbill.compiled import Agent, Fleet
from watchbill.ledger import attempts, base_checks, claims, firings, polls
from watchbill.ledger import holds as hold_rows
from watchbill.ledger.db import Ledger
from watchbill.ledger.decisions import Decision
from watchbill.ledger.firings import Firing
from watchbill.ledger.polls import Poll
from watchbill.outcomes import DIED, Ending

#: No back-off is longer.
_LONGEST_REST_S = 6 * 3600


class Listed(NamedTuple):
    """An issue as the shared poll has it: a hint, never a fact to decide on."""

    repo: str
    repo_id: int
    number: int
    title: str
    digest: str  # of title and body
    labels: tuple[str, ...]
    tip: str | None  # of its claim ref


class Failure(NamedTuple):
    """A repository that could not be asked."""

    repo: str
    outcome: str  # how a firing ends that sees nothing else
    reason: str


class Sight(NamedTuple):
    """What one look at the shared poll says."""

    candidates: tuple[Listed, ...]  # oldest first, repository by repository
    decisions: tuple[Decision, ...]  # on every listed issue
    failures: tuple[Failure, ...]  # absence of an answer is no answer


class Rest(NamedTuple):
    """A firing that has nothing to do, and how we know."""

    ending: Ending
    decisions: list[Decision]


def query(repo: str, label: str) -> str:
    """The key of a repository's answer in the table `polls`."""
    return f"issues {repo} {label}"


def fresh(fetched_ms: int, now_ms: int, started_ms: int, scheduled: bool, poll_s: int) -> bool:
    """A timer's firing takes what is at most `poll_s` old; a person who fires by hand wants to see what is there."""
    if fetched_ms > now_ms:
        return False  # the clock was set back
    return fetched_ms >= started_ms or (scheduled and now_ms - fetched_ms <= poll_s * 1000)


def at_rest(
    ledger: Ledger, fleet: Fleet, agent: Agent, row: Firing, clock: Clock, started_ms: int, scheduled: bool
) -> Rest | None:
    """How this firing ends if the ledger alone can tell; None when somebody has to look, repair or claim."""
    now = clock.now()
    answers = asked(ledger, agent)
    if not all(fresh(a.fetched_ms, int(now * 1000), started_ms, scheduled, fleet.poll_s) for a in answers):
        return None
    if claims.live_elsewhere(ledger, row.host) or firings.live_elsewhere(ledger, row.host):
        return None
    if some_died(ledger, row.host):
        return None
    if any(is_over(ledger, owned) for owned in claims.live(ledger, row.host)):
        return None
    seen = sight(ledger, fleet, agent, answers, row.started, int(now))
    if seen.candidates or seen.failures:
        return None
    return Rest(ending_of(agent, seen), list(seen.decisions))


def is_over(ledger: Ledger, owned: claims.Claim) -> bool:
    """Whether a claim that this host still holds belongs to a firing that has ended."""
    owner = firings.get(ledger, owned.firing)
    return owner is None or owner.ended is not None


def alive(row: Firing) -> bool:
    """Whether the process of a firing of this host still runs."""
    return process.alive(process.Identity(row.pid, row.pid_started, row.boot))


def some_died(ledger: Ledger, host: str) -> bool:
    """Whether a firing of this host has a row without an end, and no process."""
    return any(not alive(row) for row in firings.live(ledger, host))


def asked(ledger: Ledger, agent: Agent) -> list[Poll]:
    """The shared poll's answer for each of the agent's repositories."""
    return [polls.get(ledger, query(repo, agent.takes)) for repo in agent.repos]


def sight(ledger: Ledger, fleet: Fleet, agent: Agent, answers: list[Poll], started: int, now: int) -> Sight:
    """Every listed issue of the agent's repositories, judged by what this host knows."""
    candidates: list[Listed] = []
    verdicts: list[Decision] = []
    failures: list[Failure] = []
    standing = hold_rows.standing(ledger, now)
    for repo, answer in zip(agent.repos, answers, strict=True):
        body = answer.body
        if body is None or body.get("failure"):
            unknown = {"outcome": "unavailable", "reason": "nobody could ask yet"}
            failures.append(Failure(repo, **(body["failure"] if body else unknown)))
            continue
        for issue in _listed(repo, body):
            verdict = judge(ledger, fleet, agent, issue, body, standing, started, now)
            verdicts.append(verdict)
            if verdict.verdict == "take":
                candidates.append(issue)
    return Sight(tuple(candidates), tuple(verdicts), tuple(failures))


def _listed(repo: str, body: dict[str, Any]) -> Iterable[Listed]:
    for issue in body["issues"]:
        yield Listed(
            repo,
            body["repo_id"],
            issue["number"],
            issue["title"],
            issue["digest"],
            tuple(issue["labels"]),
            body["claims"].get(str(issue["number"])),
        )


def judge(
    ledger: Ledger,
    fleet: Fleet,
    agent: Agent,
    issue: Listed,
    body: dict[str, Any],
    standing: list[hold_rows.Hold],
    started: int,
    now: int,
) -> Decision:
    subject = f"{issue.repo}#{issue.number}"

    def skip(reason_id: str, reason: str, verdict: str = "skip", **numbers: Any) -> Decision:
        return Decision("look", subject, verdict, reason_id, reason, numbers)

    names = fleet.labels
    for label in (names.do_not_pickup, names.plan_pending):
        if label in issue.labels:
            return skip("label-says-no", f"labelled {label}")
    for hold in holds.applying(standing, holds.on_candidate(issue.repo, issue.number)):
        return skip("held", f"{hold.scope} {hold.subject} is held: {hold.reason}", hold=hold.id, until=hold.until)
    owner = claims.live_on(ledger, issue.repo_id, issue.number)
    if owner is not None:
        taken_now = owner.won_at is None or won_meanwhile(ledger, owner, started)
        return skip(
            "owned-here",
            f"firing {owner.firing} of this host owns it (generation {owner.generation})",
            "lost" if taken_now else "skip",
            firing=owner.firing,
            generation=owner.generation,
        )
    last = claims.last_won(ledger, issue.repo_id, issue.number)
    if last is not None and won_meanwhile(ledger, last, started):
        return skip(
            "taken-meanwhile",
            f"firing {last.firing} had it while this one was looking ({last.record})",
            "lost",
            firing=last.firing,
            record=last.record,
        )
    tried = attempts.get(ledger, agent.role, f"{issue.repo_id}#{issue.number}", issue.digest)
    if now < tried.next_at <= now + _LONGEST_REST_S:  # later, a clock was ahead
        return skip(
            "backing-off",
            f"tried {'once' if tried.tries == 1 else f'{tried.tries} times'}; again at {moment(tried.next_at)}",
            tries=tried.tries,
            next_at=tried.next_at,
        )
    if names.fixes_base not in issue.labels:
        for command in fleet.repos[issue.repo].checks:
            known = base_checks.get(ledger, body["base"], command, now)
            if known is not None and known.exit != 0:
                return skip(
                    "base-red",
                    f"`{command}` fails on the base {body['base'][:12]} itself (exit {known.exit});"
                    f" an issue labelled {names.fixes_base} may mend it",
                    base=body["base"],
                    exit=known.exit,
                )
    return skip("may-be-claimed", "labelled, not owned by this host, not backing off", "take")


def won_meanwhile(ledger: Ledger, claim: claims.Claim, started: int) -> bool:
    """Whether a claim was won after `started`: a race lost, where an older claim is just somebody at work.

    Times are whole seconds; a firing that had ended by then, within the same second, was before us.
    """
    owner = firings.get(ledger, claim.firing)
    if owner is not None and owner.outcome == DIED:
        return False  # nobody was faster: we found it dead
    over = owner is not None and owner.ended is not None and owner.ended <= started
    return (claim.won_at or 0) >= started and not over


def ending_of(agent: Agent, seen: Sight) -> Ending:
    """How a firing ends that claimed nothing."""
    if seen.failures:
        outcomes = {failure.outcome for failure in seen.failures}
        said = "; ".join(f"{failure.repo}: {failure.reason}" for failure in seen.failures)
        return Ending(
            outcomes.pop() if len(outcomes) == 1 else "unavailable", f"could not look: {said}", "could-not-look"
        )
    lost = [d for d in seen.decisions if d.verdict == "lost"]
    if lost:
        return Ending(
            "lost", f"{len(lost)} taken by others while looking: {lost[0].subject}: {lost[0].reason}", lost[0].reason_id
        )
    red = [d for d in seen.decisions if d.reason_id in ("base-red", "held")]
    if red and len(red) == len(seen.decisions):
        return Ending("held", f"{red[0].subject}: {red[0].reason}", red[0].reason_id)
    where = ", ".join(agent.repos)
    if not seen.decisions:
        return Ending("idle", f"no open issue labelled {agent.takes} in {where}", "nothing-labelled")
    first = seen.decisions[0]
    return Ending(
        "idle",
        f"{len(seen.decisions)} labelled in {where}, none to take: {first.subject}: {first.reason}",
        "nothing-to-take",
    )
