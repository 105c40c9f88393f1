"""What comes out of a running program, kept within bounds: lines, the last bytes, a log file.

Engines print lines of several megabytes, and broken ones print without end; none of that may cost memory or disk.
"""

from __future__ import annotations

import os

MAX_LINE = 8 << 20
MAX_LOG = 64 << 20
TAIL = 16 << 10


class Lines:
    """Chunks in, whole lines out. A line longer than `most` bytes is dropped, and what follows it is not."""

    def __init__(self, most: int = MAX_LINE) -> None:
        self._most = most
        self._held = bytearray()
        self._dropping = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that this chunk completes, without their line ends."""
        found = []
        *ended, rest = chunk.split(b"\n")
        for part in ended:
            self._hold(part)
            if not self._dropping:
                found.append(bytes(self._held))
            self._held.clear()
            self._dropping = False
        self._hold(rest)
        return found

    def rest(self) -> list[bytes]:
        """At the end of the stream: the last line, if it had no line end."""
        last = [] if self._dropping or not self._held else [bytes(self._held)]
        self._held.clear()
        return last

    def _hold(self, part: bytes) -> None:
        if self._dropping or len(self._held) + len(part) > self._most:
            self._dropping = True
            self._held.clear()
        else:
            self._held += part


class Tail:
    """The last bytes of a stream."""

    def __init__(self, most: int = TAIL) -> None:
        self._most = most
        self._held = bytearray()

    def feed(self, chunk: bytes) -> None:
        self._held += chunk
        if len(self._held) > self._most:
            del self._held[: -self._most]

    def text(self) -> str:
        return self._held.decode("utf-8", "replace")


class Log:
    """A file of the raw bytes, from the first on, at most `most` of them. A full disk ends the log, not the run."""

    def __init__(self, path: str, most: int = MAX_LOG) -> None:
        self._left = most
        # A log lies where only we write; a symbolic link there was not put by us.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        self._fd = os.open(path, flags, 0o600)

    def feed(self, chunk: bytes) -> None:
        part = memoryview(chunk)[: self._left]
        self._left -= len(part)
        try:
            while part:
                part = part[os.write(self._fd, part) :]
        except OSError:
            self._left = 0

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
