"""Refuses while a hold stands on the agent, on every engine it may run on, or on all of its repositories."""

from __future__ import annotations

from watchbill import holds
from watchbill.compiled import Agent
from watchbill.gates.snapshot import Refusal, Snapshot
from watchbill.ledger.holds import Hold


def refuse(agent: Agent, snapshot: Snapshot) -> Refusal | None:
    heeded = holds.heeded(snapshot.holds, agent.name, snapshot.now)
    applying = holds.applying(heeded, holds.subjects_of(agent, snapshot.host, None))
    if applying:
        return refusal(applying[0], agent, snapshot.now)
    on_each = [holds.applying(heeded, holds.subjects_of(agent, snapshot.host, use)) for use in agent.uses]
    if on_each and all(on_each):
        return refusal(on_each[0][0], agent, snapshot.now)
    on_repos = {hold.subject: hold for hold in heeded if hold.scope == "repo"}
    if agent.repos and all(repo in on_repos for repo in agent.repos):
        return refusal(on_repos[agent.repos[0]], agent, snapshot.now)
    return None


def refusal(hold: Hold, agent: Agent, now: int) -> Refusal:
    """The sentence, and from when on it could be otherwise."""
    free_at = holds.free_at(hold, agent.name, now)
    until = None if free_at == float("inf") else int(free_at)
    return Refusal(
        "held",
        holds.reason_id(hold),
        holds.said(hold, agent.name, now),
        {
            "hold": hold.id,
            "scope": hold.scope,
            "subject": hold.subject,
            "since": hold.since,
            "until": until,
            "canary": hold.canary,
            "strikes": hold.strikes,
        },
        until,
    )
