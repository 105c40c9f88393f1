"""Who of this host's firings runs, and how to end them: told first, killed when their time is over.

Runners are found by the ledger's rows and by the kernel's locks, whichever can be had; what they started by descent and
by the mark in its environment. Nothing here needs the network, nor a ledger that can be written.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from watchbill import look, process
from watchbill.engines.keeper import MARKER
from watchbill.home import Home
from watchbill.ledger import firings, meters, steps
from watchbill.ledger.db import Ledger
from watchbill.process import Identity

#: So long a runner has, from its signal on: the engine's short ladder (4.5 s), keeping the work, settling, releasing.
PATIENCE_S = 6.5
#: Who passed its gates just before the hold was written is found within this.
_SLIPPED_S = 1.0
#: From the first signal on; whoever is killed now is gone in milliseconds, unless he hangs in the kernel.
_OVER_S = 9.0
_LOOK_S = 0.05
#: The same for a stop that was typed below a firing: that one heeds the hold, and sweeps the stop in a second or two.
_INSIDE_S = 0.3

Say = Callable[[str], None]


class Live(NamedTuple):
    """A firing that runs."""

    agent: str
    firing: str | None  # None: it has not begun its row, or the ledger cannot be read
    issue: str | None  # acme/api#41
    who: Identity
    step: str | None
    since: int | None
    spent_micro: int | None  # None: not known yet


class Told(NamedTuple):
    """Somebody who was told to end."""

    live: Live
    at: float  # monotonic seconds
    tree: tuple[Identity, ...]  # it and everything below it, then


def living(ledger: Ledger, host: str) -> tuple[Live, ...]:
    """The firings of this host whose process runs, by the ledger."""
    return tuple(_live(ledger, row) for row in firings.live(ledger, host) if look.alive(row))


def _live(ledger: Ledger, row: firings.Firing) -> Live:
    where, meter = steps.of_firing(ledger, row.id), meters.get(ledger, row.id)
    return Live(
        agent=row.agent,
        firing=row.id,
        issue=issue_of(row),
        who=Identity(row.pid, row.pid_started, row.boot),
        step=where[-1].name if where else None,
        since=row.started,
        spent_micro=meter.cost_micro if meter else None,
    )


def issue_of(row: firings.Firing) -> str | None:
    return f"{row.repo}#{row.number}" if row.number else None


def holding_locks(home: Home) -> Iterator[Live]:
    """Who holds an agent's lock, as every firing past its gates does: by the kernel, whatever the ledger says."""
    for name in sorted(os.listdir(home.locks)) if os.path.isdir(home.locks) else []:
        agent, dot, kind = name.rpartition(".")
        if not dot or kind != "lock" or agent == "host":
            continue
        for pid in process.holders(os.path.join(home.locks, name)):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if pid != os.getpid():
                    yield Live(agent, None, None, process.identity(pid), None, None, None)


class Ending:
    """Who was told to end, and what is left of them."""

    def __init__(self, home: Home, known: Callable[[], tuple[Live, ...]], say: Say) -> None:
        """`known`: whoever runs by the ledger, as far as it has been read by now."""
        self._home, self._known, self._say = home, known, say
        self._above = set(process.ancestors())  # this stop may have been typed below a firing
        self.told: dict[Identity, Told] = {}
        self.gone: dict[Identity, float] = {}
        self.killed: set[Identity] = set()
        self.began = time.monotonic()

    def tell_and_wait(self) -> None:
        """SIGTERM to each, once; until all are gone, or their time is over."""
        said: list[str] = []
        while True:
            new = self._tell()
            running = self._running()
            words = [f"{told.live.agent} (pid {told.live.who.pid})" for told in running]
            if words and words != said:
                self._say(f"waiting for {', '.join(words)} ...")
            said = words
            spent_s = time.monotonic() - self.began
            if spent_s > (_INSIDE_S if self._above and self.above() else PATIENCE_S) or (
                not new and not running and spent_s > _SLIPPED_S
            ):
                return
            time.sleep(_LOOK_S)

    def _tell(self) -> list[Told]:
        """Tell whoever is there and was not told yet."""
        new = []
        for live in (*self._known(), *holding_locks(self._home)):
            if live.who in self.told:
                known = self.told[live.who]
                if known.live.firing is None and live.firing is not None:
                    self.told[live.who] = known._replace(live=live)
                continue
            if not process.alive(live.who) or live.who.pid in self._above:
                continue
            tree = tuple(_identities([live.who.pid, *process.descendants(live.who.pid)]))
            process.tell(live.who, signal.SIGTERM)
            self.told[live.who] = Told(live, time.monotonic(), tree)
            new.append(self.told[live.who])
        return new

    def _running(self) -> list[Told]:
        now, found = time.monotonic(), []
        for who, told in self.told.items():
            if who in self.gone:
                continue
            if any(process.alive(one) for one in told.tree):
                found.append(told)
            else:
                self.gone[who] = now
        return found

    def kill(self) -> None:
        """Whoever had its time, with everything below it; then what carries the mark of a firing of this home.

        Who comes only now has passed its gates before the hold, owns nothing, and is killed without being asked.
        """
        empty = 0
        while empty < 3 and time.monotonic() - self.began < _OVER_S:
            self._tell()
            running = self._running()
            for told in running:
                if process.alive(told.live.who):
                    self._say(f"killing {told.live.agent} (pid {told.live.who.pid}) and what it started")
                    process.end_tree(told.live.who)
                    self.killed.add(told.live.who)
            self._running()
            marked = self._marked()
            process.end(marked, 0.5, self._is_marked)
            rest = [one.pid for told in self.told.values() for one in told.tree if process.alive(one)]
            process.end(rest, 0.5)
            empty = 0 if running or marked or rest else empty + 1

    def _marked(self) -> list[int]:
        """What carries the mark of a firing of this home."""
        ids, ours = self._ids(), {live.who.pid for live in self.above()}
        spared = {os.getpid(), *self._above, *(pid for one in ours for pid in process.descendants(one))}
        return [pid for pid, id in process.marks(MARKER).items() if id in ids and pid not in spared]

    def _is_marked(self, pid: int) -> bool:
        return any(process.is_marked(pid, MARKER, id) for id in self._ids())

    def _ids(self) -> set[str]:
        """Of those told to end, and of all that have a worktree."""
        ids = {told.live.firing for told in self.told.values() if told.live.firing}
        with contextlib.suppress(OSError):
            ids.update(os.listdir(self._home.worktrees))
        return ids

    def above(self) -> list[Live]:
        """The firing that this stop was typed in, if it was: it would sweep the stop with all else it started."""
        return [live for live in (*self._known(), *holding_locks(self._home)) if live.who.pid in self._above]

    def left(self) -> tuple[int, ...]:
        """Pids that are still there."""
        trees = (one for told in self.told.values() for one in told.tree)
        return tuple(sorted({one.pid for one in trees if process.alive(one)} | set(self._marked())))


def _identities(pids: list[int]) -> Iterator[Identity]:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            yield process.identity(pid)
