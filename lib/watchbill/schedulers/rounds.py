"""What `watchbill loop` does: each agent's unit is started at its slots, and ended when it takes longer than it may.

Time is the wall's: a host that slept, or a container that was frozen, finds its latest slot passed and starts it, once.
The slot of an agent that still runs waits until it has ended. A slot is started at most once, also when the clock is
set back; only when it is set back by more than a day is it believed to have been wrong before.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

from watchbill import compiled, process
from watchbill.compiled import Agent, Compiled
from watchbill.errors import Fixable
from watchbill.home import Home
from watchbill.host import host_id
from watchbill.ledger import db
from watchbill.schedulers import loop, manifest, missed, spread, units, zone
from watchbill.schedulers.base import Unit

#: How often the roster's files and the clock are looked at, seconds.
LOOK_S = 5.0
#: From SIGTERM to SIGKILL.
PATIENCE_S = 20.0
#: Started in one look, and how soon the next ones are.
_AT_ONCE = 5
_NEXT_ONES_S = 1.0
#: Set back by more than that, the clock was wrong before.
_WRONG_S = 86_400


class Running(NamedTuple):
    """A firing that was started here."""

    unit: Unit
    child: subprocess.Popen[bytes]
    who: process.Identity
    ends_at: float  # of the clock that runs on: then it gets SIGTERM
    killed_at: float | None  # it got it: then its tree is killed


class Rounds:
    """One loop."""

    def __init__(
        self,
        home: Home,
        say: Callable[[str], None],
        now: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._home, self._say, self._now, self._elapsed = home, say, now, elapsed
        self._sources: tuple[tuple[str, int, int], ...] | None = None
        self._taken = False  # a roster was taken up
        self.problem: Fixable | None = None  # why the roster as it is now was not
        self._agents: dict[str, Agent] = {}
        self._units: dict[str, Unit] = {}
        self._done: dict[str, int] = {}  # until when an agent's slots are done with, UTC epoch seconds
        self._next: dict[str, float] = {}  # of an interval, by the clock that runs on
        self._gated: set[str] = set()
        self._waiting = False  # more are due than are started at once
        self.running: dict[str, Running] = {}

    def look(self) -> float:
        """End what has to end, start what is due; how long nothing else can happen, seconds."""
        self._take_up_roster()
        self.reap()
        self._end_late_ones()
        due = self._due()
        for agent, slot in due[:_AT_ONCE]:
            self._start(agent, slot)
        self._waiting = len(due) > _AT_ONCE
        return _NEXT_ONES_S if self._waiting else self._quiet_s()

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing is due."""
        return not self.running and not self._waiting

    def reap(self) -> None:
        """Say who has ended. What they left in their process group ends with them, as with systemd's KillMode=mixed."""
        for agent, one in list(self.running.items()):
            if _has_ended(one.child):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(one.child.pid, signal.SIGKILL)
                status = one.child.wait()
                del self.running[agent]
                self._say(f"{agent}: ended with {status if status >= 0 else signal.Signals(-status).name}")
        if os.getpid() == 1:
            _reap_orphans({one.child.pid for one in self.running.values()})

    def end_all(self) -> None:
        """Ask every firing to end; kill what has not after a while."""
        for agent, one in self.running.items():
            self._say(f"{agent}: is asked to end")
            process.tell(one.who, signal.SIGTERM)
        until = self._elapsed() + PATIENCE_S
        while self.running and self._elapsed() < until:
            time.sleep(0.05)
            self.reap()
        for one in self.running.values():
            process.end_tree(one.who)
        self.reap()

    def _take_up_roster(self) -> None:
        sources = compiled.source_facts(self._home.root)
        if sources == self._sources:
            return
        now = int(self._now())
        try:
            roster = _roster(self._home)
            wanted = units.of_roster(self._home, roster)
            for file in manifest.differing(units.launchers(self._home, roster)):
                manifest.put(file)
            done = {} if self._taken else self._done_before(roster, list(wanted), now)
        except (Fixable, OSError) as error:
            self._not_taken_up(error, sources)
            return
        before = self._agents
        self._units, self._agents = wanted, {name: roster.agents[name] for name in wanted}
        self._taken, self._sources, self.problem = True, sources, None
        for name, agent in self._agents.items():
            if name not in before or before[name].schedule != agent.schedule:
                self._done[name] = done.get(name, now)
                period_s = wanted[name].schedule.interval_s or 0
                self._next[name] = self._elapsed() + min(max(self._done[name] + period_s - now, 0), period_s)
        self._say(f"roster {roster.digest[:12]}: {len(wanted)} with a schedule")

    def _not_taken_up(self, error: Fixable | OSError, sources: tuple[tuple[str, int, int], ...]) -> None:
        """Said once. What is wrong in the roster is looked at again when its files change, all else at every look."""
        problem = error if isinstance(error, Fixable) else _unreadable(error)
        if self.problem is None or str(self.problem) != str(problem):
            still = "the loop goes on by the one before" if self._taken else "nothing is started"
            self._say(f"the roster is not taken up, {still} until that is mended: {problem}")
        self.problem = problem
        self._sources = sources if problem.outcome == "invalid" else None

    def _done_before(self, roster: Compiled, names: Sequence[str], now: int) -> dict[str, int]:
        """By agent: until when its slots are done with, UTC epoch seconds, by what this host remembers."""
        ledger = db.open_ledger(self._home.ledger)
        try:
            known = missed.of_fleet(self._home, ledger, roster, host_id(self._home.host), now)
        finally:
            ledger.close()
        return known | missed.begun(self._home, [name for name in names if name not in known], now)

    def _due(self) -> list[tuple[str, int | None]]:
        """Who is to be started now, and for which slot; None: an interval's."""
        now, found = self._now(), list[tuple[str, int | None]]()
        for name, unit in self._units.items():
            if name in self.running:
                continue
            if not unit.schedule.entries:
                found += [(name, None)] if self._next[name] <= self._elapsed() else []
                continue
            if now < self._done[name] - _WRONG_S:
                self._say(f"{name}: the clock was set back by more than a day")
                self._done[name] = int(now)
            slot = missed.slot_of(self._agents[name].slots, self._done[name], now - spread.delay_s(unit))
            found += [(name, slot)] if slot is not None else []
        return found

    def _start(self, agent: str, slot: int | None) -> None:
        unit = self._units[agent]
        if slot is None:
            self._next[agent] = self._elapsed() + (unit.schedule.interval_s or 0)
        else:
            self._done[agent] = slot
        gate = next((path for path in unit.gates if os.path.exists(path)), None)
        if gate is not None:
            if agent not in self._gated:
                self._say(f"{agent}: is not started while {gate} is there")
            self._gated.add(agent)
            return
        self._gated.discard(agent)
        try:
            child = _started(unit)
        except OSError as error:
            self._say(f"{agent}: cannot be started: {error}")
            return
        who = process.identity(child.pid)
        self.running[agent] = Running(unit, child, who, self._elapsed() + unit.deadline_s, None)
        for_slot = "" if slot is None else f" for {datetime.fromtimestamp(slot, zone.local()):%Y-%m-%d %H:%M %Z}"
        self._say(f"{agent}: started{for_slot} (pid {child.pid})")

    def _end_late_ones(self) -> None:
        """The runner ends itself before; this is for one that cannot."""
        for agent, one in list(self.running.items()):
            if one.killed_at is not None and self._elapsed() >= one.killed_at:
                process.end_tree(one.who)
            elif one.killed_at is None and self._elapsed() >= one.ends_at:
                self._say(f"{agent}: still runs after {one.unit.deadline_s} s, and is asked to end")
                process.tell(one.who, signal.SIGTERM)
                self.running[agent] = one._replace(killed_at=self._elapsed() + PATIENCE_S)

    def _quiet_s(self) -> float:
        """Until the next minute that could be a slot, the next deadline, or the next look."""
        now, here = self._now(), self._elapsed()
        ends = [one.ends_at if one.killed_at is None else one.killed_at for one in self.running.values()]
        aside = [60 - (now - spread.delay_s(unit)) % 60 for unit in self._units.values() if unit.schedule.entries]
        waits = [LOOK_S, *aside, *(at - here for at in (*ends, *self._next.values()))]
        return max(0.05, min(wait for wait in waits if wait > 0))


def _unreadable(error: OSError) -> Fixable:
    return Fixable(
        "WB-SCHED-31",
        f"the roster cannot be taken up: {error}",
        why="its files are read, and `units` in the fleet's directory is written, before anything is started",
        fix="see what is wrong there: `ls -ld`, `df`",
        outcome="unavailable",
    )


def _roster(home: Home) -> Compiled:
    known = compiled.load(home.roster)
    if compiled.is_current(known, home.root):
        return known
    from watchbill.roster import compile_roster

    return compile_roster(home.root)


def _started(unit: Unit) -> subprocess.Popen[bytes]:
    """A session of its own; stdout and stderr are appended to the agent's log."""
    os.makedirs(os.path.dirname(unit.log), mode=0o700, exist_ok=True)
    log = os.open(unit.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        return subprocess.Popen(unit.argv, cwd=unit.directory, env=loop.environment(unit), stdin=subprocess.DEVNULL,
                                stdout=log, stderr=log, start_new_session=True)  # fmt: skip
    finally:
        os.close(log)


def _has_ended(child: subprocess.Popen[bytes]) -> bool:
    """Where the system allows it without reaping: its process group keeps its number until then."""
    if not hasattr(os, "waitid"):  # macOS, before Python 3.13
        return child.poll() is not None
    return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _reap_orphans(ours: set[int]) -> None:
    """The first process of a container inherits everybody's orphans."""
    with contextlib.suppress(ChildProcessError):
        while (seen := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and seen.si_pid not in ours:
            os.waitpid(seen.si_pid, 0)
