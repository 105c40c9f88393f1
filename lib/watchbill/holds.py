"""Which holds apply to whom: pure matching. Gates use it, and every effect again. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from watchbill.compiled import Agent
from watchbill.ledger.holds import Hold


def subjects_of(agent: Agent, host: str) -> dict[str, str]:
    """What an agent is, scope by scope; a hold on any of these holds it."""
    return {
        "fleet": "",
        "host": host,
        "agent": agent.name,
        "role": agent.role,
        "engine": str(agent.engine.get("use", "")),
        "model": agent.model or "",
        "github": "",
    }


def on_candidate(repo: str, number: int) -> dict[str, str]:
    """What an issue is, scope by scope."""
    return {"repo": repo, "issue": f"{repo}#{number}"}


def applying(holds: Iterable[Hold], subjects: Mapping[str, str]) -> list[Hold]:
    """The holds whose scope and subject are among `subjects`; those that last longest first."""
    found = [hold for hold in holds if subjects.get(hold.scope) == hold.subject]
    return sorted(found, key=lambda hold: (hold.until is not None, -(hold.until or 0), hold.id))
