"""Refreshing the host's shared poll: lists with validators, and the claim refs; single flight in the ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from watchbill import elsewhere, ending, look
from watchbill.compiled import Repo
from watchbill.errors import Fixable
from watchbill.forge.base import ForgeError, Issue, NotFound, Person, RepositoryFacts
from watchbill.git import GitError
from watchbill.ledger import polls, sightings
from watchbill.ledger.polls import Poll
from watchbill.live import Firing

#: One row that says who refreshes for everybody; the answers lie in a row a repository and label.
_LEASE = "look"
_LEASE_S = 60
_WAIT_S = 30.0
_REMEMBERED_S = 3600


def refresh(f: Firing) -> None:
    """See to it that the poll is fresh: by asking, or by waiting for the one who asks."""
    elsewhere.look_again(f)
    wanted = [(repo, f.agent.takes) for repo in f.agent.repos]
    clock = f.ports.clock
    deadline = clock.elapsed() + _WAIT_S
    while not all(_fresh(f, polls.get(f.ledger, look.query(*question))) for question in wanted):
        with f.ledger.transaction():
            ours = polls.take(f.ledger, _LEASE, f.id, f.now, f.now + _LEASE_S)
        if ours:
            return _ask(f, wanted)
        if clock.elapsed() > deadline:
            return None  # what is there is stale or absent: `sight` says so
        clock.sleep(0.05)
        f.obey()
    return None


def _fresh(f: Firing, poll: Poll) -> bool:
    now_ms = int(f.ports.clock.now() * 1000)
    return look.fresh(poll.fetched_ms, now_ms, f.started_ms, f.options.scheduled, f.fleet.poll_s)


def _ask(f: Firing, wanted: list[tuple[str, str]]) -> None:
    try:
        for name, label in wanted:
            began_ms = int(f.ports.clock.now() * 1000)
            known = polls.get(f.ledger, look.query(name, label))
            validator, body = _answer(f, f.fleet.repos[name], label, known)
            with f.ledger.transaction():
                polls.take(f.ledger, known.query, f.id, f.now, f.now + _LEASE_S)
                polls.put(f.ledger, known.query, f.id, validator, began_ms, body)
    finally:
        with f.ledger.transaction():
            polls.give_back(f.ledger, _LEASE, f.id)


def _answer(f: Firing, repo: Repo, label: str, known: Poll) -> tuple[str | None, dict[str, Any]]:
    """The validator and body to keep. A failure is kept as one, never as an empty list."""
    before = known.body if known.body and not known.body.get("failure") else None
    try:
        known_facts = facts(f, repo.full_name)
        if known_facts.archived or not known_facts.can_push:
            outcome, why = (
                ("invalid", "it is archived")
                if known_facts.archived
                else ("unauthorized", "this account may not write its contents")
            )
            return None, {"failure": {"outcome": outcome, "reason": why}}
        listing = f.ports.forge.issues.listed(repo.full_name, label, known.validator if before else None)
        issues = before["issues"] if listing.issues is None and before else [_kept(i) for i in listing.issues or ()]
        shown = f.ports.claim_refs(repo).survey(known_facts.default_branch)
        elsewhere.heed(f, repo, shown.hold_tip)
        sightings.observe(f.ledger, known_facts.id, shown.claims, f.ports.clock.elapsed(), f.row.boot)
        body = {
            "repo_id": known_facts.id,
            "default_branch": known_facts.default_branch,
            "issues": issues,
            "claims": {str(number): tip for number, tip in shown.claims.items()},
            "base": shown.base,
        }
        return listing.validator, body
    except (ForgeError, GitError, Fixable) as error:
        end = ending.of(f, error)
        return None, {"failure": {"outcome": end.outcome, "reason": end.reason[:300]}}


def facts(f: Firing, repo: str) -> RepositoryFacts:
    """What rarely changes about a repository."""
    return RepositoryFacts(**_remembered(f, f"facts {repo}", lambda: f.ports.forge.repository.facts(repo)._asdict()))


def issue_of(f: Firing, repo: Repo, number: int) -> Issue | None:
    """None: deleted, moved away, or not visible to us, while the repository is; a repository that is not there is no
    answer about its issues (NotFound)."""
    try:
        return f.ports.forge.issues.read(repo.full_name, number)
    except NotFound:
        f.ports.forge.repository.facts(repo.full_name)
        return None


def myself(f: Firing) -> Person:
    """The account we act as."""
    return Person(**_remembered(f, f"whoami {f.fleet.api_url}", lambda: f.ports.forge.repository.whoami()._asdict()))


def _remembered(f: Firing, query: str, ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Asked once an hour and host, not at every look."""
    known = polls.get(f.ledger, query)
    now_ms = int(f.ports.clock.now() * 1000)
    if known.body is not None and 0 <= now_ms - known.fetched_ms < _REMEMBERED_S * 1000:
        return dict(known.body)
    answer = ask()
    with f.ledger.transaction():
        polls.take(f.ledger, query, f.id, f.now, f.now)
        polls.put(f.ledger, query, f.id, None, now_ms, answer)
    return answer


def _kept(issue: Issue) -> dict[str, Any]:
    return {"number": issue.number, "title": issue.title, "labels": issue.labels, "digest": digest(issue)}


def digest(issue: Issue) -> str:
    """Of title and body: the input that attempts are counted by."""
    return hashlib.sha256(f"{issue.title}\0{issue.body}".encode("utf-8", "surrogatepass")).hexdigest()
