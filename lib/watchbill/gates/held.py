"""Refuses while a hold stands on the agent, on every engine it may run on, or on all of its repositories; and while a
gate file is there, also one that belongs to no hold."""

from __future__ import annotations

from watchbill import holds
from watchbill.compiled import Agent
from watchbill.gates.snapshot import Refusal, Snapshot
from watchbill.ledger.holds import Hold


def refuse(agent: Agent, snapshot: Snapshot) -> Refusal | None:
    """Of a file and a hold, the hold is named when it lasts as long: it says who and why."""
    by_hold = _by_hold(agent, snapshot)
    if snapshot.gate is None or (by_hold is not None and by_hold.until is None):
        return by_hold
    return _by_file(agent, snapshot.gate)


def _by_hold(agent: Agent, snapshot: Snapshot) -> Refusal | None:
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


def _by_file(agent: Agent, path: str) -> Refusal:
    whom = agent.name if path.endswith(f"/agent-{agent.name}") else "--fleet"
    return Refusal(
        "held",
        "held-file",
        f"the file {path} holds {'every agent' if whom == '--fleet' else agent.name}, until `watchbill resume {whom}`"
        " removes it",
        {"file": path},
    )
