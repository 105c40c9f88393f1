"""The contract of an engine: how to start it, how to read what it says. `supervise.py` runs any of them the same way.

An engine is a module (or object) that satisfies `Engine`. It never spawns anything itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

#: Every way an engine run can end (DESIGN section 9). Only from structured fields, exit status and our own timers.
VERDICTS = (
    "ok",
    "max_turns",
    "budget",
    "rate_limited",
    "auth",
    "billing",
    "overloaded",
    "context",
    "refused",
    "interrupted",
    "timeout",
    "crash",
)


class Limits(NamedTuple):
    """When to stop a run. None: no such limit."""

    wall_s: float
    silence_s: float | None = None  # no byte on stdout or stderr for so long
    lingering_s: float = 20.0  # alive for so long after its final event
    turns: int | None = None
    tokens: int | None = None
    cost_micro: int | None = None  # micro-dollars


class Task(NamedTuple):
    """One run to be made."""

    firing: str  # id; also the marker in the environment of every child (WATCHBILL_FIRING)
    workdir: str  # the worktree; the only place, with `home` and `tmp`, that the engine may write
    brief: str  # the prompt, given on stdin
    home: str  # HOME of the engine: its own, empty, writable
    tmp: str  # TMPDIR of the engine: its own, empty, writable
    log: str  # raw stdout goes here, bounded
    model: str | None
    options: Mapping[str, Any]  # the agent's `engine:` map merged over the fleet's [engines.NAME]
    env: Mapping[str, str]  # what the operator added to the allow-list
    limits: Limits


class Launch(NamedTuple):
    """How to start the engine for a task."""

    argv: tuple[str, ...]
    env: Mapping[str, str]  # beyond the allow-list
    stdin: bytes


class Tokens(NamedTuple):
    """What a model was given and gave."""

    input: int = 0  # all of it, with what came from a cache and went into one
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0


class Usage(NamedTuple):
    """What a run used so far; sums, not deltas."""

    input_tokens: int = 0
    output_tokens: int = 0
    turns: int = 0
    cost_micro: int | None = None  # what the engine itself said in dollars; None: it never did
    unpriced: tuple[tuple[str | None, Tokens], ...] = ()  # by model: tokens that came without a figure in dollars

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    @property
    def measured(self) -> bool:
        """Whether the engine said anything at all of what it used."""
        return self.cost_micro is not None or self.tokens > 0


class Filled(NamedTuple):
    """How full a window of the account's subscription is, by the provider's account."""

    name: str  # five_hour, seven_day, ...
    used_ppm: int  # parts per million
    resets_at: int  # UTC epoch seconds


class Event(NamedTuple):
    """One thing an engine said, reduced to what the supervisor acts on."""

    #: usage | message | window | rate_limited | auth | billing | overloaded | context | refused | max_turns | budget |
    #: final
    kind: str
    usage: Usage | None = None  # the running total after this event
    text: str = ""
    until: int | None = None  # rate_limited: UTC epoch seconds of the provider's reset
    ok: bool | None = None  # final: did the engine call it a success
    window: Filled | None = None


class Engine(Protocol):
    """What an adapter provides."""

    name: str
    #: the engine can stop itself at a dollar cap; else the supervisor's meter does
    has_budget: bool
    #: what one more request can cost beyond a cap, in micro-dollars: the headroom that a reservation adds
    headroom_micro: int
    #: what a run costs that reported no usage at all: "free" (nothing can be spent) or "ceiling" (the fleet's policy
    #: for what was not measured decides)
    unmetered_basis: str

    def launch(self, task: Task) -> Launch:
        """Raises errors.Fixable when the program is missing or cannot be used."""

    def transcript(self, home: str) -> Usage | None:
        """What the files say that the engine keeps below its HOME, for a run that says little on stdout or was killed;
        None when it keeps none. Asked about once a second: to be read in bounded time."""

    def read(self, line: bytes, so_far: Usage) -> Event | None:
        """One line of stdout. Unknown or malformed lines are None, never an error."""

    def succeeded(self, exit_status: int, final: Event | None) -> bool:
        """Whether a run that ended by itself was a success by the engine's own account."""


class Result(NamedTuple):
    """How a run ended."""

    verdict: str  # one of VERDICTS
    limit: str | None  # timeout: wall | silence | lingering
    exit_status: int | None  # negative: the signal
    usage: Usage
    cost_micro: int
    basis: str  # engine | priced | ceiling | free | stream | transcript | reservation | unmeasured
    until: int | None  # rate_limited
    stopped_by: str | None  # what `beat` answered when it asked to stop
    strays: int  # processes that had to be swept
    message: str  # the engine's last message, bounded; for people, never decided from
    stderr_tail: str
    log: str  # path of the raw stdout
    isolation: str  # which layer held: bwrap | landlock | none
    duration_s: float
    windows: tuple[Filled, ...] = ()  # the last word on each window of the subscription
