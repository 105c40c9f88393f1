"""Watches one running program: moves its streams, looks at its timers, takes it down the ladder, has it swept."""

from __future__ import annotations

import os
import selectors
from collections.abc import Callable
from typing import IO, NamedTuple, Protocol

from watchbill.clock import Clock
from watchbill.engines.base import Limits
from watchbill.engines.child import Child
from watchbill.engines.stream import Log, Tail

#: Asked about once a second while something runs, and right after its start: the reason to stop it, or None.
Beat = Callable[[], str | None]

#: Seconds that SIGINT and SIGTERM are given. claude needs up to 1.5 s to say what an interrupted run cost, and 2 s to
#: end tools that ignore SIGTERM; twice that and more for a busy host.
LADDER = (8.0, 5.0)
#: The same when a signal asks the firing itself to end: whoever sent it (`stop --now`, the system's shutdown) waits for
#: seconds and no longer, and what comes after the engine, keeping its work and giving back the claim, takes some too.
SHORT_LADDER = (3.0, 1.5)
#: What `beat` answers then.
SIGNAL = "signal"
_RUNGS = ("SIGINT", "SIGTERM")
_UNKILLABLE_S = 10.0  # after SIGKILL: it hangs in the kernel
_BEAT_S = 1.0
_LOOK_S = 0.1  # how late a limit may be noticed
_EOF_S = 1.0  # how long a stream may stay open once the program itself has gone
_CHUNK = 64 << 10


class Stop(NamedTuple):
    """Why we ended a program."""

    verdict: str  # one of engines.base.VERDICTS
    limit: str | None = None  # timeout: wall | silence | lingering
    by: str | None = None  # what `beat` answered


class Ear(Protocol):
    """Who listens to what the program prints on stdout."""

    @property
    def working(self) -> bool:
        """Not yet (or no longer) after a final event."""

    def feed(self, chunk: bytes) -> None: ...

    def end(self) -> None:
        """The stream is over."""

    def stop(self) -> Stop | None:
        """Whether what was said is a reason to stop the program."""


class Deaf:
    """For a program that speaks no protocol; the end of what it printed is kept."""

    working = True

    def __init__(self) -> None:
        self.tail = Tail()

    def feed(self, chunk: bytes) -> None:
        self.tail.feed(chunk)

    def end(self) -> None:
        pass

    def stop(self) -> Stop | None:
        return None


class Watch:
    """A program from its start to the sweep: its streams, its timers, the ladder."""

    def __init__(
        self,
        child: Child,
        given: bytes,
        log: Log,
        ear: Ear,
        clock: Clock,
        ladder: tuple[float, float],
    ) -> None:
        """`given` is for its stdin; `ladder` in seconds, as LADDER."""
        self.strays = 0
        self.duration_s = 0.0
        self.stderr = Tail()
        self._child = child
        self._given = memoryview(given)
        self._log = log
        self._ear = ear
        self._clock = clock
        self._rungs = [*zip(_RUNGS, ladder, strict=True), ("SIGKILL", _UNKILLABLE_S)]
        self._rung = ""  # the last one it was given
        self._rung_until: float | None = None
        self._gave_up = False
        self._began = self._byte_at = clock.elapsed()
        self._final_at: float | None = None
        self._gone_at: float | None = None
        self._selector = selectors.DefaultSelector()

    def until_gone(self, limits: Limits, beat: Beat) -> Stop | None:
        """Until the program has gone and was swept: why we stopped it, or None."""
        stop: Stop | None = None
        beat_at = self._began
        try:
            self._open()
            while not self._over():
                if self._clock.elapsed() >= beat_at and not self._child.gone:
                    reason = beat()
                    beat_at = self._clock.elapsed() + _BEAT_S
                    stop = stop or (Stop("interrupted", by=reason) if reason else None)
                    if reason == SIGNAL:
                        self._hurry()
                self._pump()
                stop = stop or self._ear.stop() or self._overdue(limits)
                if stop is not None:
                    self._press()
            self._ear.end()
        except BaseException:
            while not self._over():
                self._press()
                self._pump()
            raise
        finally:
            self.duration_s = self._clock.elapsed() - self._began
            self._selector.close()
            self.strays = self._child.sweep()
        return stop or self._ear.stop()

    def _open(self) -> None:
        child = self._child
        self._selector.register(child.control, selectors.EVENT_READ)
        for stream in (child.stdout, child.stderr):
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
                self._selector.register(stream, selectors.EVENT_READ)
        if self._given:
            os.set_blocking(child.stdin.fileno(), False)
            self._selector.register(child.stdin, selectors.EVENT_WRITE)
        else:
            child.stdin.close()

    def _pump(self) -> None:
        """Move whatever can be moved now; wait a moment when nothing can."""
        child = self._child
        for key, _ in self._selector.select(_LOOK_S):
            if key.fileobj is child.control:
                child.hear()
                if child.gone:
                    self._selector.unregister(child.control)
            elif key.fileobj is child.stdin:
                self._write(child.stdin)
            elif not self._read(key.fd):
                self._selector.unregister(key.fileobj)
        now = self._clock.elapsed()
        if child.gone and self._gone_at is None:
            self._gone_at = now
        if self._ear.working:
            self._final_at = None
        elif self._final_at is None:
            self._final_at = now

    def _read(self, fd: int) -> int:
        try:
            chunk = os.read(fd, _CHUNK)
        except BlockingIOError:
            return 1
        self._byte_at = self._clock.elapsed()
        child = self._child
        if child.stderr is not None and fd == child.stderr.fileno():
            self.stderr.feed(chunk)
        else:
            self._log.feed(chunk)
            self._ear.feed(chunk)
        return len(chunk)

    def _write(self, stdin: IO[bytes]) -> None:
        try:
            self._given = self._given[os.write(stdin.fileno(), self._given[:_CHUNK]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._given = self._given[:0]  # it does not want to know more
        if not self._given:
            self._selector.unregister(stdin)
            stdin.close()

    def _over(self) -> bool:
        if self._gone_at is None:
            return self._gave_up
        # What it left behind may hold its streams open for ever.
        listening = any(key.events & selectors.EVENT_READ for key in self._selector.get_map().values())
        return not listening or self._clock.elapsed() - self._gone_at > _EOF_S

    def _overdue(self, limits: Limits) -> Stop | None:
        if self._child.gone:
            return None
        now = self._clock.elapsed()
        if now - self._began > limits.wall_s:
            return Stop("timeout", "wall")
        if limits.silence_s is not None and now - self._byte_at > limits.silence_s:
            return Stop("timeout", "silence")
        if self._final_at is not None and now - self._final_at > limits.lingering_s:
            return Stop("timeout", "lingering")
        return None

    def _hurry(self) -> None:
        """From now on the short ladder, also on the rung that it stands on."""
        short = dict(zip(_RUNGS, SHORT_LADDER, strict=True))
        self._rungs = [(name, min(given_s, short.get(name, given_s))) for name, given_s in self._rungs]
        if self._rung_until is not None and self._rung in short:
            self._rung_until = min(self._rung_until, self._clock.elapsed() + short[self._rung])

    def _press(self) -> None:
        """The next rung of the ladder, once the one before it had its time."""
        now = self._clock.elapsed()
        if self._child.gone or (self._rung_until is not None and now < self._rung_until):
            return
        if not self._rungs:
            self._gave_up = True
            return
        self._rung, given_s = self._rungs.pop(0)
        self._child.signal(self._rung)
        self._rung_until = now + given_s
