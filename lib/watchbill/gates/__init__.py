"""Gates: reasons not to fire, asked in order before anything is imported or touched.

A gate is a module with `refuse(agent, snapshot) -> Refusal | None`: no I/O, no clock. To add one: this registry, the
module, its test. Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable

from watchbill.compiled import Agent
from watchbill.gates import capped, held, running, unfit
from watchbill.gates.snapshot import Refusal, Snapshot
from watchbill.ledger.decisions import Decision

#: In the order they are asked; the first refusal counts.
GATES: dict[str, Callable[[Agent, Snapshot], Refusal | None]] = {
    "held": held.refuse,
    "running": running.refuse,
    "capped": capped.refuse,
    "unfit": unfit.refuse,
}


def check(agent: Agent, snapshot: Snapshot) -> tuple[Refusal | None, list[Decision]]:
    """The first refusal, and every gate's verdict up to it."""
    verdicts = []
    for name, refuse in GATES.items():
        refusal = refuse(agent, snapshot)
        if refusal:
            verdicts.append(Decision("gates", name, "refuse", refusal.reason_id, refusal.reason, dict(refusal.numbers)))
            return refusal, verdicts
        verdicts.append(Decision("gates", name, "pass", f"{name}-passes", ""))
    return None, verdicts
