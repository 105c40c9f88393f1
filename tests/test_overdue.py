"""The dead-man's switch: who is overdue, who notices, and that it is said once."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.fleet import Fleet, agent, finish, fleet, write_agent
from support.gates import an_agent
from support.ledgers import firing
from watchbill import live, overdue, process
from watchbill.clock import SystemClock
from watchbill.compiled import Agent
from watchbill.home import Home
from watchbill.host import host_id
from watchbill.ids import new_id
from watchbill.ledger import firings, holds
from watchbill.ledger.holds import Hold
from watchbill.ledger.overdue import Last
from watchbill.outcomes import Ending
from watchbill.overdue import GRACE_S, Overdue
from watchbill.ports import Ports
from watchbill.roster import read_roster
from watchbill.schedulers import manifest, slots, spread
from watchbill.schedulers.manifest import Applied, Manifest
from watchbill.schedulers.schedule import check, next_fires
from watchbill.woken import Options

NOW = 1_795_284_000  # 2026-11-21 18:00 UTC
HOUR, DAY = 3600, 86_400


def timed(text: str, name: str = "bosun") -> Agent:
    return an_agent(name, schedule=text, slots=spread.slots(check(text), name))


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


SLOTS = "every 5m", "every 20m", "hourly", "every 6h", "daily 07:30", "weekdays 09:00,17:00", "mon 03:00", "0 9 1 * *"


@given(st.sampled_from(SLOTS), st.integers(60, 9 * DAY), st.sampled_from(["bosun", "mate"]))
def test_overdue_is_who_left_a_slot_out_for_a_quarter_of_an_hour(text: str, silent_s: int, name: str) -> None:
    """Against a list of all its slots. Broken once: by the latest slot alone `every 5m` was never overdue, for its
    latest slot is never older than five minutes."""
    since, one = NOW - silent_s, timed(text, name)
    shifted = spread.shifted(check(text), name)
    most = 1 if text.startswith("0 9") else silent_s // 300 + 1
    fires = [int(at.timestamp()) for at in next_fires(shifted, datetime.fromtimestamp(since, UTC), most)]
    missed = [at for at in fires if at <= NOW - GRACE_S]
    expected = [Overdue(name, missed[0], missed[0] + GRACE_S)] if missed else []
    assert overdue.overdue([one], {name: since}, NOW) == expected


def test_who_was_not_applied_or_fires_by_hand_is_never_overdue() -> None:
    assert overdue.overdue([timed("every 5m")], {"mate": 5}, NOW) == []
    assert overdue.overdue([timed("manual")], {"bosun": 5}, NOW) == []


def test_an_interval_has_a_period_more() -> None:
    """`every 90m` counts from when its timer was loaded: after a boot, from the boot."""
    one, late = timed("every 90m"), 2 * 5400 + GRACE_S
    assert overdue.overdue([one], {"bosun": NOW - late}, NOW) == []
    found = overdue.overdue([one], {"bosun": NOW - late - 1}, NOW)
    assert found == [Overdue("bosun", NOW - late - 1 + 5400, NOW - 1)]


@pytest.mark.parametrize(
    ("last", "since"),
    [
        (None, 1000),  # it never fired: since it was applied
        (Last(900, 950, 900), 1000),  # before it was applied anew
        (Last(2000, 2000, None), 2005),  # a start is known to some seconds
        (Last(2000, 2400, None), 2400),  # what it was at work on passed its slots
        (Last(2000, None, None), None),  # it is at work
        (Last(1999, 2000, 2100), 2100),  # the slot it was for
    ],
)
def test_since_when_an_agent_is_silent(last: Last | None, since: int | None) -> None:
    assert overdue.silent_since(1000, last) == since


def test_a_firing_for_a_slot_whose_start_is_a_second_early_is_its_firing() -> None:
    """Broken once: without the five seconds, bosun was overdue a quarter of an hour after it had fired on time."""
    one = timed("daily 17:00")
    slot = slots.due(one.slots, NOW)
    assert slot == NOW - HOUR
    since = overdue.silent_since(0, Last(slot - 1, slot - 1, None))
    assert since is not None
    assert overdue.overdue([one], {"bosun": since}, NOW) == []


# Whole firings

CREW = {"bosun": agent(every="20m"), "mate": agent(every="20m"), "gunner": agent(at="daily 07:30")}


def applied(it: Fleet, **ages_s: int) -> None:
    """As `apply` leaves it, so long ago."""
    now = int(time.time())
    home = Home(str(it.home))
    os.makedirs(home.held, exist_ok=True)
    agents = {name: Applied(f"watchbill-{name}", now - age, (), "every 20m") for name, age in ages_s.items()}
    manifest.write(home, Manifest("loop", agents))


def fired(it: Fleet, name: str, ago_s: int) -> None:
    """A firing of that agent on this host, so long ago, which a gate refused."""
    at = int(time.time()) - ago_s
    row = firing(name, new_id(at), host_id(str(it.home / "host.json")), started=at)
    with contextlib.closing(it.ledger()) as ledger, ledger.transaction():
        firings.refuse(ledger, row, Ending("held", "lunch", "held-pause"), at)


def said(it: Fleet) -> list[str]:
    """What the logs say of anybody who is overdue, or is not any more."""
    lines = [line for path in sorted((it.home / "logs").glob("*.log")) for line in path.read_text().splitlines()]
    return [line.split(" ", 2)[2] for line in lines if "overdue" in line]


def episodes(it: Fleet) -> list[tuple[object, ...]]:
    return it.rows("SELECT agent, over_at IS NULL FROM overdue ORDER BY slot")


def test_a_peer_says_it_once_and_it_is_over_when_it_fires(tmp_path: Path) -> None:
    """Broken once: with the row's verdict ignored and no look at who is known, each of mate's firings said it."""
    with fleet(tmp_path, CREW) as it:
        applied(it, bosun=2 * HOUR, mate=2 * HOUR)
        fired(it, "mate", 600)
        before = int(time.time())
        assert it.fire("mate").outcome == "idle"
        (line,) = said(it)
        assert line.startswith("bosun is overdue: it has not fired since its slot of 20")
        ((name, slot, noticed_at, id, why, over_at),) = it.rows(
            "SELECT agent, slot, noticed_at, firing, why, over_at FROM overdue"
        )
        assert (name, over_at) == ("bosun", None)
        assert before - 2 * HOUR < slot <= before - 2 * HOUR + 1200 + 1
        assert noticed_at >= before
        assert [(id,)] == it.rows("SELECT id FROM firings WHERE agent = 'mate' ORDER BY id DESC LIMIT 1")
        assert why
        assert it.fire("mate").outcome == "idle"
        assert said(it) == [line]
        status = it.run("status")
        assert "WB-STATUS-02: bosun is overdue" in status.stderr
        assert status.returncode == 0

        it.fire("bosun")
        assert said(it)[0] == "bosun is not overdue any more"
        assert episodes(it) == [("bosun", 0)]
        assert "overdue" not in it.run("status").stderr


def test_two_that_notice_at_once_make_one_report(tmp_path: Path) -> None:
    """Broken once: with the row's verdict ignored, both said it."""
    with fleet(tmp_path, {**CREW, "gunner": agent(every="20m")}) as it:
        applied(it, bosun=2 * HOUR)
        fired(it, "mate", 600)
        it.fire("mate", "--dry-run")  # the roster is compiled
        assert episodes(it) == []
        both = [it.start(name) for name in ("mate", "gunner")]
        for one in both:
            finish(one)
        assert [line[:16] for line in said(it)] == ["bosun is overdue"]
        assert episodes(it) == [("bosun", 1)]


@contextlib.contextmanager
def home(tmp_path: Path, crew: dict[str, dict[str, object]]) -> Iterator[Fleet]:
    """A fleet without a forge."""
    root = tmp_path / "home"
    (root / "agents").mkdir(parents=True)
    (root / "fleet.toml").write_text('[fleet]\nrepos = ["acme/api"]\n[schedule]\nuse = "loop"\n')
    for name, watchbill in crew.items():
        write_agent(root, name, watchbill)
    yield Fleet(root, None)  # type: ignore[arg-type]


def noticed_by_mate(it: Fleet) -> None:
    """What a firing of mate does past its gates, without the rest of it."""
    where, clock = Home(str(it.home)), SystemClock()
    roster = read_roster(where.root)
    with contextlib.closing(it.ledger()) as ledger:
        row = firing("mate", new_id(clock.now()), host_id(where.host), started=int(clock.now()))
        ports = Ports(where, roster.fleet, roster.agents["mate"], clock, ledger)
        overdue.notice(live.Firing(row, roster.agents["mate"], roster, ports, Options("mate"), 0))


@pytest.mark.parametrize(
    "why",
    [
        "nothing",
        "nobody was awake",
        "just woken",
        "held",
        "gate file",
        "resumed just now",
        "not applied since it was edited",
        "manual",
        "at work",
        "not applied",
    ],
)
def test_whom_nobody_reports(tmp_path: Path, why: str) -> None:
    """`nothing` is the control. Broken once, one after the other: without the look at who was awake, at holds,
    at gate files, at when a pause was lifted last, at the schedule that was applied, and at who is at work, that one
    was a false alarm."""
    crew = {**CREW, "bosun": agent()} if why == "manual" else CREW
    edited = {**CREW, "bosun": agent(every="10m")}
    crew = edited if why.endswith("edited") else crew
    with home(tmp_path, crew) as it:
        applied(it, **({"mate": 2 * HOUR} if why == "not applied" else {"mate": 2 * HOUR, "bosun": 2 * HOUR}))
        if why == "just woken":
            fired(it, "mate", 30)  # bosun may be about to be caught up
        elif why != "nobody was awake":
            fired(it, "mate", 600)
        if why == "held":
            with contextlib.closing(it.ledger()) as ledger, ledger.transaction(durable=True):
                holds.add(ledger, Hold(0, "agent", "bosun", "pause", "lunch", "ann", 5, int(time.time()) + HOUR))
        if why == "gate file":
            (it.home / "held" / "agent-bosun").touch()
        if why == "resumed just now":
            with contextlib.closing(it.ledger()) as ledger, ledger.transaction(durable=True):
                holds.add(ledger, Hold(0, "agent", "bosun", "pause", "lunch", "ann", 5, None))
            assert it.run("resume", "bosun").returncode == 0
        if why.endswith("edited"):  # its timer still is one of every week
            path = it.home / "units" / "applied.json"
            path.write_text(path.read_text().replace("every 20m", "every 7d"))
        if why == "at work":
            row, me = firing("bosun", new_id(time.time() - 7000), host_id(str(it.home / "host.json"))), process.me()
            row = row._replace(pid=me.pid, pid_started=me.started, boot=me.boot)
            with contextlib.closing(it.ledger()) as ledger, ledger.transaction():
                firings.begin(ledger, row)
        noticed_by_mate(it)
        alarm = ["bosun is overdue"] if why == "nothing" else []
        assert ([line[:16] for line in said(it)], len(episodes(it))) == (alarm, len(alarm))
