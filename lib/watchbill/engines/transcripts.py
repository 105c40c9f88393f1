"""Reads the JSON lines that an engine writes below its HOME while it runs, as far as they are whole.

The engine's tools can write there too: named pipes, links to somebody's secrets, endless lines, a million files. So
nothing is followed, only regular files are opened, and a look reads, lists and holds no more than a bound.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice

from watchbill.engines.stream import MAX_LINE

MAX_LOOK = 2 << 20  # bytes read in one look, unless a single line is longer
MAX_FILES = 256
MAX_ENTRIES = 20_000  # directory entries listed in one look
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a named pipe without a writer opens at once
_FOLDER = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass
class _Place:
    """How far a file has been read."""

    file: tuple[int, int] = (0, 0)  # device and inode: another one under the same name is read from its start
    offset: int = 0  # of the first byte not read: the start of a line, unless it is being dropped
    dropping: bool = False  # within a line that is longer than any we take


class Files:
    """All files below a folder that match a pattern, read from where the last look ended."""

    def __init__(self, root: str, *patterns: str, most: int = MAX_LOOK) -> None:
        """`patterns`: paths relative to `root`, `*` within a component (`projects/*/*.jsonl`); `most` bytes a look."""
        self._root = root
        self._patterns = patterns
        self._most = most
        self._places: dict[str, _Place] = {}
        self.moved = False  # at the last look; also by what completed no line that is taken

    def lines(self) -> list[tuple[str, bytes]]:
        """The lines that were completed since the last look, each with its file's path relative to the root.

        At most `most` bytes of them: as long as this answers something, there may be more. What is missing, cannot be
        read or is no file answers nothing. Of a file that shrank or was replaced, all lines come again.
        """
        for path in _found(self._root, self._patterns):
            if len(self._places) < MAX_FILES:
                self._places.setdefault(path, _Place())
        found: list[tuple[str, bytes]] = []
        left, before = self._most, self._offsets()
        for turn, path in enumerate(tuple(self._places)):
            lines, read = _read(self._root, path, self._places[path], left)
            found += [(path, line) for line in lines]
            left -= read
            if left <= 0:
                # It had what the others left, maybe less than its next line: next time it is first. If it had a whole
                # look, then the next one is: a file that grows without end keeps nobody from their turn.
                self._begin_with(turn + (read >= self._most))
                break
        self.moved = self._offsets() != before
        return found

    def _offsets(self) -> dict[str, int]:
        return {path: place.offset for path, place in self._places.items()}

    def _begin_with(self, turn: int) -> None:
        names = list(self._places)
        self._places = {name: self._places[name] for name in names[turn:] + names[:turn]}


def newest(root: str, *patterns: str) -> str | None:
    """The regular file that was written last, relative to the root; None when there is none."""
    dated = []
    for path in _found(root, patterns):
        with suppress(OSError), opened(root, path) as (_, status):
            dated.append((status.st_mtime_ns, path))
    return max(dated)[1] if dated else None


def _read(root: str, path: str, place: _Place, most: int) -> tuple[list[bytes], int]:
    """The lines that follow in a file, and how many bytes were read for them; `place` moves on."""
    try:
        with opened(root, path) as (fd, status):
            file = (status.st_dev, status.st_ino)
            if file != place.file or status.st_size < place.offset:
                place.file, place.offset, place.dropping = file, 0, False
            data = _bytes(fd, place.offset, min(most, status.st_size - place.offset))
            if b"\n" not in data and len(data) == most:  # in the midst of a long line
                data += _bytes(fd, place.offset + most, min(MAX_LINE, status.st_size - place.offset - most))
    except OSError:
        return [], 0
    whole, ended, rest = data.rpartition(b"\n")
    lines = whole.split(b"\n") if ended else []
    if ended and place.dropping:
        del lines[0]
        place.dropping = False
    place.offset += len(whole) + len(ended)
    if place.dropping or len(rest) > MAX_LINE:
        place.offset += len(rest)
        place.dropping = True
    return [line for line in lines if 0 < len(line) <= MAX_LINE], len(data)


def _bytes(fd: int, offset: int, count: int) -> bytes:
    parts = []
    while count > 0 and (part := os.pread(fd, min(count, 1 << 20), offset)):
        parts.append(part)
        offset += len(part)
        count -= len(part)
    return b"".join(parts)


@contextmanager
def opened(root: str, path: str) -> Iterator[tuple[int, os.stat_result]]:
    """A regular file, reached without following a link. Raises OSError for everything else."""
    above, _, name = path.rpartition("/")
    with folder(root, above) as within:
        fd = os.open(name, _FILE, dir_fd=within)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(f"{path} is no regular file")
            yield fd, status
        finally:
            os.close(fd)


def _found(root: str, patterns: tuple[str, ...]) -> list[str]:
    """The paths that match, relative to the root; of too many, the first that the system lists."""
    paths: list[str] = []
    room = MAX_ENTRIES
    for pattern in patterns:
        *folders, last = pattern.split("/")
        reached = [""]
        for part in folders:
            reached, room = _matching(root, reached, part, room, folders=True)
        files, room = _matching(root, reached, last, room, folders=False)
        paths += files
    return paths


def _matching(root: str, within: list[str], part: str, room: int, *, folders: bool) -> tuple[list[str], int]:
    """What is called so in some folders, and how many entries may still be listed."""
    if not set(part) & set("*?["):
        return [os.path.join(above, part) for above in within], room
    paths = []
    for above in within:
        with suppress(OSError), folder(root, above) as fd, os.scandir(fd) as entries:
            for entry in islice(entries, room):
                room -= 1
                kind = entry.is_dir if folders else entry.is_file
                if fnmatchcase(entry.name, part) and kind(follow_symlinks=False):
                    paths.append(os.path.join(above, entry.name))
    return paths, room


@contextmanager
def folder(root: str, path: str, *, make: bool = False) -> Iterator[int]:
    """A directory below `root`, reached without following a link; with `make`, also one that is not there yet."""
    fds = [os.open(root, _FOLDER)]
    try:
        for part in path.split("/") if path else ():
            if make:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=fds[-1])
            fds.append(os.open(part, _FOLDER, dir_fd=fds[-1]))
        yield fds[-1]
    finally:
        for fd in fds:
            os.close(fd)
