"""Refuses while another firing of this agent holds its lock on this host."""

from __future__ import annotations

from watchbill.compiled import Agent
from watchbill.gates.snapshot import Refusal, Snapshot


def refuse(agent: Agent, snapshot: Snapshot) -> Refusal | None:
    if not snapshot.lock_held:
        return None
    live = snapshot.live
    if live is None:
        return Refusal("running", "running", f"another firing of {agent.name} is starting or ending", {})
    return Refusal(
        "running",
        "running",
        f"firing {live.id} of {agent.name} has been running for {snapshot.now - live.started} s (pid {live.pid})",
        {"firing": live.id, "pid": live.pid, "started": live.started},
    )
