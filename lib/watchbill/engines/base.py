"""The contract of an engine: how to start it, how to read what it says. `supervise.py` runs any of them the same way.

An engine is a module (or object) that satisfies `Engine`. It never spawns anything itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
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


class Tokens(NamedTuple):
    """What a model was given and gave."""

    input: int = 0  # all of it, with what came from a cache and went into one
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    #: no request among them had more input than this; 0: they are priced as if they were one. Some models are dearer
    #: from a length of context on, so an adapter that knows its requests counts the long ones apart.
    request: int = 0

    def plus(self, more: Tokens) -> Tokens:
        return Tokens(*(a + b for a, b in zip(self[:4], more[:4], strict=True)))._replace(request=self.request)

    def less(self, off: Tokens) -> Tokens:
        """Without these, and never below nothing."""
        left = (max(0, have - gone) for have, gone in zip(self[:4], off[:4], strict=True))
        return Tokens(*left)._replace(request=self.request)


class Usage(NamedTuple):
    """What a run used so far; sums, not deltas."""

    input_tokens: int = 0
    output_tokens: int = 0
    turns: int = 0
    cost_micro: int | None = None  # what the engine itself said in dollars; None: it never did
    unpriced: tuple[tuple[str | None, Tokens], ...] = ()  # by model: tokens that came without a figure in dollars
    before: Tokens = Tokens()  # see Session: an engine that counts over the whole conversation takes it off

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    @property
    def measured(self) -> bool:
        """Whether the engine said anything at all of what it used."""
        return self.cost_micro is not None or self.tokens > 0


class Session(NamedTuple):
    """A conversation of an earlier run, which this one goes on with; its file lies below the engine's HOME again."""

    id: str  # the engine's own name for it
    before: Usage  # what it had used by then, as the engine's own files say


class Conversation(NamedTuple):
    """Where an engine keeps a conversation that it could go on with."""

    id: str
    path: str  # relative to its HOME


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
    key: str | None = None  # its credential: a key, a token, or what one of the engine's `logins` holds
    tools: tuple[str, ...] = ()  # what the agent's file lets it use, in claude's names; empty: as the adapter thinks
    guidance: str = ""  # what the repository tells agents (CLAUDE.md, AGENTS.md), as the trusted base has it
    session: Session | None = None  # to be gone on with
    layer: str = "none"  # which layer of isolation it runs in: bwrap | landlock | none
    rw: tuple[str, ...] = ()  # further places that the operator lets it write, such as a package cache
    sandbox: bool = False  # nothing of ours confines it: it is to confine its tools itself, where it can


class Launch(NamedTuple):
    """How to start the engine for a task."""

    argv: tuple[str, ...]
    env: Mapping[str, str]  # beyond the allow-list
    stdin: bytes
    #: environment variable -> what the program reads, once, from the file descriptor that the variable names: for a
    #: key that is to be in no environment and no file. At most 16 KiB each.
    pipes: Mapping[str, bytes] = MappingProxyType({})
    #: path relative to its HOME -> content; written, readable for us alone, before it starts
    files: Mapping[str, bytes] = MappingProxyType({})
    #: nobody but the program itself may write to its stdout: a tool of it could speak for it by /proc/PID/fd/1. Then
    #: /dev/stdout cannot be opened, which programs that are a shell script may want to do
    sealed: bool = False
    #: it draws on a subscription: what it says in dollars is a list price that nobody pays
    plan: bool = False


class Program(NamedTuple):
    """A program whose version matters."""

    path: str  # absolute
    asks: tuple[str, ...]  # what makes it tell its version: ("--version",)
    least: tuple[int, ...]  # the oldest version that the adapter speaks with
    below: tuple[int, ...]  # the first that it does not


class Filled(NamedTuple):
    """How full a window of the account's subscription is, by the provider's account."""

    name: str  # five_hour, seven_day, ...
    used_ppm: int  # parts per million
    resets_at: int  # UTC epoch seconds


class Event(NamedTuple):
    """One thing an engine said, reduced to what the supervisor acts on."""

    #: usage | message | window | final | one of TROUBLE
    kind: str
    usage: Usage | None = None  # the running total after this event
    text: str = ""
    until: int | None = None  # rate_limited: UTC epoch seconds of the provider's reset
    ok: bool | None = None  # final: did the engine call it a success
    trouble: str | None = None  # final: which of TROUBLE it ended with
    windows: tuple[Filled, ...] = ()
    #: which request of its model this came of, or followed; by that is seen whether its files still tell of them all
    request: str = ""


#: What an engine can tell of its own trouble.
TROUBLE = ("rate_limited", "auth", "billing", "overloaded", "context", "refused", "max_turns", "budget")


#: Trouble that the provider makes: nobody else's run will fare better.
TURNED_AWAY = ("rate_limited", "billing", "overloaded", "auth")


class Transcript(Protocol):
    """What an engine writes below its HOME while it runs; a session that remembers how far it has read."""

    def look(self) -> tuple[Event, ...]:
        """What was written since the last look, as events; none only when that was nothing. The usage in them is the
        total of all that was read, with what was there before the run. In bounded time. Raises OSError or ValueError
        where it cannot be read just now.
        """


class Silent:
    """The transcript of an engine that keeps none."""

    def look(self) -> tuple[Event, ...]:
        return ()


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
    #: seconds without a byte after which it hangs, unless the operator says otherwise; longer than its longest tool
    silence_s: float | None
    #: secret references (see `secrets.resolve`) to where its own login lies on this host, tried in this order when the
    #: operator names no `key`; each a JSON object
    logins: tuple[str, ...]
    #: files of a repository in which it speaks to agents, the first that is there counts: shut off where the engine
    #: would read them from the worktree, and given as `Task.guidance`
    guides: tuple[str, ...]
    #: environment variables in which people keep a key for it, and the one that names another server: what `try` and
    #: `demo`, which are a person's own doing, take over from a shell
    variables: tuple[str, ...]
    endpoint: str | None

    def launch(self, task: Task) -> Launch:
        """Raises errors.Fixable when the program is missing, cannot be used, or has no credential (unauthorized)."""

    def program(self, task: Task) -> Program | None:
        """The program whose version is to be asked before it is used; None when any will do. Fixable as `launch`."""

    def transcript(self, home: str) -> Transcript:
        """What it writes below its HOME, for a run that says little on stdout or was killed."""

    def session(self, home: str) -> Conversation | None:
        """The conversation that lies below its HOME, when it could go on with it."""

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
    basis: str  # engine | notional | priced | ceiling | free | stream | transcript | reservation | unmeasured
    until: int | None  # rate_limited
    stopped_by: str | None  # what `beat` answered when it asked to stop
    strays: int  # processes that had to be swept
    message: str  # the engine's last message, bounded; for people, never decided from
    stderr_tail: str
    log: str  # path of the raw stdout
    isolation: str  # which layer held: bwrap | landlock | none
    duration_s: float
    windows: tuple[Filled, ...] = ()  # the last word on each window of the subscription
