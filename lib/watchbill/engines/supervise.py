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
from watchbill.engines.base import TURNED_AWAY, Engine, Limits, Result, Task
from watchbill.engines.bill import Bill, Tariff
from watchbill.engines.child import Child
from watchbill.engines.keeper import MARKER
from watchbill.engines.listener import REFUSED, Heard, Listener
from watchbill.engines.stream import Log
from watchbill.engines.transcripts import folder
from watchbill.engines.watch import LADDER, Beat, Deaf, Stop, Watch
from watchbill.isolation.base import Isolation, Jail, program_path

__all__ = ["LADDER", "MARKER", "Beat", "CheckRun", "Heard", "environment", "run", "run_check"]


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
    ear = Listener(engine, task, tariff, clock)

    def asked() -> str | None:
        ear.read_transcript()
        return beat(ear.heard())

    env = environment(task.firing, task.home, task.tmp, {**task.env, **launch.env})
    with _files(task.home, launch.files), Log(task.log) as log:
        child = _start(isolation, jail, launch.argv, env, merged=False, pipes=launch.pipes, sealed=launch.sealed)
        watch = Watch(child, launch.stdin, log, ear, clock, ladder)
        stop = watch.until_gone(task.limits, asked)
    ear.read_rest()
    verdict = _verdict(engine, stop, ear, child.exit_status)
    charged = _charged(engine, tariff, launch.plan, ear, stop, verdict)
    return Result(
        verdict=verdict,
        limit=stop.limit if stop else None,
        exit_status=child.exit_status,
        usage=ear.usage,
        cost_micro=charged.micro,
        basis=charged.basis,
        until=ear.until if verdict in TURNED_AWAY else None,
        stopped_by=stop.by if stop else None,
        strays=watch.strays,
        message=ear.message,
        stderr_tail=watch.stderr.text(),
        log=task.log,
        isolation=isolation.name,
        duration_s=watch.duration_s,
        windows=ear.heard().windows,
    )


def _charged(engine: Engine, tariff: Tariff, plan: bool, ear: Listener, stop: Stop | None, verdict: str) -> Bill:
    refused = verdict in REFUSED
    return bill.final(
        engine,
        ear.bill,
        tariff,
        cut_short=stop is not None and ear.working and not refused,
        unseen=ear.unseen if ear.blind else 0,
        plan=plan,
        unanswered=ear.reads_files and refused,
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

    Nothing has run there yet that could have laid a link in the way; afterwards something may have, and the way there
    is gone without following any.
    """
    try:
        for name, content in files.items():
            path = os.path.join(home, name)
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
                file.write(content)
        yield
    finally:
        for name in files:
            above, _, last = name.rpartition("/")
            with contextlib.suppress(OSError), folder(home, above) as within:
                os.unlink(last, dir_fd=within)


def _start(
    isolation: Isolation,
    jail: Jail,
    argv: tuple[str, ...],
    env: dict[str, str],
    *,
    merged: bool,
    pipes: Mapping[str, bytes] = MappingProxyType({}),
    sealed: bool = False,
) -> Child:
    for path in (env["HOME"], env["TMPDIR"]):
        os.makedirs(path, mode=0o700, exist_ok=True)
    wrapped = isolation.wrap(jail, argv)
    return Child(wrapped, jail.workdir, env, monitored=isolation.monitored, merged=merged, pipes=pipes, sealed=sealed)


def _verdict(engine: Engine, stop: Stop | None, ear: Listener, exit_status: int | None) -> str:
    if stop is not None:  # who is limited and waits for it to end runs into a limit of ours
        return ear.limited if ear.limited is not None and stop.verdict == "timeout" else stop.verdict
    done = exit_status is not None and engine.succeeded(exit_status, ear.final)
    if ear.trouble is not None and not (done and ear.trouble in TURNED_AWAY and ear.limited is None):
        return ear.trouble
    return "ok" if done else "crash"
