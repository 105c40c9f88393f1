"""The practice forge's one mutable thing: which state is the present one, behind one lock."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from watchbill.clock import Clock
from watchbill.practice.records import State

T = TypeVar("T")
#: How many past states the stale reads of the fault plan can reach back to; states share all that did not change.
REMEMBERED = 2000


class _Past(NamedTuple):
    at: float  # epoch seconds at which this state became the present one
    state: State


class Store:
    """Holds the state; every change is one step that nobody sees half of."""

    def __init__(self, state: State, clock: Clock) -> None:
        self.clock = clock
        self.merging = threading.Lock()  # held over a merge: it reads refs, moves one, and then changes the state
        self._lock = threading.Lock()
        self._past: deque[_Past] = deque([_Past(clock.now(), state)], maxlen=REMEMBERED)

    def snapshot(self) -> State:
        """The forge as it is now; the value never changes."""
        with self._lock:
            return self._past[-1].state

    def change(self, move: Callable[[State, int], tuple[State, T]]) -> T:
        """Apply a pure move `(state, epoch seconds) -> (next state, result)` and return its result.

        What the move raises goes to the caller and leaves the state as it was.
        """
        with self._lock:
            before = self._past[-1].state
            after, result = move(before, int(self.clock.now()))
            if after is not before:
                self._past.append(_Past(self.clock.now(), after._replace(writes=before.writes + 1)))
            return result

    def ago(self, *, seconds: float = 0, writes: int = 0) -> State:
        """The forge as it was so long, or so many changes, ago: the older of the two."""
        with self._lock:
            index = max(len(self._past) - 1 - writes, 0)
            then = self.clock.now() - seconds
            while index > 0 and self._past[index].at > then:
                index -= 1
            return self._past[index].state
