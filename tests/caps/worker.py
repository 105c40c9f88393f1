"""One process: it reserves, spends request by request, settles; at times it dies in between, and buries who did.

What it truly spends goes to a file of its own, a line a request, before anything is recorded: that is the truth which
the judge holds the ledger to.
"""

from __future__ import annotations

import fcntl
import os
import random
import signal
import time
from collections.abc import Iterator

from caps.books import BOOKS, Books, Reserving
from caps.world import FIRING, REQUEST, Phase, worst_case
from watchbill.ledger.reservations import NOTHING, AboveCap, Subjects
from watchbill.money import UNITS

#: Where a process may be killed; "in ..." is inside the transaction, before it commits.
POINTS = ("granted", "spending", "spent", "in settle")
#: A process gives a phase up after so many firings: where no cap holds, it would never be used up.
_MOST = 60


class Worker:
    """One of many; `name` is also how its firings begin."""

    def __init__(self, root: str, name: str, seed: int, kind: str, kills: float) -> None:
        self.root, self.name, self.kills = root, name, kills
        self.chance = random.Random(f"{seed}/{name}")
        self.alive = os.open(os.path.join(root, f"{name}.alive"), os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self.alive, fcntl.LOCK_EX)
        self.truth = os.open(os.path.join(root, f"{name}.truth"), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        self.books: Books = BOOKS[kind](root)
        self.made = self.granted = 0

    def work(self, phases: list[Phase]) -> None:
        """Phase after phase, until the tight cap is used up for good."""
        for phase in phases:
            pairs, most = phase.pairs(), self.granted + _MOST
            while pairs and self.granted < most:
                agent, issue = self.chance.choice(pairs)
                self.made += 1
                whose = phase.subjects(f"{self.name}-{self.made}", agent, issue)
                try:
                    self._fire(phase, whose, agent)
                except AboveCap as above:
                    pairs = self._refused(above, agent, issue, pairs)

    def _fire(self, phase: Phase, whose: Subjects, agent: int) -> None:
        worst = worst_case(agent)
        if self.chance.random() < 0.03:  # more than a firing may have
            worst = {**worst, self.chance.choice(UNITS): 10 * FIRING["tokens"]}
        self.books.reserve(whose, worst, phase.caps())
        self.granted += 1
        dies = self.chance.choice(POINTS) if self.chance.random() < self.kills else ""
        self._point("granted", dies)
        if self.chance.random() < 0.05:  # it lost the claim: nothing was run
            self.books.settle(whose, NOTHING, "lost")
            return
        used = {**NOTHING, "firings": 1}
        self._tell("spent", whose, used)
        for request in self._requests():
            self._tell("spent", whose, request)
            used = {unit: used[unit] + request[unit] for unit in UNITS}
            self._point("spending", dies)
            time.sleep(self.chance.random() * 0.001)
        self._point("spent", dies)
        if dies == "in settle":
            self._die_in_settle(whose, used)
        assert self.books.settle(whose, used, "engine")

    def _requests(self) -> Iterator[dict[str, int]]:
        """Until the firing's cap is reached in some unit, or the work is done: it stops after a request, not in one."""
        left, goal = dict(FIRING), self.chance.uniform(0.3, 1.6)
        while all(left[unit] > (1 - goal) * FIRING[unit] for unit in REQUEST if REQUEST[unit]):
            if any(left[unit] <= 0 for unit in REQUEST if REQUEST[unit]):
                return
            request = {unit: self.chance.randint(REQUEST[unit] // 2, REQUEST[unit]) for unit in UNITS}
            left = {unit: left[unit] - request[unit] for unit in UNITS}
            yield request

    def _refused(self, above: AboveCap, agent: int, issue: int, pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Who may still try: a cap that is only reserved by others may come free, one that is spent does not."""
        wanted = above.wanted
        if wanted.scope == "firing" or (wanted.cap is not None and wanted.reserved > wanted.cap):
            return pairs
        if above.standing.settled + wanted.reserved <= (wanted.cap or 0):
            self.bury_the_dead()
            time.sleep(self.chance.random() * 0.002)
            return pairs
        os.write(self.truth, f"full|{wanted.scope}|{wanted.subject}|{wanted.period}|{wanted.unit}\n".encode())
        if wanted.scope == "issue":
            return [pair for pair in pairs if pair[1] != issue]
        return [pair for pair in pairs if pair[0] != agent] if wanted.scope == "day" else []

    def bury_the_dead(self) -> None:
        """Settle what a process left open that is gone; two may do so at once, and one of them counts."""
        names = [name[:-6] for name in os.listdir(self.root) if name.endswith(".alive")]
        name = self.chance.choice(names)
        if name == self.name:
            return
        lock = os.open(os.path.join(self.root, f"{name}.alive"), os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        finally:
            os.close(lock)
        for firing in self.books.open_of(name):
            self.books.bury(firing, stream_of(self.root, name, firing), whole=self.chance.random() < 0.5)

    def _tell(self, what: str, whose: Subjects, used: dict[str, int]) -> None:
        amounts = "|".join(str(used[unit]) for unit in UNITS)
        os.write(self.truth, f"{what}|{'|'.join(whose)}|{amounts}\n".encode())

    def _point(self, here: str, dies: str) -> None:
        if here == dies:
            os.kill(os.getpid(), signal.SIGKILL)

    def _die_in_settle(self, whose: Subjects, used: dict[str, int]) -> None:
        if isinstance(self.books, Reserving):
            with self.books.ledger.transaction():
                self.books.settle(whose, used, "engine")
                os.kill(os.getpid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def stream_of(root: str, process: str, firing: str) -> dict[str, int]:
    """What a firing spent by its own stream so far."""
    used = dict.fromkeys(UNITS, 0)
    with open(os.path.join(root, f"{process}.truth"), encoding="utf-8") as file:
        for line in file:
            what, *fields = line.rstrip("\n").split("|")
            if what == "spent" and fields[0] == firing:
                used = {unit: used[unit] + int(n) for unit, n in zip(UNITS, fields[-4:], strict=True)}
    return used
