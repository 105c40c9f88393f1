"""Pushes to a repository keep a distance, over all processes of a host."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support import repos
from support.ledgers import new_ledger
from watchbill.claims.refs import Move
from watchbill.compiled import Agent, Breaker, Claims, Fleet, Host, Labels, Repo, Timers
from watchbill.home import Home
from watchbill.ledger import paces
from watchbill.ledger.db import Ledger
from watchbill.ports import Ports
from watchbill.practice import githttp


class Clock:
    """A clock that only sleep moves."""

    def __init__(self) -> None:
        self.at = 1_790_000_000.0
        self.naps: list[float] = []

    def now(self) -> float:
        return self.at

    def elapsed(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.at += seconds


def take(ledger: Ledger, now: float, repo: str = "acme/api", per_minute: int = 6) -> float:
    with ledger.transaction():
        return paces.take(ledger, repo, per_minute, now)


def test_a_burst_goes_at_once_and_what_follows_keeps_the_distance(tmp_path: Path) -> None:
    ledger, clock = new_ledger(tmp_path), Clock()
    waits = []
    for _ in range(10):
        waits.append(take(ledger, clock.now()))
        clock.sleep(waits[-1])
    assert waits == [0] * 6 + [10] * 4
    assert take(ledger, clock.now(), "acme/web") == 0
    assert take(ledger, clock.now(), "Acme/API") == 10  # names of repositories know no case
    clock.sleep(3600)
    assert [take(ledger, clock.now()) for _ in range(7)] == [0] * 6 + [10]


def test_nobody_waits_longer_than_a_minute_and_a_pile_is_not_paid_off_later(tmp_path: Path) -> None:
    """A renewal and a publication must not starve. Broken on purpose: no bound; the fiftieth waited 440 s."""
    ledger, clock = new_ledger(tmp_path), Clock()
    waits = [take(ledger, clock.now()) for _ in range(50)]
    assert waits == sorted(waits)
    assert waits[-1] == paces.WAIT_MOST_S
    assert take(ledger, clock.now() + paces.WAIT_MOST_S) == pytest.approx(10, abs=0.01)


def test_a_clock_that_was_set_back_costs_one_longest_wait(tmp_path: Path) -> None:
    ledger, clock = new_ledger(tmp_path), Clock()
    take(ledger, clock.now())
    assert take(ledger, clock.now() - 86_400) == paces.WAIT_MOST_S
    assert take(ledger, clock.now() - 86_400 + 120) == 0


RACER = """
import sys
from watchbill.clock import SystemClock
from watchbill.ledger import db, paces
ledger, clock = db.open_ledger(sys.argv[1]), SystemClock()
sys.stdin.readline()
for _ in range(5):
    now = clock.now()
    with ledger.transaction():
        wait_s = paces.take(ledger, "acme/api", 600, now)
    clock.sleep(wait_s)
    print(now + wait_s, flush=True)
"""


def test_processes_that_race_keep_the_distance_together(tmp_path: Path) -> None:
    """Six at once, then one in 100 ms, whoever it is. Broken on purpose: each with its own row; seven were in 90 ms."""
    ledger = new_ledger(tmp_path)
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, ledger.path], text=True,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(4)
    ]  # fmt: skip
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    said = [racer.communicate(timeout=60)[0] for racer in racers]
    made = sorted(float(line) for text in said for line in text.split())
    assert len(made) == 20
    for n, at in enumerate(made):
        for m in range(n + paces.BURST, len(made)):
            assert made[m] - at >= (m - n - paces.BURST + 1) * 0.1 - 0.002


# As a firing has it


def ports(tmp_path: Path, clock: Clock, remote: str, **changes: Any) -> tuple[Ports, Repo]:
    repo = Repo("acme/api", remote, (), 1200, (), **changes)
    fleet = Fleet({"acme/api": repo}, (), (), "", 60, Labels(), Claims(), "http://127.0.0.1:1",
                  "token:env:TOKEN", {}, 1, "deny", {}, Host(), Breaker(), 86_400, (), Timers())  # fmt: skip
    agent = Agent("bosun", "", "implement", "manual", (), {"use": "command"}, (), None, (), 60, (), "none", "x", (), "",
                  {})  # fmt: skip
    home = Home(str(tmp_path / "home"))
    return Ports(home, fleet, agent, clock, new_ledger(tmp_path)), repo


@pytest.fixture
def served(tmp_path: Path) -> Path:
    bare = tmp_path / "served" / "acme" / "api.git"
    bare.parent.mkdir(parents=True)
    repos.make_bare(bare, {"README": "read me\n"})
    return bare


def push_claims(outside: Ports, repo: Repo, count: int, patient: bool = True) -> list[str]:
    refs = outside.claim_refs(repo, patient)
    kinds = []
    for number in range(1, count + 1):
        record = repos.claim_record(number=number, generation=1, sequence=0, nonce=os.urandom(8).hex())
        kinds.append(refs.swap(Move(refs.ref(number), "", refs.write(record, None, None))).kind)
    return kinds


def test_pushes_over_the_network_are_paced_by_the_rosters_number(
    tmp_path: Path, served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.0.0.0 is this host to Linux, and no loopback address to us. Broken on purpose: no pace given to the refs."""
    monkeypatch.setenv("TOKEN", "x")
    clock = Clock()
    with githttp.serve(str(tmp_path / "served")) as url:
        remote = url.replace("127.0.0.1", "0.0.0.0") + "/acme/api.git"
        outside, repo = ports(tmp_path, clock, remote, pushes_per_minute=12)
        assert push_claims(outside, repo, 9) == ["ok"] * 9
    assert clock.naps == [5.0] * 3
    assert len([ref for ref in repos.refs(served) if ref.startswith("refs/watchbill/claims/")]) == 9


def test_a_renewal_beside_a_running_engine_waits_for_no_turn_but_takes_one(
    tmp_path: Path, served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is it made again at once: the engine's limits are looked after by the same loop."""
    monkeypatch.setenv("TOKEN", "x")
    clock = Clock()
    with githttp.serve(str(tmp_path / "served")) as url:
        outside, repo = ports(tmp_path, clock, url.replace("127.0.0.1", "0.0.0.0") + "/acme/api.git")
        assert push_claims(outside, repo, 8, patient=False) == ["ok"] * 8
        assert clock.naps == []
        served.rename(served.with_suffix(".away"))
        record = repos.claim_record(number=9, generation=1, sequence=0)
        refs = outside.claim_refs(repo, patient=False)
        assert refs.swap(Move(refs.ref(9), "", refs.write(record, None, None))).kind == "unknown"
        assert clock.naps == []
        served.with_suffix(".away").rename(served)
        assert take(outside.ledger, clock.now()) == 40  # the tenth


def test_pushes_on_this_host_are_not_paced_and_go_where_the_roster_says(tmp_path: Path, served: Path) -> None:
    clock = Clock()
    outside, repo = ports(tmp_path, clock, str(served), claims="refs/heads")
    assert push_claims(outside, repo, 9) == ["ok"] * 9
    assert clock.naps == []
    assert len([ref for ref in repos.refs(served) if ref.startswith("refs/heads/watchbill/claims/")]) == 9
