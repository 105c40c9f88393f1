"""The shipped firing on modelled hosts: its ledger in memory, its ports the model's, its story its own.

`shipped(depth)` puts the model in place of what lies outside, for as long as the context lasts. Beyond the ports, only
what is neither claims, effects nor ledger semantics is cut short: log lines, evidence files, words for people; in the
depth `claims` also worktree, brief, collecting and checks, which become a stretch of time that renews as they do.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from simulation import outside, server
from simulation.outside import GIT, ForgePort, MirrorPort
from simulation.world import EPOCH, Host, Proc, World, current
from watchbill import (
    brief,
    claim,
    collect,
    compiled,
    ending,
    engine,
    evidence,
    firing,
    foreign,
    land,
    live,
    lock,
    mirror,
    process,
    render,
    repair,
    report,
    sweep,
    verify,
    wake,
    woken,
    worktree,
)
from watchbill.claims import refs
from watchbill.compiled import Agent, Breaker, Cap, Claims, Compiled, Fleet, Labels, Repo, Use
from watchbill.engines import supervise
from watchbill.home import Home
from watchbill.ids import new_id
from watchbill.ledger import db, migrate
from watchbill.ledger.db import Ledger
from watchbill.ledger.firings import Firing as Row
from watchbill.live import Firing, Target, Tree, Work
from watchbill.outcomes import Ending
from watchbill.ports import Ports
from watchbill.reports import ending as lines
from watchbill.woken import Options, Woken

IMPLEMENTERS = ("bosun", "mate")
STEWARD = "steward"
CAP_MICRO = 1_000_000
FLEET_DAY_MICRO = 60_000_000
LABELS = Labels()
_REMOTE = "/model/acme/api.git"


def roster(claims: Claims, depth: str) -> Compiled:
    """Two agents that implement and one that sweeps, alike on every host."""
    checks = ("make test",) if depth == "whole" else ()
    repo = Repo(server.REPO, _REMOTE, checks, 600, ())
    fleet = Fleet(
        {server.REPO: repo},
        (),
        (Cap("fleet_day", "usd", FLEET_DAY_MICRO),),
        "UTC",
        60,
        LABELS,
        claims,
        "https://model",
        "gh",
        {},
        hosts=1,
        unmeasured="charge-reservation",
        prices={},
        host=compiled.Host(min_free_bytes=0),
        breaker=Breaker(failures=0),
        ledger_keep_s=90 * 86_400,
        isolation_rw=(),
        timers=compiled.Timers(),
    )

    def agent(name: str, role: str) -> Agent:
        return Agent(
            name,
            "",
            role,
            "every 10m",
            (),
            {"use": "scripted", "steps": []},
            (Use("scripted", "scripted", None, None, None),),
            None,
            (),
            3600,
            (Cap("firing", "usd", CAP_MICRO),),
            "none",
            LABELS.implement,
            (server.REPO,),
            "{{ brief }}",
            {},
        )

    agents = {name: agent(name, "implement") for name in IMPLEMENTERS} | {STEWARD: agent(STEWARD, "sweep")}
    return Compiled("digest", (), fleet, agents)


# The ledger


class _Ledgers:
    """Ledgers in memory, emptied and used again: preparing their statements anew would cost more than using them."""

    def __init__(self) -> None:
        made = sqlite3.connect(":memory:", isolation_level=None)
        made.executescript("PRAGMA auto_vacuum=0;")
        migrate._apply(made, migrate.migrations())
        self._template = made.serialize()
        self._free: list[sqlite3.Connection] = []
        self._tables = [
            row[0]
            for row in made.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'migrations'")
        ]
        made.close()

    def take(self) -> sqlite3.Connection:
        if self._free:
            connection = self._free.pop()
            for table in self._tables:
                connection.execute(f"DELETE FROM {table}")
            return connection
        connection = sqlite3.connect(":memory:", isolation_level=None, cached_statements=512)
        connection.deserialize(self._template)
        connection.execute("DROP TRIGGER events_are_not_deleted")  # or it could not be emptied
        return connection

    def give_back(self, connection: sqlite3.Connection) -> None:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        self._free.append(connection)


LEDGERS = _Ledgers()
_QUERIES = db._read_queries()


class LedgerPort(Ledger):
    """A process' connection to its host's ledger. A transaction is a point; a dead process has none."""

    def __init__(self, proc: Proc) -> None:
        self.path = f"/model/{proc.host.name}/ledger.db"
        self._connection = proc.host.connection
        self._queries = _QUERIES
        self._inside = False
        self._proc = proc

    def rows(self, name: str, /, **values: Any) -> list[tuple[Any, ...]]:
        self._proc.check()
        return super().rows(name, **values)

    def write(self, name: str, /, **values: Any) -> int:
        self._proc.check()
        return super().write(name, **values)

    def transaction(self, *, durable: bool = False) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        if not self._inside:
            self._proc.step("a transaction")
        return super().transaction(durable=durable)

    def close(self) -> None:
        pass


class ClockPort:
    """A host's clocks, as one process sees them."""

    def __init__(self, proc: Proc) -> None:
        self._proc = proc

    def now(self) -> float:
        self._proc.check()
        return EPOCH + self._proc.world.now + self._proc.host.skew_s

    def elapsed(self) -> float:
        self._proc.check()
        return self._proc.host.elapsed()

    def sleep(self, seconds: float) -> None:
        self._proc.sleep(seconds)


class PortsPort(Ports):
    """The shipped ports, with forge and mirror of the model."""

    @property
    def token(self) -> str:  # type: ignore[override]
        return "none"

    def secrets(self) -> tuple[str, ...]:
        return ()

    @property
    def forge(self) -> Any:  # type: ignore[override]
        current().check()
        return _FORGES[0]

    def mirror(self, repo: Repo) -> MirrorPort:
        host = current().host
        return MirrorPort(outside.PATH.format(host.name), self.remote(repo))

    def close(self) -> None:
        pass


_FORGES: list[ForgePort] = []


# One firing


def fire(world: World, host: Host, agent: str, ordinal: int, compiled: Compiled, home: Home) -> Proc | None:
    """A timer starts an agent: gates, the shared poll at rest, the story. None: its host is down."""
    if host.down:
        return None

    def live_on(proc: Proc) -> None:
        clock = ClockPort(proc)
        now = clock.now()
        id = new_id(now)
        proc.firing = id
        row = Row(id, agent, "", host.id, proc.boot, proc.pid, proc.pid, None, int(now))
        options = Options(agent, scheduled=True)
        found = wake._past_roster(None, Woken(options, home, clock, LedgerPort(proc), row, int(now * 1000)), compiled)
        if isinstance(found, wake.Past):
            world.say(proc.name, f"firing {id[-4:]}")
            status = firing.main(*found)
            world.say(proc.name, f"firing {id[-4:]} ended with {status}")
        elif not isinstance(found, int):
            raise AssertionError(found)

    return Proc(host, agent, (host.index, [*IMPLEMENTERS, STEWARD].index(agent), ordinal), live_on)


# What is patched


def _alive(who: process.Identity) -> bool:
    host = current().host
    found = host.procs.get(who.pid)
    return who.boot == host.boot and found is not None and not found.dead and found.pid == who.started


@contextlib.contextmanager
def _agent_lock(path: str, timeout_s: float = 0.2) -> Iterator[None]:  # noqa: ARG001
    proc = current()
    holder = proc.host.locks.get(path)
    if holder is not None and not holder.over and not holder.dead:
        raise lock.Busy(path)
    proc.host.locks[path] = proc
    try:
        yield
    finally:
        if proc.host.locks.get(path) is proc:
            del proc.host.locks[path]


def _lock_held(path: str) -> bool:
    holder = current().host.locks.get(path)
    return holder is not None and not holder.over and not holder.dead


def _note(_f: Firing, text: str, **facts: Any) -> None:
    world = current().world
    if world.trace is not None:
        told = " ".join(f"{key}={server.short(value)}" for key, value in facts.items())
        world.say(current().name, f"- {text} {told}")


def _kept(f: Firing, kind: str, content: str, summary: dict[str, Any]) -> str:  # noqa: ARG001
    return f"digest-of-{kind}"


def _template(name: str, **values: Any) -> str:
    return f"{render.MARKER} {name} {values.get('state', '')}"


def _pull_request(f: Firing, owned: Any) -> tuple[str, str]:
    return f"Mend issue {owned.record.number}", f"Closes #{owned.record.number}, by {f.id}"


def _fresh(f: Firing, target: Target) -> Tree:
    f.tree = worktree.places(f, target.base)
    return f.tree


def _freeze(f: Firing, target: Target, tree: Tree) -> Work:
    """What the engine is said to have written, as one commit on the base."""
    if current().came_to == "no_change":
        raise collect.Ended("no_change", "the engine ended well and changed no file", "no-change")
    made = f.ports.mirror(target.repo)
    commit = made.commit(f"work-{f.id}", tree.base, f"Mend {target.issue.number}\n", f.agent.name, f.now)
    f.work = Work(f"work-{f.id}", commit, 1, 1, 0, "digest")
    return f.work


def _bug(_f: Firing, error: Exception) -> Ending:
    proc = current()
    proc.world.bugs.append((proc, error))
    return Ending("bug", repr(error), "bug")


def _nothing(*_args: Any, **_named: Any) -> None:
    return None


def _patches(depth: str) -> list[tuple[Any, str, Any]]:
    common: list[tuple[Any, str, Any]] = [
        (refs, "git", GIT),
        (mirror, "git", GIT),
        (process, "alive", _alive),
        (process, "end_marked", lambda *_a, **_k: []),
        (lock, "agent_lock", _agent_lock),
        (lock, "held", _lock_held),
        (firing, "Ports", PortsPort),
        (repair, "Ports", PortsPort),
        (supervise, "run", outside.run_engine),
        (supervise, "run_check", outside.run_check),
        (db, "_queue", lambda _path: contextlib.nullcontext()),
        (Firing, "note", _note),
        (Firing, "say", _note),
        (Firing, "heed_signals", _nothing),
        (Firing, "redact", lambda _f, text: text),
        (lines, "as_line", lambda *_: ""),
        (woken, "print", _nothing),
        (foreign, "print", _nothing),
        (sweep, "_VERIFIED_EVERY_S", 10**9),  # a ledger that is emptied and used again lacks a trigger
        (report, "print", _nothing),
        (live, "os", _OsOfLive()),
        (ending, "_bug", _bug),
    ]
    if depth == "whole":
        return common
    return [
        *common,
        (evidence, "keep", _kept),
        (render, "template", _template),
        (render, "pull_request", _pull_request),
        (worktree, "fresh", _fresh),
        (brief, "write", lambda *_: "the brief"),
        (engine, "ready", _nothing),
        (collect, "freeze", _freeze),
    ]


class _OsOfLive:
    """`os` for live.py: no directory is made for logs that are not written."""

    path = os.path

    @staticmethod
    def makedirs(*_: Any, **__: Any) -> None:
        pass


_MISSING = object()


@contextlib.contextmanager
def shipped(depth: str, more: list[tuple[Any, str, Any]] | None = None) -> Iterator[None]:
    """The shipped code over the model; `more`: what an ablation takes away from it."""
    done = []
    patches = [*_patches(depth), *(more or [])]
    try:
        for place, name, value in patches:
            done.append(
                (
                    place,
                    name,
                    vars(place).get(name, _MISSING)
                    if not isinstance(place, type)
                    else place.__dict__.get(name, _MISSING),
                )
            )
            setattr(place, name, value)
        yield
    finally:
        for place, name, value in reversed(done):
            if value is _MISSING:
                delattr(place, name)
            else:
                setattr(place, name, value)


@contextlib.contextmanager
def chance(seed: int) -> Iterator[None]:
    """Whatever the shipped code draws at random comes from the seed."""
    real, state = os.urandom, random.getstate()
    stream = random.Random(seed ^ 0x5EED)
    os.urandom = stream.randbytes  # type: ignore[assignment]
    random.seed(seed)
    try:
        yield
    finally:
        os.urandom = real
        random.setstate(state)


@contextlib.contextmanager
def place(depth: str) -> Iterator[Callable[[Host], Home]]:
    """Where the hosts' homes are; only whole firings write anything there."""
    if depth != "whole":
        yield lambda host: Home(f"/model/{host.name}")
        return
    root = tempfile.mkdtemp(prefix="watchbill-simulation-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    try:
        yield lambda host: Home(os.path.join(root, host.name))
    finally:
        shutil.rmtree(root, ignore_errors=True)


__all__ = ["LEDGERS", "claim", "land", "verify"]
