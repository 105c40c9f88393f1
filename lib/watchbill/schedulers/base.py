"""What a scheduler of the operating system is for us: it starts a role script when an agent's schedule says so.

An adapter is a module with the members of `Scheduler`, in `schedulers.SCHEDULERS`. It renders an agent's `Unit` to
files, brings them to the system and takes them away, and says what the system knows. What is wanted, what was applied
and what lies on disk is compared in one place (`schedulers/applying.py`), for all alike.

Exit statuses of a scheduler's own program are never believed: after every change the system is asked again
(launchctl answers 0 for what failed, and 5 for what is already so).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from watchbill.compiled import Compiled
from watchbill.errors import Fixable
from watchbill.home import Home
from watchbill.schedulers.schedule import Schedule


class Unit(NamedTuple):
    """One agent's timer and what it starts, whichever system keeps it."""

    agent: str
    name: str  # watchbill-bosun: what launchctl and systemctl call it
    description: str  # "Watchbill: bosun (implement), every 20m"
    home: str  # whose it is: the fleet's directory, absolute
    argv: tuple[str, ...]  # absolute program and its words; never a shell
    directory: str
    environment: tuple[tuple[str, str], ...]  # PATH, HOME, ...: never a secret, both systems show it to everybody
    log: str  # stdout and stderr are appended to it
    deadline_s: int  # after so long the scheduler may end it; the runner ends itself before that
    gates: tuple[str, ...]  # files: while one of them is there it is not started
    schedule: Schedule  # shifted already; no entry and no interval: started by hand only
    delay_s: int  # it may start so much later, always by the same: so that agents of one minute share it out


class File(NamedTuple):
    """One file of a unit."""

    path: str  # absolute
    content: bytes


class Loaded(NamedTuple):
    """What the system says of a unit. Only what it was asked for: nothing of this is remembered."""

    known: bool = False  # it has it loaded
    path: str | None = None  # from where, as far as it tells
    armed: bool = False  # it will fire: by its timer, or its calendar
    running: bool = False  # a firing that it started is at work
    stale: bool = False  # what is loaded is not what lies on disk
    paused: str | None = None  # how somebody paused it behind our back: "timer stopped", "disabled", "booted out", ...
    next: int | None = None  # when it fires next, UTC epoch seconds, as far as the system tells
    last: int | None = None  # when it fired last, the same
    why: str | None = None  # what else is wrong with it, in words: "bad setting", "203/EXEC: ..."


class Change(NamedTuple):
    """What is to become of one agent's unit."""

    unit: Unit
    before: tuple[File, ...]  # what lies on disk of it now, to go back to
    after: tuple[File, ...]
    arm: bool  # False: somebody paused it behind our back, and it stays so


class Failed(NamedTuple):
    """A change that was taken back."""

    agent: str
    what: str  # one sentence


class Deferred(NamedTuple):
    """A change that waits for a firing to end: it would have been killed."""

    agent: str
    what: str


#: How a change ended; None: done and verified.
Outcome = Failed | Deferred | None
#: A line for the person who waits.
Say = Callable[[str], None]


class Scheduler(Protocol):
    """A port."""

    name: str  # systemd | launchd | loop

    def unavailable(self) -> Fixable | None:
        """Why nothing can be scheduled with it here and now."""

    def files(self, unit: Unit) -> tuple[File, ...]:
        """A unit's files, header included: the same bytes for the same unit. Fixable: this system cannot be told it."""

    def timezone(self) -> str | None:
        """The zone that its calendar goes by, as TZ says it; None: the host's own."""

    def extras(self, home: Home, roster: Compiled) -> Mapping[str, Unit]:
        """Units that a home needs with this system and that are no agent's: named with a dot, as no agent is."""

    def found(self, prefix: str) -> tuple[File, ...]:
        """Every file whose name begins so, where this system looks for units: also what nobody remembers applying."""

    def look(self, names: Sequence[str]) -> Mapping[str, Loaded]:
        """What it knows of these units; all of them in a few questions, however many. Fixable: it does not answer."""

    def install(self, changes: Sequence[Change], say: Say) -> Mapping[str, Outcome]:
        """Bring them to the system, by agent: write, reload once, arm, verify; what fails is as it was before.

        No firing that runs is touched.
        """

    def remove(self, names: Sequence[str], files: Sequence[File], say: Say) -> Mapping[str, Outcome]:
        """Take these units away, by name: disarm, delete the files, forget; no link, stamp or override stays."""

    def arm(self, name: str, files: Sequence[File]) -> Outcome:
        """Undo whatever keeps an installed unit from firing by itself: what `resume` does."""

    def once(self, unit: Unit, timeout_s: float) -> int | None:
        """Start something now, as the system starts firings, and wait for it; its exit status, None: it did not end.

        For `doctor`: nothing of it stays.
        """
