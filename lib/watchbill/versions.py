"""Which version an engine's program is, and whether its adapter speaks with that one.

Event streams and flags change from release to release: what was not tried is refused before anything is claimed. The
answer is kept in the ledger, because asking costs a firing 40 ms (claude) to 130 ms (codex).
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from watchbill.engines.base import Program
from watchbill.engines.installed import PACKAGES
from watchbill.errors import Fixable
from watchbill.isolation.base import Isolation, Jail, program_path
from watchbill.ledger import programs
from watchbill.ledger.db import Ledger
from watchbill.ledger.programs import Known

#: It prints a line and ends; one that has not by then hangs.
TIMEOUT_S = 20.0
#: What is read of it.
MOST_BYTES = 64 << 10
#: Asked again after so long, whatever its file says: npm's wrapper and the shims of version managers stay the same
#: file while the program behind them is another.
FRESH_S = 86_400
#: What is still in its pipes after it has ended is read for so long; somebody else may hold them open.
_REST_S = 0.5

_DOTTED = re.compile(r"(?<![0-9])[0-9]{1,9}(?:\.[0-9]{1,9})+")


class Within(NamedTuple):
    """The layer of isolation that it will run in: a program that cannot start there is found before it is paid for."""

    name: str  # "none" without
    wrap: Callable[[tuple[str, ...], str], tuple[str, ...]]  # what to start, so that argv runs there and has this HOME


def inside(layer: Isolation, hidden: tuple[str, ...]) -> Within:
    """A layer that hides these from what runs in it."""
    return Within(layer.name, lambda argv, home: layer.wrap(Jail("/", (home,), (), hidden), argv))


#: As we run ourselves.
FREE = Within("none", lambda argv, _home: argv)


def check(ledger: Ledger, engine: str, program: Program, now: int, within: Within = FREE) -> str:
    """The version of the engine's program. `now`: UTC epoch seconds.

    Fixable, invalid: WB-ENGINE-06 when it is one that the adapter does not speak with, WB-ENGINE-08 when it cannot be
    told. No process is started while the ledger knows the file.
    """
    return accept(engine, program, told(ledger, engine, program, now, within))


def accept(engine: str, program: Program, version: str) -> str:
    """The version, when its adapter speaks with it. Fixable WB-ENGINE-06."""
    if not supported(version, program):
        raise _unsupported(engine, program, version)
    return version


def told(ledger: Ledger, engine: str, program: Program, now: int, within: Within = FREE) -> str:
    """What it says that it is, supported or not. Fixable WB-ENGINE-08."""
    place = program.path if within.name == FREE.name else f"{within.name}:{program.path}"
    file, known = _file(program.path), programs.get(ledger, place)
    if known is not None and known.file == file and 0 <= now - known.asked_at < FRESH_S:
        return known.version
    version = ask(engine, program, within)
    if file is not None and file == _file(program.path):  # and not replaced while it was asked
        # The firing does without, on a full disk as beside somebody who locks the ledger for long.
        with contextlib.suppress(Fixable), ledger.transaction():
            programs.put(ledger, Known(place, file, version, now))
    return version


def ask(engine: str, program: Program, within: Within = FREE) -> str:
    """Start it, and take the first dotted number that it prints. Fixable WB-ENGINE-08."""
    try:
        said = _said(program, within)
    except OSError as error:
        raise _silent(engine, program, f"it cannot be started: {error.strerror or error}") from None
    number = _DOTTED.search(said.stdout)
    if said.trouble is None and number is not None:
        return number[0]
    why = said.trouble or f"it printed no version number: {_line(said.stdout) or 'nothing'}"
    why = f"{why}: {said.stderr}" if said.stderr else why
    raise _silent(engine, program, why if within.name == FREE.name else f"in {within.name}, as a firing runs it, {why}")


def parsed(version: str) -> tuple[int, ...]:
    """`2.1.329` as numbers, without zeros at the end: 2.1 and 2.1.0 are the same."""
    numbers = [int(part) for part in version.split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def supported(version: str, program: Program) -> bool:
    """Whether it lies in the range of its adapter."""
    return parsed(dotted(program.least)) <= parsed(version) < parsed(dotted(program.below))


def dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def install(engine: str, program: Program) -> str:
    """What to type, or to do, for a version that is supported."""
    least, below = dotted(program.least), dotted(program.below)
    if engine in PACKAGES:
        return f"npm install -g '{PACKAGES[engine]}@>={least} <{below}'"
    return f"install {engine} {least} or newer, and older than {below}"


def _unsupported(engine: str, program: Program, version: str) -> Fixable:
    age = "old" if parsed(version) < parsed(dotted(program.least)) else "new"
    least, below = dotted(program.least), dotted(program.below)
    return Fixable(
        "WB-ENGINE-06",
        f"{engine} {version} is too {age}",
        why=f"this Watchbill speaks with {least} and newer, up to but not including {below}; {program.path} was asked",
        fix=install(engine, program),
    )


def _silent(engine: str, program: Program, why: str) -> Fixable:
    command = " ".join((program.path, *program.asks))
    by_path = f"name the program itself, not what starts it: [engines.{engine}] program = ..."
    fix = f"see what `{command}` prints; or {by_path}; or {install(engine, program)}"
    return Fixable("WB-ENGINE-08", f"{engine}: nobody can tell which version {program.path} is", why=why, fix=fix)


def _file(path: str) -> str | None:
    """Which file is started by this path; None when there is none.

    With the time of its last change of any kind: npm unpacks every file with the same date of modification.
    """
    real = os.path.realpath(path)
    try:
        facts = os.stat(real)
    except OSError:
        return None
    numbers = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
    return " ".join((real, *map(str, numbers)))


class _Said(NamedTuple):
    """What a program printed."""

    stdout: str
    stderr: str  # its last line, printable
    trouble: str | None  # what went wrong


def _said(program: Program, within: Within) -> _Said:
    """Its answer, from an environment that knows nothing of the operator; nothing of it is left. OSError."""
    with _empty_folder() as home:
        child = subprocess.Popen(
            within.wrap((program.path, *program.asks), home),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/",
            env={"PATH": program_path(os.environ), "HOME": home, "TMPDIR": home, "LANG": "C.UTF-8"},
            start_new_session=True)  # fmt: skip
        with child:
            try:
                out, err, trouble = _read(child)
            finally:
                with contextlib.suppress(ProcessLookupError, PermissionError):  # also what it started
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
    if trouble is None and child.returncode != 0:
        trouble = f"it ended with status {child.returncode}"
    return _Said(out.decode("utf-8", "replace"), _line(err.decode("utf-8", "replace")), trouble)


@contextlib.contextmanager
def _empty_folder() -> Iterator[str]:
    """A HOME for a moment; on a disk that takes nothing more, one that is not there."""
    try:
        made = tempfile.mkdtemp(prefix="watchbill-")
    except OSError:
        yield "/nonexistent"
        return
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _read(child: subprocess.Popen[bytes]) -> tuple[bytes, bytes, str | None]:
    """Both its streams, bounded in time and bytes; and what was wrong with that."""
    assert child.stdout is not None
    assert child.stderr is not None
    streams = {child.stdout.fileno(): b"", child.stderr.fileno(): b""}
    out, err = streams
    until = time.monotonic() + TIMEOUT_S
    with selectors.DefaultSelector() as selector:
        for fd in streams:
            selector.register(fd, selectors.EVENT_READ)
        while selector.get_map() and time.monotonic() < until:
            for key, _ in selector.select(0.05):
                chunk = os.read(key.fd, 1 << 16)
                streams[key.fd] += chunk
                if not chunk:
                    selector.unregister(key.fd)
            if max(map(len, streams.values())) > MOST_BYTES:
                return streams[out], streams[err], f"it prints more than {MOST_BYTES} bytes"
            if child.poll() is not None:
                until = min(until, time.monotonic() + _REST_S)
    try:
        child.wait(max(0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        return streams[out], streams[err], f"it gave no answer within {TIMEOUT_S:.0f} s"
    return streams[out], streams[err], None


def _line(text: str) -> str:
    """Its last line that says something, as a terminal can show it."""
    lines = [line for line in text.splitlines() if line.strip()]
    return "".join(one if one.isprintable() else " " for one in lines[-1]).strip()[:200] if lines else ""
