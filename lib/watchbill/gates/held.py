"""Refuses while a hold stands on the agent, or on all of its repositories."""

from __future__ import annotations

from watchbill import holds
from watchbill.clock import moment
from watchbill.compiled import Agent
from watchbill.gates.snapshot import Refusal, Snapshot
from watchbill.ledger.holds import Hold


def refuse(agent: Agent, snapshot: Snapshot) -> Refusal | None:
    applying = holds.applying(snapshot.holds, holds.subjects_of(agent, snapshot.host))
    if applying:
        return _refusal(applying[0])
    on_repos = {hold.subject: hold for hold in snapshot.holds if hold.scope == "repo"}
    if agent.repos and all(repo in on_repos for repo in agent.repos):
        return _refusal(on_repos[agent.repos[0]])
    return None


def _refusal(hold: Hold) -> Refusal:
    who = f"{hold.scope} {hold.subject}".strip()
    end = "until somebody resumes it" if hold.until is None else f"until {moment(hold.until)}"
    return Refusal(
        "held",
        f"held-{hold.kind.replace('_', '-')}",
        f"{who} is held ({hold.kind} by {hold.author}: {hold.reason}), {end}",
        {"hold": hold.id, "scope": hold.scope, "subject": hold.subject, "since": hold.since, "until": hold.until},
        hold.until,
    )
