"""Run one program under limits, hear what it says, and leave nothing of it behind.

`run` runs an engine, `run_check` a check of the repository; both the same way. The program gets an environment from an
allow-list, a session of its own, and its brief on stdin, written only as fast as it reads. It is stopped at the first
limit it meets: SIGINT, so that an engine can still say what it spent, then SIGTERM, then SIGKILL; and then whatever it
started is swept, whether it ended by itself, was stopped, or an exception passes through here.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from watchbill.clock import Clock
from watchbill.engines import bill
from watchbill.engines.base import TROUBLE, Engine, Event, Filled, Limits, Result, Task, Usage
from watchbill.engines.bill import Bill, Tariff
from watchbill.engines.child import Child
from watchbill.engines.keeper import MARKER
from watchbill.engines.stream import Lines, Log
from watchbill.engines.watch import LADDER, Beat, Deaf, Stop, Watch
from watchbill.isolation.base import Isolation, Jail, program_path

__all__ = ["LADDER", "MARKER", "Beat", "CheckRun", "Heard", "environment", "run", "run_check"]

_MESSAGE = 4000
_MOST_WINDOWS = 16
_LOOK_S = 0.1  # between two looks at its files
_MOST_BILLED = 64
_TURNED_AWAY = ("rate_limited", "billing", "overloaded", "auth")


class Heard(NamedTuple):
    """What an engine has said so far."""

    usage: Usage
    bill: Bill | None  # None: nothing measured yet
    answered: bool  # its model has answered: it is neither limited nor refused
    windows: tuple[Filled, ...]  # the last word on each


class CheckRun(NamedTuple):
    """How a check ended."""

    exit_status: int  # negative: the signal; under bwrap 128 + the signal; -9 when it could not even be killed
    limit: str | None  # wall, when it was stopped for that
    stopped_by: str | None  # what `beat` answered when it asked to stop
    duration_s: float
    output_tail: str  # the last 16 KiB of stdout and stderr together
    log: str  # path of the whole output, bounded
    strays: int  # processes that had to be swept
    isolation: str  # which layer held: bwrap | landlock | none


def run(
    engine: Engine,
    task: Task,
    isolation: Isolation,
    jail: Jail,
    clock: Clock,
    beat: Callable[[Heard], str | None],
    tariff: Tariff,
    *,
    ladder: tuple[float, float] = LADDER,
) -> Result:
    """Run an engine for a task; `task.log` holds its raw stdout afterwards.

    The verdict is, in this order: what we stopped it for; the last trouble it reported in a structured event (the
    latest reset time of several), unless it was answered since and ended well; its exit status and final event, by the
    engine's own account; else crash.

    What it costs is for `bill` to say. `beat` is asked about once a second, and told what was heard so far; where the
    engine keeps a transcript, what that says counts as heard: who keeps it is the one who is metered by it, so it
    can add to what the stream says and never takes anything off.

    A run that reaches its cap in tokens or dollars is stopped there, one that goes past its turns likewise; not by its
    final event, after which nothing more is spent. Fixable when the program is missing or cannot be started. An
    exception of `beat` passes through once the program is stopped and swept.
    """
    launch = engine.launch(task)
    ear = _Ear(engine, task, tariff, clock)

    def asked() -> str | None:
        ear.read_transcript()
        return beat(ear.heard())

    env = environment(task.firing, task.home, task.tmp, {**task.env, **launch.env})
    with _files(task.home, launch.files), Log(task.log) as log:
        child = _start(isolation, jail, launch.argv, env, merged=False, pipes=launch.pipes)
        watch = Watch(child, launch.stdin, log, ear, clock, ladder)
        stop = watch.until_gone(task.limits, asked)
    ear.read_transcript()
    charged = bill.final(engine, ear.usage, tariff, cut_short=stop is not None and ear.working, plan=launch.plan)
    verdict = _verdict(engine, stop, ear, child.exit_status)
    return Result(
        verdict=verdict,
        limit=stop.limit if stop else None,
        exit_status=child.exit_status,
        usage=ear.usage,
        cost_micro=charged.micro,
        basis=charged.basis,
        until=ear.until if verdict in _TURNED_AWAY else None,
        stopped_by=stop.by if stop else None,
        strays=watch.strays,
        message=ear.message,
        stderr_tail=watch.stderr.text(),
        log=task.log,
        isolation=isolation.name,
        duration_s=watch.duration_s,
        windows=ear.heard().windows,
    )


def run_check(
    argv: tuple[str, ...],
    *,
    firing: str,
    home: str,
    tmp: str,
    log: str,
    wall_s: float,
    isolation: Isolation,
    jail: Jail,
    clock: Clock,
    beat: Beat,
    env: Mapping[str, str] | None = None,
    ladder: tuple[float, float] = LADDER,
) -> CheckRun:
    """Run a check in `jail.workdir`: the same environment list, deadline, ladder and sweep, and no protocol.

    Its stdin is empty; stdout and stderr go to `log` in the order they were written. `home` and `tmp` are its HOME and
    TMPDIR. Fixable when the program cannot be started.
    """
    ear = Deaf()
    with Log(log) as file:
        child = _start(isolation, jail, argv, environment(firing, home, tmp, env or {}), merged=True)
        watch = Watch(child, b"", file, ear, clock, ladder)
        stop = watch.until_gone(Limits(wall_s), beat)
    status = -9 if child.exit_status is None else child.exit_status
    limit, by = (stop.limit, stop.by) if stop else (None, None)
    return CheckRun(status, limit, by, watch.duration_s, ear.tail.text(), log, watch.strays, isolation.name)


def environment(
    firing: str, home: str, tmp: str, more: Mapping[str, str], runner: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """All that a program is told of the world: nothing of the operator's but language, time zone, name and PATH."""
    kept = {name: value for name, value in runner.items() if name in ("LANG", "TZ", "USER", "LOGNAME")
            or name.startswith("LC_")}  # fmt: skip
    return {
        **kept,
        "PATH": program_path(runner),
        "TERM": "dumb",
        "HOME": home,
        "TMPDIR": tmp,
        "XDG_CONFIG_HOME": os.path.join(home, ".config"),
        "XDG_CACHE_HOME": os.path.join(home, ".cache"),
        "XDG_DATA_HOME": os.path.join(home, ".local", "share"),
        "XDG_STATE_HOME": os.path.join(home, ".local", "state"),
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        **{name: str(value) for name, value in more.items()},
        MARKER: firing,
    }


@contextlib.contextmanager
def _files(home: str, files: Mapping[str, bytes]) -> Iterator[None]:
    """What an engine finds below its HOME; gone when it has: a credential is in no worktree that is kept.

    Nothing has run there yet that could have laid a link in the way; afterwards something may have, and a name is
    removed and never what it points to.
    """
    paths = {os.path.join(home, name): content for name, content in files.items()}
    try:
        for path, content in paths.items():
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
                file.write(content)
        yield
    finally:
        for path in paths:
            with contextlib.suppress(OSError):
                os.unlink(path)


def _start(
    isolation: Isolation,
    jail: Jail,
    argv: tuple[str, ...],
    env: dict[str, str],
    *,
    merged: bool,
    pipes: Mapping[str, bytes] = MappingProxyType({}),
) -> Child:
    for path in (env["HOME"], env["TMPDIR"]):
        os.makedirs(path, mode=0o700, exist_ok=True)
    wrapped = isolation.wrap(jail, argv)
    return Child(wrapped, jail.workdir, env, monitored=isolation.monitored, merged=merged, pipes=pipes)


class _Ear:
    """What an engine has said, and whether that is a reason to stop it."""

    def __init__(self, engine: Engine, task: Task, tariff: Tariff, clock: Clock) -> None:
        self._until = clock.now() + task.limits.wall_s  # when its time is over, UTC epoch seconds
        self._clock = clock
        self._look_at = 0.0  # when its files are to be read again
        self._before = task.session.before if task.session else Usage()
        self._said = Usage(before=bill.total(self._before))  # on stdout
        self._written = Usage()  # below its HOME
        self._transcript = engine.transcript(task.home)
        if task.session:
            bill.read_whole(self._transcript)  # what it says of an earlier run is no news
        self._billed: dict[Usage, Bill | None] = {}  # pricing takes its time, and lines come by the thousand
        self.answered = False
        self.final: Event | None = None
        self.working = True  # nothing final was said, or something else after it
        self.trouble: str | None = None
        self._recovered = False  # something was heard since
        self.until: int | None = None
        self.message = ""
        self._engine = engine
        self._meter = _Meter(task.limits, engine.has_budget)
        self._tariff = tariff
        self._windows: dict[str, Filled] = {}
        self._lines = Lines()
        self._stop: Stop | None = None

    @property
    def usage(self) -> Usage:
        """The fuller account of the two; once the engine has said its last word in dollars, that is the account."""
        return bill.fuller(self._said, self._written, self._priced, working=self.working)

    @property
    def bill(self) -> Bill | None:
        return self._priced(self.usage)

    def _priced(self, usage: Usage) -> Bill | None:
        if usage not in self._billed:
            if len(self._billed) > _MOST_BILLED:
                self._billed.clear()
            self._billed[usage] = bill.so_far(usage, self._tariff)
        return self._billed[usage]

    def feed(self, chunk: bytes) -> None:
        for line in self._lines.feed(chunk):
            self._hear_line(line)
        self._look()

    def end(self) -> None:
        for line in self._lines.rest():
            self._hear_line(line)
        self._look()

    def _look(self) -> None:
        """Whether what was used by now is a reason to stop; after a final event nothing more is."""
        if self._stop is None and self.working:
            self._stop = self._meter.spent_up(self.usage, self.bill)

    def stop(self) -> Stop | None:
        if self._stop is None and self._clock.elapsed() >= self._look_at:
            self.read_transcript()
        return self._stop

    def heard(self) -> Heard:
        return Heard(self.usage, self.bill, self.answered, tuple(self._windows.values()))

    @property
    def limited(self) -> str | None:
        """What the provider turned it away for, unless it went on since."""
        return self.trouble if self.trouble in _TURNED_AWAY and not self._recovered else None

    def read_transcript(self) -> None:
        """Where the stream says less than the files."""
        self._look_at = self._clock.elapsed() + _LOOK_S
        try:
            events = self._transcript.look()
        except (OSError, ValueError):  # being written just now
            return
        for event in events:
            if event.usage is not None:
                written = bill.less(event.usage, self._before)
                if written.tokens > self._written.tokens:
                    self._written = written
                    self._went_on()
            self._heed(event._replace(usage=None, text=""))
        self._look()

    def _went_on(self) -> None:
        self.answered = self._recovered = True

    def _hear_line(self, line: bytes) -> None:
        event = self._engine.read(line, self._said)
        if event is None:
            return
        self.message = event.text[:_MESSAGE] or self.message
        self.working = event.kind != "final"
        if event.kind == "final":
            self.final = event
            self.answered = self.answered or bool(event.ok)
        if event.usage is not None:
            if (event.usage.tokens, event.usage.cost_micro or 0) > (self._said.tokens, self._said.cost_micro or 0):
                self._went_on()  # and not by the nothing that a refused run is charged
            self._said = event.usage
        self._heed(event)

    def _heed(self, event: Event) -> None:
        """Trouble and windows, whoever told of them: the stream or the files."""
        for window in event.windows:
            if window.name in self._windows or len(self._windows) < _MOST_WINDOWS:
                self._windows[window.name] = window
        trouble = event.kind if event.kind in TROUBLE else event.trouble
        if trouble in TROUBLE:
            self.trouble, self._recovered = trouble, False
        if event.until is not None:
            self.until = max(event.until, self.until or 0)
        if self._stop is None:
            self._stop = self._reason(event)

    def _reason(self, event: Event) -> Stop | None:
        if event.kind == "auth":
            return Stop("auth")  # some retry for minutes with the same refused key
        if event.kind == "rate_limited" and event.until and event.until > self._until:
            return Stop("rate_limited")  # it could only wait, and be ended waiting
        return None


class _Meter:
    """Whether what a run has used is a reason to stop it.

    Whoever is metered has begun its next request by the time the last one's figures are seen. So it is stopped when that
    one could take it past its cap, if it is as large as the largest so far: a cap is passed by one request at most. An
    engine that stops itself looks between its requests, and is stopped by us only when it does not.
    """

    def __init__(self, limits: Limits, has_budget: bool) -> None:
        self._limits = limits
        self._stops_itself = has_budget
        self._spent = _Largest()
        self._tokens = _Largest()

    def spent_up(self, used: Usage, charged: Bill | None) -> Stop | None:
        limits = self._limits
        spent = self._spent.up_to(charged.micro if charged else 0)
        most = None if limits.cost_micro is None else limits.cost_micro + (2 * spent if self._stops_itself else 0)
        if most is not None and charged is not None and (charged.micro >= most or charged.micro + spent > most):
            return Stop("budget")
        tokens = self._tokens.up_to(used.tokens)
        if limits.tokens is not None and (used.tokens >= limits.tokens or used.tokens + tokens > limits.tokens):
            return Stop("budget")
        if limits.turns is not None and used.turns > limits.turns:
            return Stop("max_turns")
        return None


class _Largest:
    """The largest step of a sum that grows."""

    def __init__(self) -> None:
        self._sum = self._step = 0

    def up_to(self, sum: int) -> int:
        self._step, self._sum = max(self._step, sum - self._sum), sum
        return self._step


def _verdict(engine: Engine, stop: Stop | None, ear: _Ear, exit_status: int | None) -> str:
    if stop is not None:  # who is limited and waits for it to end runs into a limit of ours
        return ear.limited if ear.limited is not None and stop.verdict == "timeout" else stop.verdict
    done = exit_status is not None and engine.succeeded(exit_status, ear.final)
    if ear.trouble is not None and not (done and ear.trouble in _TURNED_AWAY and ear.limited is None):
        return ear.trouble
    return "ok" if done else "crash"
