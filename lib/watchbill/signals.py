"""How a firing is asked to end, by a person, by the system, or by its own deadline.

A signal is remembered, and obeyed at the next step, effect or beat of an engine: nothing is dropped halfway. A deadline
that has passed is a signal too, SIGALRM from the watchdog, and it has no patience: a step that is stuck in one call
(a server that never answers) is broken off there. What a step leaves half done is then repaired as after a crash.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from types import FrameType

from watchbill import process
from watchbill.outcomes import Ended

#: Steps that a signal does not stop: they give back what the firing owns.
SETTLING = frozenset({"settle", "report", "tidy"})
#: Steps that look for a signal every second, while the program that they run still has to be stopped with care.
_LOOKING = frozenset({"engine", "base", "verify"})
_HERE = os.path.dirname(os.path.abspath(__file__))
_WATCHDOG = os.path.join(_HERE, "watchdog.py")
#: An exception that comes from nowhere may pass through everything but what keeps a transaction whole.
_WHOLE = os.path.join(_HERE, "ledger", "")


def asking() -> list[signal.Signals]:
    """The signals that ask us to end. One that was ignored already stays so, as nohup and POSIX's shells mean it; but
    for SIGTERM, by which `watchbill stop`, schedulers and deadlines ask."""
    may = [number for number in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(number) is not signal.SIG_IGN]
    return [signal.SIGTERM, *may]


class Signals:
    """What one firing was told, and where it is."""

    def __init__(self) -> None:
        self.number: int | None = None  # what it obeys
        self.step = ""  # of the story, while it is at work in one
        self.spent = False  # an engine was started
        self._limit_s = 0
        self._watchdog: subprocess.Popen[bytes] | None = None  # it leaves when our end of its stdin closes

    def heed(self) -> None:
        """From now on SIGTERM, SIGINT and SIGHUP end the firing at its next step, or at the engine's next beat."""

        def heard(number: int, _frame: FrameType | None) -> None:
            self.number = self.number or number  # the first says why

        for number in asking():
            signal.signal(number, heard)

    def end_after(self, limit_s: int, age_s: float, grace_s: int, firing: str, log: str) -> None:
        """It is ended when it has run for `limit_s`, of which `age_s` are over, and killed `grace_s` later."""

        def late(_number: int, frame: FrameType | None) -> None:
            again = self.number is not None
            self.number = self.number or signal.SIGALRM
            if again and self.step and self.step not in SETTLING | _LOOKING and not _keeps_whole(frame):
                raise self.too_late()

        self._limit_s = limit_s
        signal.signal(signal.SIGALRM, late)
        me = process.me()
        words = [str(me.pid), str(me.started), me.boot, str(limit_s - age_s), str(grace_s), firing, log]
        try:
            self._watchdog = subprocess.Popen(
                [sys.executable, "-I", "-S", _WATCHDOG, *words],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
                start_new_session=True)  # fmt: skip
        except OSError as error:  # no process more to be had: the scheduler's own limit still stands
            print(f"no watchdog: {error}", file=sys.stderr)

    @contextlib.contextmanager
    def within(self, step: str) -> Iterator[None]:
        """A step at work: an error that the deadline brought about is the deadline."""
        outer, self.step = self.step, step
        try:
            yield
        except Ended:
            raise
        except Exception as error:
            if self.number == signal.SIGALRM and step not in SETTLING:
                raise self.too_late() from error
            raise
        finally:
            self.step = outer

    def obey(self) -> None:
        """Raise Ended when this firing was asked to end."""
        if self.number == signal.SIGALRM:
            raise self.too_late()
        if self.number is not None:
            name = signal.Signals(self.number).name
            raise Ended("cancelled", f"stopped by {name}", "signal", 128 + self.number)

    def too_late(self) -> Ended:
        """What the deadline means: without an engine somebody did not answer; with one, it is one of the tries."""
        where = f", in {self.step}" if self.step else ""
        reason = f"it had not ended {self._limit_s} s after its start{where}: that is its deadline"
        return Ended("engine_failed" if self.spent else "unavailable", reason, "deadline")


def _keeps_whole(frame: FrameType | None) -> bool:
    """Whether an exception from nowhere would pass through what begins or ends a transaction."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(_WHOLE):
            return True
        frame = frame.f_back
    return False
