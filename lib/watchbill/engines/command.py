"""Any program as an engine: `engine: {use: command, argv: [...]}`.

It runs in the worktree with the brief on its stdin. It may print JSON lines; everything else that it prints is only
logged:

    {"type": "usage", "input_tokens": 1200, "output_tokens": 300, "cost_usd": 0.004}
    {"type": "message", "text": "..."}
    {"type": "rate_limited", "until": 1790000000}

A usage line says what was used since the one before it: the lines are added up, and each counts as one turn. A number
that is negative, not finite, absurdly large or not a number at all is passed over, the rest of its line is not. A line
without `cost_usd` adds tokens only. Its exit status is its verdict: zero is a success.
"""

from __future__ import annotations

import json
import os
import shutil
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from watchbill.engines.base import Event, Launch, Task, Usage
from watchbill.errors import Fixable
from watchbill.isolation.base import program_path

name = "command"
has_budget = False
#: We cannot know what a request of an unknown program costs; its meter stops it after the one that reaches the cap.
headroom_micro = 0
unmetered_basis = "ceiling"

_MICRO = 1_000_000
_MOST_TOKENS = 10**10
_MOST_USD = 10**5
_MOST_EPOCH = 10**11  # beyond: milliseconds, or nonsense
_MOST_TEXT = 8000


def launch(task: Task) -> Launch:
    """Fixable WB-ENGINE-03 for an argv that is none, WB-ENGINE-01 when there is no such program."""
    argv = task.options.get("argv")
    words = tuple(argv) if isinstance(argv, (list, tuple)) else ()
    if not words or not words[0] or not all(isinstance(word, str) for word in words):
        raise Fixable("WB-ENGINE-03", "engine command: argv is not a list of words",
                      why=f"it is {argv!r}", fix="engine: {use: command, argv: [program, argument, ...]}")  # fmt: skip
    program = find_program(words[0], task)
    return Launch((program, *words[1:]), {}, task.brief.encode("utf-8", "surrogateescape"))


def find_program(word: str, task: Task) -> str:
    """Its absolute path; a word with a slash is relative to the worktree. Fixable WB-ENGINE-01 when there is none."""
    path = task.env.get("PATH") or program_path(os.environ)
    word = os.path.expanduser(word)
    found = shutil.which(os.path.join(task.workdir, word) if os.sep in word else word, path=path)
    if found is None:
        where = f"{word} is not an executable file" if os.sep in word else f"PATH searched: {path}"
        raise Fixable("WB-ENGINE-01", f"the engine's program {word!r} is missing", why=where,
                      fix=f"install {os.path.basename(word)}, or give its absolute path in `engine: argv`")  # fmt: skip
    return found


def read(line: bytes, so_far: Usage) -> Event | None:
    said = as_object(line)
    kind = said.get("type")
    if kind == "usage":
        return Event("usage", usage=_added(so_far, said))
    text = said.get("text")
    if kind == "message" and isinstance(text, str):
        return Event("message", text=text[:_MOST_TEXT])
    if kind == "rate_limited":
        until = _number(said.get("until"), _MOST_EPOCH)
        return Event("rate_limited", until=None if until is None else int(until))
    return None


def succeeded(exit_status: int, final: Event | None) -> bool:  # noqa: ARG001 - there is no final event
    return exit_status == 0


def as_object(line: bytes) -> dict[str, Any]:
    """The JSON object on a line; an empty one for everything else."""
    if not line.lstrip().startswith(b"{"):
        return {}
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _added(so_far: Usage, said: dict[str, Any]) -> Usage:
    cost = _number(said.get("cost_usd"), _MOST_USD)
    known = so_far.cost_micro
    if cost is not None:
        # By way of its shortest text: the binary value of 0.41 is not 0.41.
        micro = int((Decimal(str(cost)) * _MICRO).quantize(Decimal(1), ROUND_HALF_UP))
        known = (known or 0) + micro
    return Usage(
        input_tokens=so_far.input_tokens + int(_number(said.get("input_tokens"), _MOST_TOKENS) or 0),
        output_tokens=so_far.output_tokens + int(_number(said.get("output_tokens"), _MOST_TOKENS) or 0),
        turns=so_far.turns + 1,
        cost_micro=known,
    )


def _number(value: object, most: int) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if 0 <= value <= most else None  # also false for NaN; an int of a thousand digits has no float
