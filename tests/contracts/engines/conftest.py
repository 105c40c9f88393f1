"""Every adapter, in its dialect; and nothing is left of any run."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from support.dialects import DIALECTS, Dialect
from support.engines import left

#: Where there is time for everything: `scripted`, which reads the words of `command`, and `codex`, which the matrix of
#: the real programs has as well.
_SELDOM = ("codex", "scripted")
_OFTEN = [pytest.param(name, marks=pytest.mark.thorough) if name in _SELDOM else name for name in sorted(DIALECTS)]


@pytest.fixture(params=_OFTEN, scope="module")
def adapter(request: pytest.FixtureRequest) -> Dialect:
    return DIALECTS[request.param]


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    assert left() == []


@pytest.fixture(scope="module")
def within() -> Callable[[float], AbstractContextManager[None]]:
    """What runs in this process and may take no longer than so many seconds."""
    return _within


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    def late(*_: object) -> None:
        raise AssertionError(f"not done within {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
