"""Any program as an engine: `engine: {use: command, argv: [...]}`.

It runs in the worktree with the brief on its stdin. It may print JSON lines; everything else that it prints is only
logged:

    {"type": "usage", "input_tokens": 1200, "output_tokens": 300, "cost_usd": 0.004}
    {"type": "message", "text": "..."}
    {"type": "rate_limited", "until": 1790000000}  {"type": "overloaded"}  {"type": "billing"}  {"type": "auth"}
    {"type": "window", "name": "five_hour", "utilization": 0.93, "resets_at": 1790000000}

A usage line says what was used since the one before it: the lines are added up, and each counts as one turn. A number
that is negative, not finite, absurdly large or not a number at all is passed over, the rest of its line is not. A line
without `cost_usd` is priced by its tokens: `model` names the model, `input_tokens` is all input, `cache_read_tokens`
and `cache_write_tokens` are the part of it that came from or went into a cache. Its exit status is its verdict: zero is
a success.
"""

from __future__ import annotations

import json
import os
import shutil
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from watchbill.engines.base import (
    Conversation,
    Event,
    Filled,
    Launch,
    Program,
    Silent,
    Task,
    Tokens,
    Transcript,
    Usage,
)
from watchbill.errors import Fixable
from watchbill.isolation.base import program_path

name = "command"
has_budget = False
#: We cannot know what a request of an unknown program costs; its meter stops it after the one that reaches the cap.
headroom_micro = 0
unmetered_basis = "ceiling"
silence_s: float | None = None
logins: tuple[str, ...] = ()
guides: tuple[str, ...] = ()
variables: tuple[str, ...] = ()
endpoint: str | None = None

_MICRO = 1_000_000
_MOST_TOKENS = 10**10
_MOST_IN_ALL = 10**15
_MOST_USD = 10**5
_MOST_EPOCH = 10**11  # beyond: milliseconds, or nonsense
_MOST_TEXT = 8000
_MOST_MODELS = 16


def launch(task: Task) -> Launch:
    """Fixable WB-ENGINE-03 for an argv that is none, WB-ENGINE-01 when there is no such program."""
    argv = task.options.get("argv")
    words = tuple(argv) if isinstance(argv, (list, tuple)) else ()
    if not words or not words[0] or not all(isinstance(word, str) for word in words):
        raise Fixable("WB-ENGINE-03", "engine command: argv is not a list of words",
                      why=f"it is {argv!r}", fix="engine: {use: command, argv: [program, argument, ...]}")  # fmt: skip
    program = find_program(words[0], task)
    return Launch((program, *words[1:]), {}, as_bytes(task.brief))


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
    if kind in ("rate_limited", "overloaded", "billing", "auth"):
        until = number(said.get("until"), _MOST_EPOCH)
        return Event(kind, until=None if until is None else int(until))
    if kind == "window":
        return _window(said)
    return None


def program(task: Task) -> Program | None:  # noqa: ARG001 - whichever the operator names
    return None


def transcript(home: str) -> Transcript:  # noqa: ARG001 - a program that we do not know keeps none that we could read
    return Silent()


def session(home: str) -> Conversation | None:  # noqa: ARG001
    return None


def _window(said: dict[str, Any]) -> Event | None:
    name, used, resets_at = said.get("name"), number(said.get("utilization"), 1000), said.get("resets_at")
    reset = number(resets_at, _MOST_EPOCH)
    if not isinstance(name, str) or used is None or reset is None:
        return None
    return Event("window", windows=(Filled(name[:100], int(used * _MICRO), int(reset)),))


def succeeded(exit_status: int, final: Event | None) -> bool:  # noqa: ARG001 - there is no final event
    return exit_status == 0


def as_bytes(text: str) -> bytes:
    """As it was, where it came from bytes that were no UTF-8; half of a character becomes a question mark."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


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
    cost = number(said.get("cost_usd"), _MOST_USD)
    known = so_far.cost_micro
    if cost is not None:
        # By way of its shortest text: the binary value of 0.41 is not 0.41.
        micro = int((Decimal(str(cost)) * _MICRO).quantize(Decimal(1), ROUND_HALF_UP))
        known = (known or 0) + micro
    input, output, read, written = (int(number(said.get(f"{name}_tokens"), _MOST_TOKENS) or 0)
                                    for name in ("input", "output", "cache_read", "cache_write"))  # fmt: skip
    input = max(input, read + written)  # a program that counts them apart
    return so_far._replace(
        input_tokens=min(so_far.input_tokens + input, _MOST_IN_ALL),
        output_tokens=min(so_far.output_tokens + output, _MOST_IN_ALL),
        turns=so_far.turns + 1,
        cost_micro=None if known is None else min(known, _MOST_IN_ALL),
        unpriced=so_far.unpriced
        if cost is not None or not (input or output)
        else with_tokens(so_far.unpriced, said.get("model"), Tokens(input, output, read, written)),
    )


def with_tokens(
    sums: tuple[tuple[str | None, Tokens], ...], model: object, more: Tokens
) -> tuple[tuple[str | None, Tokens], ...]:
    """The sums by model with some more; a program that names a thousand models has one too many."""
    name = model[:200] if isinstance(model, str) and model else None
    by_model = dict(sums)
    if name not in by_model and len(by_model) >= _MOST_MODELS:
        name = None
    before = by_model.get(name, Tokens())
    by_model[name] = before.plus(more)
    return tuple(by_model.items())


def number(value: object, most: int) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if 0 <= value <= most else None  # also false for NaN; an int of a thousand digits has no float
