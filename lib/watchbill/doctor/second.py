"""The second column: the checks as the scheduler runs a firing, in a unit of its own that goes away again."""

from __future__ import annotations

import contextlib
import json
import os
import secrets as randomness
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import NamedTuple

from watchbill import process
from watchbill.compiled import Compiled
from watchbill.doctor.columns import COLUMN_S, Column
from watchbill.doctor.finding import Finding, shell_of
from watchbill.errors import Fixable
from watchbill.home import Home
from watchbill.schedulers import registry, units
from watchbill.schedulers.base import Unit
from watchbill.schedulers.schedule import Schedule

#: A file of a doctor who was killed is tidied away by one who comes so much later.
_STALE_S = 3600


class Seen(NamedTuple):
    """The second column, and how it came about."""

    column: Column | None  # None: there is none
    name: str | None  # systemd | launchd | loop
    how: str  # unit | imitated | none
    why: str | None  # it is imitated, or there is none


def by_scheduler(home: Home, roster: Compiled | None) -> Seen:
    """The checks in a unit of the scheduler's own; where there is no scheduler, in an environment like a unit's."""
    if roster is None:
        return Seen(None, None, "none", "there is no roster whose firings could be imitated")
    scheduler = registry.chosen(roster.fleet.timers.use)
    problem = scheduler.unavailable()
    made = not os.path.isdir(home.units)
    try:
        with _answers(home) as answers:
            unit = _unit(home, roster, answers)
            status = scheduler.once(unit, COLUMN_S + 10.0) if problem is None else _imitated(unit, COLUMN_S)
            column = Column(tuple(_read(answers, unit.log, status)))
    except (Fixable, OSError) as failed:
        what = str(failed.what if isinstance(failed, Fixable) else failed.strerror or failed)
        fix = failed.fix if isinstance(failed, Fixable) else "see what is wrong there"
        nothing = Finding("timers", scheduler.name, "wrong", f"it starts nothing: {what}", "WB-DOCTOR-14", fix)
        column = Column((nothing,))
    finally:
        if made:
            with contextlib.suppress(OSError):
                os.rmdir(home.units)
    if problem is None:
        return Seen(column, scheduler.name, "unit", None)
    return Seen(column, scheduler.name, "imitated", problem.what)


@contextlib.contextmanager
def _answers(home: Home) -> Iterator[str]:
    """A file that only this user reads: the question is in it, and the answers are appended."""
    os.makedirs(home.units, mode=0o700, exist_ok=True)
    for name in os.listdir(home.units):
        path = os.path.join(home.units, name)
        with contextlib.suppress(OSError):
            if name.startswith("doctor-") and os.stat(path).st_mtime < time.time() - _STALE_S:
                os.unlink(path)
    handle, path = tempfile.mkstemp(prefix="doctor-", suffix=".jsonl", dir=home.units)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(json.dumps({"home": home.root, "shell": shell_of(os.environ)}) + "\n")
        yield path
    finally:
        for one in (path, f"{path}.log"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(one)


def _unit(home: Home, roster: Compiled, answers: str) -> Unit:
    """Like an agent's in all that a firing can notice."""
    return Unit(
        agent="doctor",
        name=f"{units.prefix(home)}doctor-{randomness.token_hex(4)}",
        description="Watchbill: doctor",
        home=home.root,
        argv=(units.interpreter(), "-I", "-m", "watchbill.doctor.probe", answers),
        directory=home.root,
        environment=units.environment(home, roster.fleet),
        log=f"{answers}.log",
        deadline_s=COLUMN_S,
        gates=(),
        schedule=Schedule("manual"),
        delay_s=0,
    )


def _imitated(unit: Unit, seconds: float) -> int | None:
    """Started with a unit's variables, and of the shell's only those that say who we are; its exit status."""
    own = {name: os.environ[name] for name in ("HOME", "USER", "LOGNAME", "SHELL", "LANG") if name in os.environ}
    with open(unit.log, "ab") as log:
        child = subprocess.Popen(unit.argv, env={**own, **dict(unit.environment)}, cwd=unit.directory, stdout=log,
                                 stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
        try:
            return child.wait(seconds)
        except BaseException as cut_short:
            _end(child.pid)
            child.wait()
            if isinstance(cut_short, subprocess.TimeoutExpired):
                return None
            raise


def _end(pid: int) -> None:
    """With its helpers, which have sessions of their own; stopped first, or it would go on where a helper was ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    for one in (*process.descendants(pid), pid):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(one, signal.SIGKILL)


def _read(answers: str, log: str, status: int | None) -> Iterator[Finding]:
    """What was found until it ended; and how, when that was not well."""
    began = ""
    with open(answers, encoding="utf-8", errors="replace") as file:
        for line in list(file)[1:]:
            with contextlib.suppress(ValueError, TypeError, KeyError):
                said = json.loads(line)
                began = said.get("began", began)
                yield from (Finding(**one) for one in said.get("findings", ()))
    if status == 0:
        return
    ended = f"did not end within {COLUMN_S} s" if status is None else f"ended with status {status}"
    at = f", looking at {began}" if began else ", before it looked at anything"
    words = _last_line(log)
    what = f"what the scheduler started {ended}{at}{f': {words}' if words else ''}"
    fix = "`watchbill apply` with the Watchbill that you use now; a drop-in of yours may keep it from its files"
    if began:
        fix = f"see what keeps {began} there: try it by hand"
    yield Finding("timers", "doctor", "wrong", what, "WB-DOCTOR-14", fix)


def _last_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file if line.strip()]
    except OSError:
        return ""
    return "".join(one if one.isprintable() else " " for one in lines[-1])[:300] if lines else ""
