"""Acceptance: timers of a real systemd user manager fire role scripts, which claim and land on the practice forge."""

from __future__ import annotations

import itertools
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from support.fleet import LABEL, agent, python, wait_for
from support.timers import SYSTEMD, Timed, settled, timed

pytestmark = [pytest.mark.needs("systemctl", "unshare", "nsenter", "ip"), pytest.mark.thorough]

MINUTELY = "* * * * *"  # exact: no spread, so that all of them fire at once


def issues(it: Timed, count: int) -> list[int]:
    return [it.fleet.world.issue("octocat", f"Do {n}", labels=[LABEL]) for n in range(count)]


def a_slot(minutes_ago: int) -> tuple[str, int]:
    """A daily schedule whose time was so long ago, and when that was, UTC epoch seconds."""
    then = (datetime.now(UTC) - timedelta(minutes=minutes_ago)).replace(second=0, microsecond=0)
    return f"daily {then:%H:%M}", int(then.timestamp())


def test_nine_agents_land_what_they_claim(tmp_path: Path) -> None:
    """Eight that implement and a steward, all in the same second, again and again, until eight issues have their eight
    pull requests; each had one owner, in its first generation, and no timer calls that a failure.

    Broken once: units without `--scheduled` (their firings did not say which slot they were for)."""
    names = [f"hand-{n}" for n in range(8)]
    crew = {**{name: agent(schedule=MINUTELY) for name in names}, "steward": {"role": "sweep", "schedule": MINUTELY}}
    with timed(tmp_path, crew) as it:
        numbers = issues(it, 8)
        it.watchbill("apply")
        it.quicken(4)
        wait_for("eight pull requests", lambda: len(it.fleet.pulls()) >= 8, 90)
        wait_for("the steward", lambda: it.fired("steward"))
        it.manager.systemctl("stop", *(it.timer(name) for name in crew))
        settled(it, *crew)
        assert sorted(pull["title"] for pull in it.fleet.pulls()) == [f"Do {n}" for n in range(8)]
        for number in numbers:
            record = it.fleet.record(number)
            assert (record.state, record.generation) == ("pr", 1), record
        won = it.fleet.rows("SELECT agent, COUNT(*) FROM firings WHERE outcome = 'pull_request' GROUP BY agent")
        assert sum(count for _, count in won) == 8
        for outcome, due, started, ended in (row for name in crew for row in it.fired(name)):
            assert outcome in ("pull_request", "idle", "lost"), outcome
            assert due <= started <= ended
            assert due == started - started % 60
        assert it.manager.systemctl("list-units", "--failed", "--plain", "--no-legend") == ""
        for name in names:
            said = (it.fleet.home / "logs" / f"{name}.log").read_text()
            assert f"{name}: " in said


#: Says in a file of its own when it began and ended, and takes longer than the period of its timer.
_LONG = """
import os, sys, time
with open(sys.argv[1], "a", buffering=1) as log:
    print("begin", os.getpid(), file=log)
    time.sleep(3)
    print("end", os.getpid(), file=log)
open("done.txt", "w").write("done")
"""


def test_a_firing_longer_than_its_period_is_alone(tmp_path: Path) -> None:
    """Every second a timer, meanwhile starts by hand through systemd and past it: never two of one agent.

    Who is started by hand past systemd is refused as `running`; systemd's own second start joins the first.
    Broken once: an agent's lock that was not taken (only the ledger's own constraint then kept the second one out)."""
    log = tmp_path / "engine.log"
    engine = python(_LONG)
    engine["argv"].append(str(log))
    with timed(tmp_path, {"bosun": agent(engine, schedule=MINUTELY, isolation="none")}) as it:
        issues(it, 2)
        it.watchbill("apply")
        it.quicken(1)
        refused = []
        while len(it.fleet.pulls()) < 2:
            began = log.read_text().count("begin") if log.exists() else 0
            ended = log.read_text().count("end") if log.exists() else 0
            it.manager.systemctl("start", "--no-block", it.service("bosun"))
            if began > ended:
                by_hand = it.watchbill("fire", "bosun", "--json", status=None)
                refused.append(by_hand.returncode)
            time.sleep(0.2)
        it.manager.systemctl("stop", it.timer("bosun"))
        settled(it, "bosun")
        words = [line.split() for line in log.read_text().splitlines()]
        assert [word for word, _ in words] == ["begin", "end"] * 2, words
        assert all(one[1] == two[1] for one, two in zip(words[::2], words[1::2], strict=True)), words
        assert refused.count(75) >= 2, refused
        spans = it.fleet.rows("SELECT started, ended FROM firings WHERE outcome != 'running' ORDER BY started, ended")
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans)), spans


#: Ignores SIGTERM, and so does what it leaves in a session of its own, parentless.
_DEAF = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
open("half", "w").write("half")
time.sleep(600)
"""
#: Freezes what runs it, again and again: only the firing ("runner"), or whatever watches over that as well ("all").
_FREEZES = """
import os, signal, sys, time
def words(pid):
    try:
        return open(f"/proc/{pid}/cmdline").read().split("\\0")
    except OSError:
        return []
def parent(pid):
    return int(open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[1])
runner = os.getppid()
while "--scheduled" not in words(runner) or words(parent(runner)) == words(runner):
    runner = parent(runner)
open("half", "w").write("half")
while True:
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()] if sys.argv[1] == "all" else []
    same = [runner, *(pid for pid in pids if str(runner) in words(pid) and "watchdog" in " ".join(words(pid)))]
    for pid in same:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(0.01)
"""


def test_a_hung_firing_is_ended_with_its_whole_tree(tmp_path: Path) -> None:
    """An engine that hears nothing and hides a child, one that freezes its firing, one that freezes its firing's
    watchdog as well: ended by the runner's own limit, by its watchdog, and by systemd. Of none is a process or a
    control group left, and what the dead ones left is put right by the next firing.

    Broken once: KillMode=process (watchdog and engine were left in the unit's group), TimeoutStartSec=infinity."""
    hung = {"deaf": python(_DEAF), "frozen": python(_FREEZES), "icy": python(_FREEZES)}
    hung["frozen"]["argv"].append("runner")
    hung["icy"]["argv"].append("all")
    crew = {
        name: agent(engine, schedule=MINUTELY, isolation="none", timeout="6s", labels={"takes": f"agent:{name}"})
        for name, engine in hung.items()
    }
    with timed(tmp_path, crew, checks=[], toml=f'{SYSTEMD}margin = "10s"\n') as it:
        for name in hung:
            it.fleet.world.issue("octocat", f"For {name}", labels=[f"agent:{name}"])
        it.watchbill("apply")
        for name in hung:
            limit = it.manager.show(it.service(name), "TimeoutStartUSec")["TimeoutStartUSec"]
            assert limit == "32s", limit  # engine and margin, and as much again
            it.quicken(1, agent=name, service="TimeoutStopSec=2")
        began = time.monotonic()
        for name in hung:
            wait_for(f"{name} to be at work", lambda name=name: it.processes(f"{name} --scheduled"), 60)
            it.manager.systemctl("stop", it.timer(name))
        settled(it, *hung)
        assert time.monotonic() - began < 32 + 2 + 30
        assert it.processes() == it.groups() == []
        results = {name: it.manager.show(it.service(name), "Result")["Result"] for name in hung}
        assert results == {"deaf": "exit-code", "frozen": "signal", "icy": "timeout"}
        it.manager.systemctl("start", it.service("deaf"))
        ends = {name: [row[0] for row in it.fired(name)] for name in hung}
        assert ends["deaf"][0] == "engine_failed"
        assert ends["frozen"] == ["died"]
        assert ends["icy"] in (["died"], ["engine_failed"])  # between two freezes it may have had the time to say so
        assert it.fleet.rows("SELECT COUNT(*) FROM grants WHERE settled_at IS NULL") == [(0,)]


def test_missed_slots_are_caught_up_once(tmp_path: Path) -> None:
    """Of an hour without a manager one slot, of three days three: one firing each time, and none where none was
    missed; its `due` is the latest of them. A unit that is new has missed nothing, and so has one that was paused.

    Broken once: Persistent=false (nothing fired after the hour)."""
    (schedule, due), (later, _) = a_slot(30), a_slot(-6 * 60)
    with timed(tmp_path, {"bosun": agent(schedule=schedule), "mate": agent(schedule=later)}) as it:
        it.watchbill("apply")

        def after(slept_s: float) -> dict[str, int]:
            """How often each fired because of that."""
            before = {name: len(it.fired(name)) for name in ("bosun", "mate")}
            it.manager.restart(slept_s=slept_s, kill=slept_s > 86400)
            wait_for("timers", lambda: all(_waits(it, name) for name in before), 20)
            return {name: len(it.fired(name)) - count for name, count in before.items()}

        assert after(0) == {"bosun": 0, "mate": 0}
        assert after(3600) == {"bosun": 1, "mate": 0}
        assert after(0) == {"bosun": 0, "mate": 0}
        assert after(3 * 86400) == {"bosun": 1, "mate": 1}
        assert [row[1] for row in it.fired("bosun")] == [due, due]
        assert [row[0] for row in it.fired("bosun")] == ["idle", "idle"]
        (mate,) = it.fired("mate")
        assert 0 < mate[2] - mate[1] < 86400

        it.manager.systemctl("stop", it.timer("bosun"))
        (stamp,) = it.manager.stamps.glob("*-bosun.timer")
        os.utime(stamp, (due - 86400, due - 86400))
        it.watchbill("resume", "bosun")
        wait_for("its timer", lambda: _waits(it, "bosun"), 20)
        assert len(it.fired("bosun")) == 2


def _waits(it: Timed, name: str) -> bool:
    """Its timer waits for a slot to come, and nothing of it runs."""
    seen = it.manager.show(it.timer(name), "SubState")
    return seen["SubState"] == "waiting" and it.at_rest(name)


def test_at_the_full_minute(tmp_path: Path) -> None:
    """The unit as `apply` writes it, nothing quickened: it fires at the next full minute, and not before.

    Broken once: OnCalendar=hourly (it did not fire)."""
    with timed(tmp_path, {"bosun": agent(schedule=MINUTELY)}) as it:
        began = time.time()
        it.watchbill("apply")
        applied = time.time()
        wait_for("the minute to pass", lambda: it.fired("bosun"), 90)
        (_, due, started, _), *_ = it.fired("bosun")
        assert due % 60 == 0
        assert began < due <= applied + 60
        assert due <= started
