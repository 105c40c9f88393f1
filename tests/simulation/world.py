"""Time, hosts and what befalls them: one event heap, one greenlet a firing, one stream of chance a firing.

Everything a firing does outside itself is a point: a request, a sleep, a ledger transaction. At a point it may be
killed, its host may freeze or lose power, its request may be lost before or after it was executed, or be executed late.
A dead firing's ports refuse by raising `Crashed`, a BaseException, so that nothing in it can tidy up after itself.

Chance is drawn from a stream of each firing's own, always the same number of draws a point: taking one fault away
leaves all other draws as they were, which is what makes a failing schedule shrink.
"""

from __future__ import annotations

import heapq
import random
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import greenlet

#: What the wall clocks show when a schedule begins; UTC epoch seconds.
EPOCH = 1_790_000_000.0
#: A request slower than this is given up by the client, and may still be executed.
CLIENT_TIMEOUT_S = 60.0


class Crashed(BaseException):
    """The process is dead: whatever it still tries fails."""


class NoAnswer(Exception):
    """A request got no answer; it may have been executed."""


class Rates(NamedTuple):
    """How often a point goes wrong."""

    crash: float = 0.0
    lost: float = 0.0  # never executed
    unanswered: float = 0.0  # executed, the answer lost
    late: float = 0.0  # executed after the client gave up
    freeze: float = 0.0
    stale: float = 0.0  # a list shows an earlier moment


#: At a request; at a ledger transaction only crash and freeze, at a rate that makes a firing's steps equally dangerous.
_KINDS = ("crash", "lost", "unanswered", "late", "freeze")
_LEDGER_SHARE = 0.25


class Host:
    """One machine: its clocks, its ledger, its objects, the firings that live on it."""

    def __init__(self, world: World, index: int, skew_s: float) -> None:
        self.world = world
        self.index = index
        self.name = f"h{index}"
        self.id = f"host{index}"
        self.skew_s = skew_s
        self.boots = 1
        self.booted_at = 0.0
        self.down = False
        self.gone = False  # for good
        self.frozen_until = 0.0
        self.frozen_s = 0.0  # in all: to tell a firing that was disturbed
        self.procs: dict[int, Proc] = {}
        self.pids = 100
        self.locks: dict[str, Proc] = {}
        self.objects: set[str] = set()
        self.local_refs: dict[str, str] = {}
        self.worktrees: dict[str, str] = {}  # path -> tree id of what lies there
        self.unknown_trees: set[str] = set()  # of firings that the ledger knows no more: nobody may remove these
        self.connection: Any = None

    @property
    def boot(self) -> str:
        return f"{self.id}-boot{self.boots}"

    def elapsed(self) -> float:
        return self.world.now - self.booted_at + 100.0

    def freeze(self, seconds: float, why: str) -> None:
        until = self.world.now + seconds
        if until > self.frozen_until:
            self.frozen_until = until
            self.frozen_s += seconds
            self.world.say(self.name, f"FREEZES for {seconds:.0f} s ({why})")


class Proc:
    """One firing's process."""

    def __init__(self, host: Host, agent: str, key: tuple[int, int, int], run: Callable[[Proc], None]) -> None:
        self.host = host
        self.world = host.world
        self.agent = agent
        self.key = key  # host, agent, ordinal: the same in every variation of a schedule
        host.pids += 1
        self.pid = host.pids
        self.boot = host.boot
        self.started = self.world.now
        self.rng = random.Random(hash((self.world.seed, *key)))
        self.points = 0
        self.dead = False
        self.over = False
        self.firing = ""
        self.requests: list[float] = []  # when each was sent
        self.troubles = 0
        self.came_to = ""  # how its engine ended, by itself
        self.bug: BaseException | None = None
        self._token = 0
        self._run = run
        self.greenlet = greenlet.greenlet(self._live)
        self.greenlet.proc = self
        host.procs[self.pid] = self
        self.world.live += 1
        self.world.soon(partial(self._resume, 0))

    @property
    def name(self) -> str:
        return f"{self.host.name}/{self.agent}.{self.key[2]}"

    def _live(self) -> None:
        try:
            if not self.dead:
                self._run(self)
        except Crashed:
            pass
        except BaseException as error:
            self.bug = error
            self.world.bugs.append((self, error))
        finally:
            self.over = True
            self.host.procs.pop(self.pid, None)
            for path in [path for path, holder in self.host.locks.items() if holder is self]:
                del self.host.locks[path]
            self.world.live -= 1

    def _resume(self, token: int) -> None:
        if self.over or token != self._token:
            return
        if not self.dead and self.host.frozen_until > self.world.now:
            self.world.at(self.host.frozen_until, partial(self._resume, token))
            return
        self.greenlet.switch()

    def check(self) -> None:
        """Raise Crashed when this process is dead."""
        if self.dead:
            raise Crashed

    def wait(self, until: float) -> None:
        """Let the world go on until then, or until the host thaws."""
        self.check()
        self._token += 1
        self.world.at(until, partial(self._resume, self._token))
        self.world.hub.switch()
        self.check()

    def kill(self) -> None:
        """As kill -9: it gets no chance to do anything."""
        if self.dead or self.over:
            return
        self.dead = True
        if greenlet.getcurrent() is not self.greenlet:
            self._token += 1
            self.world.soon(partial(self._resume, self._token))

    # Points

    def _fault(self, share: float, kinds: int) -> str | None:
        """What goes wrong at this point, if anything; on record, or as the record of an earlier run has it."""
        draw = self.rng.random()
        world = self.world
        key = (*self.key, self.points)
        self.points += 1
        if world.quiet:
            return None
        if world.replay is not None:
            fault = world.replay.get(key)
        else:
            fault, at = None, 0.0
            for kind, rate in zip(_KINDS[:kinds], world.rates[:kinds], strict=True):
                at += rate * share
                if draw < at:
                    fault = kind
                    break
            if kinds == 1 and fault is None and draw < at + world.rates.freeze * share:
                fault = "freeze"
        if fault is not None:
            world.faults[key] = fault
            self.troubles += 1
        return fault

    def _chance(self) -> random.Random:
        """Details of the fault at the point just counted; no draw of the stream."""
        return random.Random(zlib.crc32(repr((self.world.seed, *self.key, self.points)).encode()))

    def step(self, what: str) -> None:
        """A point inside the host: a ledger transaction is about to begin."""
        self.check()
        fault = self._fault(_LEDGER_SHARE, 1)
        if fault == "crash":
            self._crash(what)
        elif fault == "freeze":
            self.host.freeze(self.world.freeze_s(self._chance()), f"before {what}")
            self.wait(self.host.frozen_until)
        elif len(self.host.procs) > 1:
            self.wait(self.world.now + 0.002 + 0.008 * self.rng.random())

    def sleep(self, seconds: float) -> None:
        self.check()
        if self._fault(_LEDGER_SHARE, 1) == "crash":
            self._crash("a sleep")
        self.wait(self.world.now + max(seconds, 0.5))

    def request(
        self, what: str, execute: Callable[[], Any], timeout_s: float = CLIENT_TIMEOUT_S, via: str = "api"
    ) -> Any:
        """Have the server execute something; its answer. NoAnswer when none came. What it raises is raised here."""
        self.check()
        world = self.world
        self.requests.append(world.now)
        there, back = self.rng.random(), self.rng.random()
        fault = self._fault(1.0, 5)
        chance = self._chance() if fault else None
        if fault == "freeze" and chance is not None and chance.random() < 0.5:  # before it is sent
            self.host.freeze(world.freeze_s(chance), f"before {what}")
            self.wait(self.host.frozen_until)
            fault = None
        if fault == "crash" and chance is not None and chance.random() < 0.4:
            self._crash(f"before {what}")
        travel = world.latency_s(there)
        if fault == "late":
            travel += timeout_s + chance.random() ** 3 * 1800 if chance else timeout_s
        answer: list[Any] = []
        if fault != "lost" and not world.out(world.now + travel, via):
            world.at(world.now + travel, partial(self._execute, what, execute, answer, fault))
        if fault == "crash" and chance is not None:  # sent, and perhaps executed
            self.wait(world.now + travel * (0.5 + chance.random()))
            self._crash(f"during {what}")
        if fault == "freeze" and chance is not None:
            self.host.freeze(world.freeze_s(chance), f"during {what}")
        if fault in ("lost", "unanswered") and chance is not None and chance.random() < 0.5:
            self.wait(world.now + travel + 0.1)  # a connection that was cut
        else:
            self.wait(world.now + min(travel + world.latency_s(back), timeout_s))
        if not answer or fault == "unanswered":
            self.troubles += 1
            world.say(self.name, f"{what}: no answer")
            raise NoAnswer(what)
        value = answer[0]
        if isinstance(value, Exception):
            raise value
        return value

    def _execute(self, what: str, execute: Callable[[], Any], answer: list[Any], fault: str | None) -> None:
        try:
            value = execute()
        except Exception as refusal:
            value = refusal
        answer.append(value)
        if self.world.trace is not None:
            note = f" [{fault}]" if fault else ""
            self.world.say(self.name, f"{what} -> {self.world.shown(value)}{note}")

    def _crash(self, where: str) -> None:
        """The process is killed here, or the whole host loses power."""
        world, chance = self.world, self._chance()
        if chance.random() < 0.7:
            world.say(self.name, f"KILLED {where}")
            self.dead = True
        else:
            world.power_off(self.host, chance, where)
        world.crashes += 1
        raise Crashed


class World:
    """One schedule's time."""

    def __init__(self, seed: int, rates: Rates, ttl_s: float, replay: dict[Any, str] | None, trace: bool) -> None:
        self.seed = seed
        self.rates = rates
        self.ttl_s = ttl_s
        self.replay = replay
        self.trace: list[str] | None = [] if trace else None
        self.now = 0.0
        self.quiet = False
        self.outages: list[tuple[float, float, str]] = []  # begin, end, of what: api | git
        self.faults: dict[Any, str] = {}
        self.hosts: list[Host] = []
        self.bugs: list[tuple[Proc, BaseException]] = []
        self.crashes = 0
        self.freezes = 0
        self.live = 0
        self.hub = greenlet.getcurrent()
        self.on_boot: Callable[[Host], None] = lambda _host: None
        self.on_ledger_loss: Callable[[Host], None] = lambda _host: None
        self.beat_s = 60.0
        #: So many requests lie between the last read that a person's word can be heeded by and an effect: what a
        #: person does meanwhile comes too late, whatever a client does (a forge has no precondition on these).
        self.unfenced = 5
        self.sending: dict[Proc, float] = {}
        self.shown_events: dict[tuple[Proc, int], int] = {}  # the newest label event a firing was shown of an issue
        self.on_read: Callable[[Proc, int], None] = lambda _proc, _number: None
        self.on_told: Callable[[Proc, list[str]], None] = lambda _proc, _refs: None
        #: A firing has read the refs, and is about to send its work: the worst moment to be frozen.
        self.on_publishing: Callable[[Proc, int], None] = lambda _proc, _number: None
        self.on_run: Callable[[Proc, bool], None] = lambda _proc, _begins: None
        self.on_dropped: Callable[[Host, str], None] = lambda _host, _path: None
        self.engine_plan: Callable[[Proc], tuple[str, float, int]] = lambda _proc: ("ok", 60.0, 0)
        self.check_is_red: Callable[[Proc, str], bool] = lambda _proc, _log: False
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, when: float, call: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, call))

    def soon(self, call: Callable[[], None]) -> None:
        self.at(self.now, call)

    def run(self, until: float) -> None:
        """Everything that happens up to a moment."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, call = heapq.heappop(heap)
            call()
        self.now = max(self.now, until)

    def drain(self, until: float) -> None:
        """Everything that happens while a firing lives, at most up to a moment."""
        heap = self._heap
        while self.live and heap and heap[0][0] <= until:
            self.now, _, call = heapq.heappop(heap)
            call()

    def stop(self) -> None:
        """End every firing that is still there."""
        for host in self.hosts:
            for proc in list(host.procs.values()):
                proc.dead = True
                proc.greenlet.switch()

    def say(self, who: str, what: str) -> None:
        if self.trace is not None:
            self.trace.append(f"{self.now:10.2f}  {who:<12} {what}")

    def shown(self, value: Any) -> str:
        return repr(value)[:200]

    def latency_s(self, draw: float) -> float:
        """Heavy-tailed: a tenth of a second, one in a thousand half a minute."""
        return min(0.08 * (1.0 - draw + 1e-9) ** -0.8, 900.0) if not self.quiet else 0.1

    def freeze_s(self, chance: random.Random) -> float:
        """Seconds to minutes, or longer than a claim lasts."""
        self.freezes += 1
        if chance.random() < 0.5:
            return 2.0 + 120.0 * chance.random()
        return self.ttl_s * (0.3 + 2.2 * chance.random())

    def out(self, when: float, what: str) -> bool:
        """Is this part of the server away?"""
        return not self.quiet and any(begin <= when < end and what == part for begin, end, part in self.outages)

    def power_off(self, host: Host, chance: random.Random, where: str) -> None:
        host.down = True
        for proc in list(host.procs.values()):
            proc.kill()
        others = [other for other in self.hosts if other is not host and not other.gone]
        host.gone = bool(others) and chance.random() < 0.1
        away_s = 20.0 + 2.0 * self.ttl_s * chance.random() ** 2
        loses = chance.random() < 0.06
        self.say(
            host.name,
            f"LOSES POWER {where}; {'for good' if host.gone else f'for {away_s:.0f} s'}"
            f"{', and its ledger' if loses else ''}",
        )
        if not host.gone:
            self.at(self.now + away_s, partial(self.boot, host, loses))

    def boot(self, host: Host, loses_ledger: bool) -> None:
        if not host.down or host.gone:
            return
        host.down = False
        host.boots += 1
        host.booted_at = self.now
        host.frozen_until = self.now
        self.say(host.name, "boots")
        if loses_ledger:
            self.on_ledger_loss(host)
        self.on_boot(host)


def current() -> Proc:
    """The firing that is running just now."""
    return greenlet.getcurrent().proc  # type: ignore[no-any-return]
