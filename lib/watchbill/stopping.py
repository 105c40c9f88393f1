"""THE STORY of a stop: hold everything, end what runs, and put on record what became of it.

In the order of what must not fail. The hold is written first, in a thread: whoever is to be stopped may be keeping the
ledger locked. Then every runner is told to end, and given some seconds to stop its engine, keep its work, settle and
release. Whoever is still there is killed with all that it started. Only then is anything done that needs an answer from
somebody: what a killed firing owed is billed from what it left, and its claim given back, as the next firing would do.

Runners are found by the ledger's rows and by the kernel's locks, whichever can be had; what they started by descent and
by the mark in its environment. Nothing needs the network until nothing runs any more.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, NamedTuple

from watchbill import compiled, gatefiles, look, process
from watchbill.claims.hold import VERSION, HoldRecord
from watchbill.clock import SystemClock
from watchbill.compiled import Compiled
from watchbill.errors import Fixable
from watchbill.home import Home
from watchbill.host import host_id
from watchbill.ids import new_id
from watchbill.ledger import claims, db, evidence, firings, holds, polls, reservations
from watchbill.ledger.db import Ledger
from watchbill.ledger.holds import Hold
from watchbill.outcomes import Ending as End
from watchbill.process import Identity
from watchbill.runners import Ending, Live, Say, Told, issue_of, living
from watchbill.woken import Options

KIND = "stop"
#: An edited roster is read in this time, or the last that compiled will do.
_ROSTER_S = 2.0
#: The ledger gets so long before the rest begins without it.
LEDGER_S = 2.0
#: Giving back one claim may take so long, and all of them together.
_RELEASE_S, _RELEASES_S = 20.0, 60.0


class Order(NamedTuple):
    """What a person said."""

    reason: str
    author: str
    since: int  # UTC epoch seconds
    until: int | None  # None: until somebody resumes


class Became(NamedTuple):
    """What the stop made of one firing."""

    agent: str
    firing: str | None
    issue: str | None
    pid: int
    pids: tuple[int, ...]  # it and everything below it, when it was told to end
    how: str  # ended by itself | killed | still runs
    seconds: float  # from its signal until nothing of it was there
    outcome: str | None  # of its row
    cost_micro: int | None
    basis: str | None
    billed: bool  # its row has ended, and nothing is reserved for it any more
    claim: str  # "-" for none; released to retry | released to human | published: .. | not released: ..
    kept: str | None  # where its unpublished work is; None: there was none
    left: tuple[int, ...]  # of `pids`, those that are still there


class Stopped(NamedTuple):
    """A stop that was carried out."""

    problem: Fixable | None  # why there is no hold, or nothing could be written down
    firings: tuple[Became, ...]
    left: tuple[int, ...]  # pids that are still there
    seconds: float  # from the first signal until nothing ran
    unreleased: dict[str, str] = {}  # issue -> why its claim could not be given back now, also of who died before

    @property
    def proven(self) -> bool:
        """Nothing runs, and everything is billed."""
        return self.problem is None and not self.left and all(one.billed for one in self.firings)


def everything(home: Home, order: Order, roster: Compiled | None, say: Say, book: Book) -> Stopped:
    """End all that runs, on record. `book` has written the hold, or is still trying to."""
    book.telling = True
    ending = Ending(home, lambda: book.live, say)
    ending.tell_and_wait()
    ending.kill()
    try:
        return _finish(ending, home, order, roster, say, book)
    finally:
        for live in ending.above()[:1]:
            say(f"this stop runs inside {live.agent} (pid {live.who.pid}): it is told last, and ends both")
            process.tell(live.who, signal.SIGTERM)


def _finish(ending: Ending, home: Home, order: Order, roster: Compiled | None, say: Say, book: Book) -> Stopped:
    """Put on record what was ended."""
    book.finish()
    said: dict[str, str] = {}
    problem = book.problem
    if problem is None:
        try:
            ledger = db.open_ledger(home.ledger)
            try:
                said = _put_on_record(home, ledger, order, roster, say)
                return _report(ending, home, ledger, said, None)
            finally:
                ledger.close()
        except Fixable as found:
            problem = found
    return _report(ending, home, None, said, problem)


def roster_of(home: Home) -> Compiled | None:
    """The roster as it stands, else the last that compiled: a stop needs to know where to tell of it, and no more."""
    known = compiled.load(home.roster)
    if compiled.is_current(known, home.root):
        return known
    found: list[Compiled] = []

    def read() -> None:
        from watchbill.roster import read_roster  # third-party: only when an edit was not compiled yet

        with contextlib.suppress(Exception):  # what is wrong with it says every other verb
            found.append(read_roster(home.root))

    # A daemon, and not waited for: a file of it may lie where nobody answers.
    reader = threading.Thread(target=read, name="roster", daemon=True)
    reader.start()
    reader.join(_ROSTER_S)
    return found[0] if found else known


# The hold


class Book:
    """The ledger of this host, in a thread of its own: who lives, the hold, and who lives once it stands."""

    def __init__(self, home: Home, order: Order | None, roster: Compiled | None = None) -> None:
        """`order` None: only look."""
        self.live: tuple[Live, ...] = ()
        self.telling = False  # somebody has been told to end: who is found dead from then on may have died of it
        self.problem: Fixable | None = None
        self.unshut = ""  # why there is no gate file, as a sentence
        self.order = order  # as it stands: of an earlier stop, where that one lasts longer
        self._home, self._roster = home, roster
        self._done = threading.Event()
        self._begin()

    def wait(self, seconds: float | None = LEDGER_S) -> bool:
        """Until the hold stands, or cannot be written; False when that takes longer."""
        return self._done.wait(seconds)

    def finish(self) -> None:
        """The same after everything was ended: who kept the ledger locked may be gone now."""
        self._done.wait()
        if self.problem is not None:
            self._done.clear()
            self._begin()
            self._done.wait()

    def _begin(self) -> None:
        # A daemon: a ledger that answers never does not keep the stop from ending.
        threading.Thread(target=self._write, name="hold", daemon=True).start()

    def _write(self) -> None:
        try:
            self.problem = None
            ledger = db.open_ledger(self._home.ledger)
            try:
                host = host_id(self._home.host)
                self.live = living(ledger, host)
                if self.order is not None:
                    self.order = hold(ledger, self.order)
                    self._shut(self.order)
                    self.live = living(ledger, host)
                    self._bury_the_dead(ledger, host)
            finally:
                ledger.close()
        except Fixable as problem:
            self.problem = problem
        except Exception as problem:  # whatever it is, it must not pass for a hold
            what = f"the ledger of {self._home.root}: {type(problem).__name__}: {problem}"
            self.problem = Fixable("WB-STOP-01", what, outcome="needs_human")
        finally:
            self._done.set()

    def _shut(self, order: Order) -> None:
        """The gate file, where only a person ends this. The hold holds without it, and no stop fails for it."""
        why = f"{order.reason}: stopped by {order.author}"
        self.unshut = gatefiles.put(self._home.gate(), why) if order.until is None else ""

    def _bury_the_dead(self, ledger: Ledger, host: str) -> None:
        """Who died before this stop did not die of it."""
        if self.telling or not look.some_died(ledger, host):
            return
        from watchbill import bury

        bury.the_dead(ledger, self._home, host, self._roster, int(SystemClock().now()))


class Word:
    """Telling the other hosts, in a thread: nothing here waits for a repository."""

    def __init__(self, home: Home, book: Book, roster: Compiled | None) -> None:
        """`book`: what it has written is what is told, if it could be written soon."""
        self._told: dict[str, str] = {}
        self._thread = threading.Thread(target=self._tell, args=(home, book, roster), name="word")
        self._thread.start()

    def told(self) -> dict[str, str]:
        """Repository -> "" when every host can read it there, else why not; waits for it, some seconds at most."""
        self._thread.join()
        return self._told

    def _tell(self, home: Home, book: Book, roster: Compiled | None) -> None:
        book.wait()
        order = book.order
        if roster is None or not roster.agents or order is None:
            return
        from watchbill import elsewhere
        from watchbill.ports import Ports

        nobody: Any = None  # its ledger is for what is paced, and a stop is not
        ports = Ports(home, roster.fleet, next(iter(roster.agents.values())), SystemClock(), nobody)
        record = HoldRecord(VERSION, KIND, order.reason, order.author, host_id(home.host), order.since, order.until,
                            os.urandom(8).hex())  # fmt: skip
        try:
            self._told = elsewhere.announce(ports, record)
        except Exception as problem:  # words to others are not what a stop fails for
            why = f"{type(problem).__name__}: {problem}"
            self._told = dict.fromkeys(roster.fleet.repos, why)


def hold(ledger: Ledger, order: Order) -> Order:
    """Hold the fleet, durably; the stop that stands, also an earlier one that lasts as long."""
    with ledger.transaction(durable=True):
        for other in holds.standing(ledger, order.since):
            lasts = other.until is None or (order.until is not None and other.until >= order.until)
            if (other.scope, other.kind) == ("fleet", KIND) and lasts:
                return Order(other.reason, other.author, other.since, other.until)
        holds.add(ledger, Hold(0, "fleet", "", KIND, order.reason, order.author, order.since, order.until))
    return order


def _issue_of(ledger: Ledger, firing: str) -> str:
    row = firings.get(ledger, firing)
    return (issue_of(row) if row else None) or f"firing {firing}"


# What became of them


def _report(
    ending: Ending, home: Home, ledger: Ledger | None, said: dict[str, str], problem: Fixable | None
) -> Stopped:
    """`said`: firing -> why its claim could not be given back."""
    rows = [_became(ending, home, told, ledger, said) for told in ending.told.values()]
    gone = max(ending.gone.values(), default=ending.began)
    unreleased = {_issue_of(ledger, firing): why for firing, why in said.items() if why} if ledger else {}
    return Stopped(problem, tuple(rows), ending.left(), gone - ending.began, unreleased)


def _became(ending: Ending, home: Home, told: Told, ledger: Ledger | None, said: dict[str, str]) -> Became:
    live, who = told.live, told.live.who
    how = "still runs" if process.alive(who) else "killed" if who in ending.killed else "ended by itself"
    row = _row_of(ledger, live) if ledger else None
    was = Became(
        agent=live.agent, firing=live.firing, issue=live.issue, pid=who.pid,
        pids=tuple(one.pid for one in told.tree), how=how, seconds=ending.gone.get(who, time.monotonic()) - told.at,
        outcome=None, cost_micro=None, basis=None, billed=ledger is not None and live.firing is None, claim="-",
        kept=None, left=tuple(one.pid for one in told.tree if process.alive(one)),
    )  # fmt: skip
    if ledger is None or row is None:
        return was  # with a ledger: it ended before it began, and neither owned nor owed anything
    return was._replace(
        firing=row.id, issue=issue_of(row), outcome=row.outcome, cost_micro=row.cost_micro, basis=row.cost_basis,
        billed=row.ended is not None and not reservations.open_of(ledger, row.id),
        claim=_claim(ledger, row.id, said.get(row.id, "")), kept=_kept(home, ledger, row.id),
    )  # fmt: skip


def _row_of(ledger: Ledger, live: Live) -> firings.Firing | None:
    if live.firing is not None:
        return firings.get(ledger, live.firing)
    rows = firings.of_agent(ledger, live.agent, 3)
    return next((row for row in rows if Identity(row.pid, row.pid_started, row.boot) == live.who), None)


# On record


def _put_on_record(home: Home, ledger: Ledger, order: Order, roster: Compiled | None, say: Say) -> dict[str, str]:
    """Bill the dead, and give back what they owned; firing -> why that could not be done now.

    Each claim has its own time, and a repository that did not answer once is not asked again: giving back can wait, the
    next firing after the stop does it too.
    """
    from watchbill import bury  # third-party from here on: those who run have been told, or are gone

    host, clock = host_id(home.host), SystemClock()
    words = f"ended by `watchbill stop --now` of {order.author}: {order.reason}"
    bury.the_dead(ledger, home, host, roster, int(clock.now()), End("cancelled", words, "stopped"))
    silent: dict[str, str] = {}
    said: dict[str, str] = {}
    until = time.monotonic() + _RELEASES_S
    for owned in claims.live(ledger, host):
        if not look.is_over(ledger, owned):
            continue
        why = silent.get(owned.repo)
        if why is None and time.monotonic() < until:
            say(f"giving back {owned.repo}#{owned.number} ...")
            why = _give_back(home, ledger, roster, owned)
            if why == _SILENT:
                silent[owned.repo] = why
        said[owned.firing] = why if why is not None else "no time was left for it"
    return said


_SILENT = f"no answer in {_RELEASE_S:.0f} s"


def _give_back(home: Home, ledger: Ledger, roster: Compiled | None, owned: claims.Claim) -> str:
    """Repair what a dead firing owned; "" or why it could not be."""
    from watchbill import repair
    from watchbill.ledger.firings import Firing as Row
    from watchbill.ports import Ports

    if roster is None or owned.repo not in roster.fleet.repos:
        return "no roster says where its repository is"
    dead = firings.get(ledger, owned.firing)
    agent = roster.agents.get(dead.agent if dead else "") or next(iter(roster.agents.values()))
    clock, me = SystemClock(), process.me()
    now = int(clock.now())
    row = Row(new_id(now), agent.name, agent.role, owned.host, me.boot, me.pid, me.started, None, now)
    ports = Ports(home, roster.fleet, agent, clock, ledger)
    f = _session()(row, agent, roster, ports, Options(agent.name), now * 1000)
    try:
        with _deadline(_RELEASE_S):
            repair.the_dead(f, only=owned.firing)
    except _Late:
        return _SILENT
    finally:
        ports.close()
        with ledger.transaction():
            polls.give_back_all(ledger, f.id)  # its turn to repair this claim, however it went
    still = claims.of_firing(ledger, owned.firing)
    return "" if still is None or still.state not in ("intended", "won") else (f.why or "it was not released")


def _session() -> Any:
    """A firing's session without a row, that remembers why something could not be done."""
    from watchbill.live import Firing

    class Session(Firing):
        why = ""

        def note(self, text: str, **facts: Any) -> None:
            self.why = " ".join(str(facts.get("error") or facts.get("reason") or self.why).split())[:200]
            super().note(text, **facts)

    return Session


class _Late(BaseException):
    """Its time is over. No Exception: nobody on the way takes it for an outage and goes on."""


@contextlib.contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Raises _Late, in whatever the main thread is waiting for."""

    def over(_number: int, _frame: FrameType | None) -> None:
        raise _Late

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _claim(ledger: Ledger, firing: str, why: str) -> str:
    owned = claims.of_firing(ledger, firing)
    if owned is None:
        return "-"
    if owned.state in ("intended", "won"):
        if owned.record == "published":
            return "published: its pull request is opened after the stop"
        return f"not released: {why or 'not yet'}"
    return owned.record if owned.state == "ended" else owned.state


def _kept(home: Home, ledger: Ledger, firing: str) -> str | None:
    for record in evidence.of_firing(ledger, firing):
        if record.kind == "kept":
            return str(record.summary["ref"])
    place = os.path.join(home.worktrees, firing)
    return place if os.path.isdir(place) else None
