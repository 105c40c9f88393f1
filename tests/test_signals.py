"""By which signals a firing is asked to end, and what it makes of them."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

from watchbill import signals

ASKED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextlib.contextmanager
def handled(how: signal.Handlers) -> Iterator[None]:
    before = {number: signal.signal(number, how) for number in ASKED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_what_was_ignored_stays_so_but_for_sigterm() -> None:
    """nohup; `watchbill stop`, schedulers and deadlines ask by SIGTERM. Broken once: SIGHUP ended a firing of nohup."""
    with handled(signal.SIG_IGN):
        assert signals.asking() == [signal.SIGTERM]
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        assert set(signals.asking()) == {signal.SIGTERM, signal.SIGHUP}


def test_the_first_one_says_why_it_ended() -> None:
    """Broken once: a SIGTERM after the deadline made it a stop by a person, and no try was counted."""
    with handled(signal.SIG_DFL):
        told = signals.Signals()
        told.heed()
        told.number = signal.SIGALRM
        os.kill(os.getpid(), signal.SIGTERM)
        assert told.number == signal.SIGALRM
