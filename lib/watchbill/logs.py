"""An agent's log: logs/AGENT.log, where its timer appends stdout and stderr, and every firing its own notes.

A line is `EPOCH FIRING text`. What stands between two of them (a traceback, the words of a program) belongs to the
firing above it: that is how it is read again. Past its gates, and under its agent's lock, a firing moves a file that
has grown too large to AGENT.log.1 .. .3. Who was started meanwhile and refused still writes into the one it was given.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from watchbill.reports.ending import is_stream

MOST_BYTES = 5 << 20
KEPT = 3
_LINE = re.compile(rb"([0-9]{9,11}) ([0-9a-z]{16}|-) (.*)", re.DOTALL)
_AT_ONCE = 1 << 20
_STREAMS = (1, 2)


class Entry(NamedTuple):
    """One line, and what was written below it."""

    at: int  # UTC epoch seconds; 0: nobody said
    firing: str  # "-" of one that never had an id; "" above the first that has
    lines: tuple[str, ...]


def rotate(path: str, most: int = MOST_BYTES, kept: int = KEPT) -> None:
    """Begin a new file when this one is larger than `most`; our own stdout and stderr go with it. Never fails."""
    with contextlib.suppress(OSError):
        if os.stat(path).st_size <= most:
            return
        ours = [number for number in _STREAMS if is_stream(path, number)]
        for number in range(kept - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{path}.{number}", f"{path}.{number + 1}")
        os.rename(path, f"{path}.1")
        fresh = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        for number in ours:
            os.dup2(fresh, number)
        os.close(fresh)


def files(path: str, kept: int = KEPT) -> list[str]:
    """Those that are there, the oldest first."""
    names = [*(f"{path}.{number}" for number in range(kept, 0, -1)), path]
    return [name for name in names if _regular(name)]


def read(path: str) -> list[Entry]:
    """Every entry of an agent's files, by time; those of one second in the order of their files. OSError."""
    found: list[Entry] = []
    for name in files(path):
        with open(name, "rb") as file:
            found += entries(file)
    return sorted(found, key=lambda entry: entry.at)


def entries(lines: Iterable[bytes]) -> Iterator[Entry]:
    """Lines of a file as entries: each whole, with what belongs to it."""
    at, firing, own = 0, "", []
    for line in lines:
        match = _LINE.fullmatch(line.rstrip(b"\n"))
        if match is None:
            own.append(_text(line))
            continue
        if own:
            yield Entry(at, firing, tuple(own))
        at, firing, own = int(match[1]), match[2].decode(), [_text(match[3])]
    if own:
        yield Entry(at, firing, tuple(own))


class Tail:
    """What is appended to a log from now on, through rotations."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd: int | None = None
        self._left = b""
        self._above = (0, "")
        self._open(end=True)

    def more(self) -> list[Entry]:
        """What has come since it was last asked, in whole lines; nothing is waited for."""
        data = self._rest()
        if self._moved():
            data += self._rest()  # what came into the old one meanwhile
            self._open(end=False)
            data += self._rest()
        whole, newline, self._left = (self._left + data).rpartition(b"\n")
        return self._entries(whole + newline)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _entries(self, data: bytes) -> list[Entry]:
        found = []
        for entry in entries(data.splitlines(keepends=True)):
            if not entry.firing:  # goes on below what was told before
                entry = entry._replace(at=self._above[0], firing=self._above[1])
            self._above = (entry.at, entry.firing)
            found.append(entry)
        return found

    def _moved(self) -> bool:
        try:
            return self._fd is None or not os.path.samestat(os.fstat(self._fd), os.stat(self._path))
        except OSError:
            return False  # it is just being moved, or not there yet

    def _open(self, end: bool) -> None:
        self.close()
        if _regular(self._path):
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            if end:
                os.lseek(self._fd, 0, os.SEEK_END)

    def _rest(self) -> bytes:
        parts = []
        while self._fd is not None and (part := os.read(self._fd, _AT_ONCE)):
            parts.append(part)
        return b"".join(parts)


def _regular(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def _text(line: bytes) -> str:
    return line.rstrip(b"\r\n").decode("utf-8", "backslashreplace")
