"""How a firing is told to the one who started it: one line, or one JSON object. Standard library only.

The object's keys are a contract with programs (DESIGN section 13): absent values are null, never missing.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Any

from watchbill import money
from watchbill.ledger.firings import Firing

_SAID = {
    "pull_request": "pull request opened",
    "published": "work published",
    "idle": "nothing to do",
    "no_change": "no change",
    "cancelled": "cancelled",
    "lost": "lost",
    "held": "held",
    "capped": "capped",
    "running": "already running",
    "checks_failed": "checks failed",
    "engine_failed": "engine failed",
    "needs_human": "needs a person",
    "unavailable": "unavailable",
    "unauthorized": "unauthorized",
    "invalid": "invalid configuration",
    "bug": "a bug in watchbill",
}


def as_object(row: Firing) -> dict[str, Any]:
    """The object of `fire --json`. Times are UTC epoch seconds, money is dollars."""
    return {
        "agent": row.agent,
        "role": row.role,
        "firing": row.id,
        "outcome": row.outcome,
        "exit": row.exit,
        "reason": row.reason,
        "repo": row.repo,
        "number": row.number,
        "pull_request": row.pull_request,
        "branch": row.branch,
        "generation": row.generation,
        "cost_usd": None if row.cost_micro is None else row.cost_micro / money.MICRO,
        "cost_basis": row.cost_basis,
        "started": row.started,
        "ended": row.ended,
    }


def as_json(row: Firing) -> str:
    return json.dumps(as_object(row))


def as_line(row: Firing, cap_micro: int | None = None) -> str:
    """`bosun: pull request opened acme/api#42 for #41 ($0.41 of $1.50)`."""
    said = _SAID.get(row.outcome or "", row.outcome or "has not ended")
    if row.outcome == "pull_request":
        text = f"{row.agent}: {said} {row.repo}#{row.pull_request} for #{row.number}"
    elif row.number is not None:
        text = f"{row.agent}: {said} on {row.repo}#{row.number}: {row.reason}"
    else:
        text = f"{row.agent}: {said}: {row.reason}"
    if row.cost_micro is not None and row.number is not None:
        cost = "cost not measured" if row.cost_basis == "unmeasured" else money.usd(row.cost_micro)
        text += f" ({cost} of {money.usd(cap_micro)})" if cap_micro is not None else f" ({cost})"
    return printable(" ".join(text.split()))


def tell(row: Firing, logs: str, *, json: bool, scheduled: bool, cap_micro: int | None = None) -> None:
    """Exactly one line on stdout. `logs`: the home's folder of them; where the system appends a timer's stdout to the
    agent's log, the line says when and whose it is, as every other line there does."""
    text = as_json(row) if json else as_line(row, cap_micro)
    if scheduled and not json and is_stream(os.path.join(logs, f"{row.agent}.log"), 1):
        text = f"{row.ended or row.started} {row.id or '-'} {text}"
    try:
        print(text, flush=True)
    except OSError as error:  # a full disk, or nobody who reads: the firing has ended as it has, and its row says so
        with contextlib.suppress(OSError):
            print(f"{text}\nstdout: {error}", file=sys.stderr, flush=True)


def is_stream(path: str, number: int) -> bool:
    """Whether this stream of ours, 1 or 2, is that very file."""
    try:
        return os.path.samestat(os.fstat(number), os.stat(path))
    except OSError:
        return False


def printable(text: str) -> str:
    """A line for a terminal: what is foreign in it cannot move the cursor, hide or colour anything."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
