"""An engine that plays a script, for demonstrations and tests: no model, no account, everything else as it is.

`engine: {use: scripted, script: PATH}` names a JSON file with a list of steps, `steps: [...]` has them inline. A step:

    {"write": {"path", "content"}}  {"append": {"path", "content"}}  {"replace": {"path", "old", "new"}}
    {"delete": "path"}  {"sleep": seconds}  {"run": "shell text"}  {"exit": status}
    {"usage": {...}}  {"message": "text"}  {"rate_limited": epoch}  {"say": {...}}

`say` is a line of the protocol of `command`, whichever.

Paths are relative to the worktree. A step that fails (a `replace` whose old text is not there, a `run` that does not
end with zero) ends the script with that status. The script runs in a process of its own, confined, metered and stopped
like any other; it reads the steps from the first line of its stdin, the brief comes after it.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from watchbill.engines.base import Launch, Task
from watchbill.engines.command import (
    as_bytes,
    endpoint,
    guides,
    logins,
    program,
    read,
    session,
    silence_s,
    succeeded,
    transcript,
    variables,
)
from watchbill.errors import Fixable

__all__ = [
    "endpoint",
    "guides",
    "has_budget",
    "headroom_micro",
    "launch",
    "logins",
    "name",
    "program",
    "read",
    "session",
    "silence_s",
    "succeeded",
    "transcript",
    "unmetered_basis",
    "variables",
]

name = "scripted"
has_budget = False
headroom_micro = 0
#: Nothing is spent that the script does not say.
unmetered_basis = "free"

_STEPS = ("write", "append", "replace", "delete", "sleep", "run", "exit", "usage", "message", "rate_limited", "say")


def launch(task: Task) -> Launch:
    """Fixable WB-ENGINE-04 when there is no script, or it is not one."""
    steps = _steps(task)
    for number, step in enumerate(steps, 1):
        if not isinstance(step, dict) or len(step) != 1 or next(iter(step)) not in _STEPS:
            raise _wrong(f"step {number} is {step!r}", f"each step is an object with one of {', '.join(_STEPS)}")
    player = os.path.join(os.path.dirname(os.path.abspath(__file__)), "player.py")
    given = json.dumps(steps).encode("ascii") + b"\n" + as_bytes(task.brief)
    return Launch((sys.executable, "-I", "-S", player), {}, given)


def _steps(task: Task) -> list[Any]:
    steps = task.options.get("steps")
    path = task.options.get("script")
    if steps is None and isinstance(path, str):
        try:
            with open(os.path.expanduser(path), encoding="utf-8") as file:
                steps = json.load(file)
        except (OSError, ValueError) as error:
            raise _wrong(f"{path}: {error}", "give the path of a JSON file with a list of steps") from None
    if not isinstance(steps, list):
        raise _wrong(f"steps are {steps!r}", "engine: {use: scripted, script: PATH}, or steps: [...]")
    return steps


def _wrong(why: str, fix: str) -> Fixable:
    return Fixable("WB-ENGINE-04", "engine scripted: there is no script to play", why=why, fix=fix)
