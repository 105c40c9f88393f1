"""`watchbill loop`: agents are started at their slots, where there is neither launchd nor systemd."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.fleet import HALF, LABEL, WATCHBILL, Fleet, agent, fleet, tree_of, wait_for, write_agent
from watchbill import process
from watchbill.home import Home
from watchbill.schedulers import loop, manifest, missed, spread, units
from watchbill.schedulers.base import Unit
from watchbill.schedulers.manifest import Applied, Manifest
from watchbill.schedulers.rounds import Rounds
from watchbill.schedulers.schedule import check

DAILY = {**agent(), "schedule": "daily 09:00"}
NOON = 1_795_348_800  # 2026-11-22 12:00 UTC


class Clock:
    """The wall's, as a test sets it."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@contextlib.contextmanager
def looping(it: Fleet, *argv: str) -> Iterator[subprocess.Popen[str]]:
    started = subprocess.Popen([sys.executable, WATCHBILL, "loop", *argv], env=it.environment(TZ="UTC"), text=True,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    try:
        yield started
    finally:
        if started.poll() is None:
            started.kill()
            started.communicate()


def applied(it: Fleet, name: str, at: int) -> None:
    """As if `apply` had been typed at that time."""
    manifest.write(Home(str(it.home)), Manifest("loop", {name: Applied(f"watchbill-{name}", at, (), "")}))


def fired(it: Fleet) -> list[tuple[str, int | None]]:
    return [(row[0], row[1]) for row in it.rows("SELECT agent, due FROM firings ORDER BY id")]


def ends(rounds: Rounds) -> None:
    """Until what was started has ended."""

    def gone() -> bool:
        rounds.reap()
        return not rounds.running

    wait_for("firings to end", gone)


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("utc")
def test_a_slot_is_started_once_however_the_clock_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken once: with the slot not written down before its start, it was started again at every look."""
    with fleet(tmp_path, {"bosun": {"role": "sweep", "schedule": "daily 09:00"}}) as it:
        monkeypatch.setenv("WATCHBILL_HOME", str(it.home))
        said: list[str] = []
        clock = Clock(NOON)
        rounds = Rounds(Home(str(it.home)), said.append, clock)
        starts = []
        for hours in (0, 20.99, 21, 21.1, 2, 21.2, 21 + 24 * 9, 21 + 24 * 9 - 30, 21 + 24 * 9 - 9):
            clock.now = NOON + hours * 3600
            before = len(said)
            rounds.look()
            if any("started" in text for text in said[before:]):
                starts.append(hours)
            ends(rounds)
        # one at its time; one for nine that passed; and, since more than a day was given back, the next by that clock
        assert starts == [21, 21 + 24 * 9, 21 + 24 * 9 - 9]
        assert "bosun: started for 2026-11-23 09:00 UTC" in "\n".join(said)


@pytest.mark.usefixtures("utc")
def test_an_agent_that_runs_is_not_started_again_and_its_slot_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fleet(tmp_path, {"bosun": {**agent(HALF), "schedule": "0 * * * *"}}) as it:
        it.world.issue("octocat", "Do it", labels=[LABEL])
        monkeypatch.setenv("WATCHBILL_HOME", str(it.home))
        said: list[str] = []
        clock = Clock(NOON)
        rounds = Rounds(Home(str(it.home)), said.append, clock)
        for hour in (0, 1, 2, 3):
            clock.now = NOON + hour * 3600
            rounds.look()
        assert len([text for text in said if "started" in text]) == 1
        (running,) = rounds.running.values()
        tree = [running.child.pid, *process.descendants(running.child.pid)]
        rounds.end_all()
        assert rounds.running == {}
        assert not [pid for pid in tree if process.descendants(pid)]
        rounds.look()
        assert said[-1].startswith("bosun: started for 2026-11-22 15:00 UTC")  # the latest, once
        rounds.end_all()


@pytest.mark.usefixtures("utc")
@pytest.mark.thorough
def test_a_gate_file_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fleet(tmp_path, {"bosun": {**DAILY}}) as it:
        monkeypatch.setenv("WATCHBILL_HOME", str(it.home))
        home = Home(str(it.home))
        os.makedirs(home.held)
        gate = Path(home.gate("bosun"))
        gate.touch()
        said: list[str] = []
        clock = Clock(NOON)
        rounds = Rounds(home, said.append, clock)
        for day in (0, 1, 2):
            clock.now = NOON + day * 86_400
            rounds.look()
        assert [text for text in said if "not started" in text] == [f"bosun: is not started while {gate} is there"]
        gate.unlink()
        clock.now += 86_400
        rounds.look()
        assert said[-1].startswith("bosun: started")
        ends(rounds)


@pytest.mark.usefixtures("utc")
@pytest.mark.thorough
def test_the_roster_is_taken_up_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fleet(tmp_path, {"bosun": {**DAILY}}) as it:
        monkeypatch.setenv("WATCHBILL_HOME", str(it.home))
        said: list[str] = []
        clock = Clock(NOON)
        rounds = Rounds(Home(str(it.home)), said.append, clock)
        rounds.look()
        write_agent(it.home, "mate", {"role": "sweep", "schedule": "daily 12:30"})
        rounds.look()
        assert said[-1].endswith("2 with a schedule")
        (it.home / "agents" / "bosun.md").write_text("nothing")
        clock.now += 3600
        rounds.look()
        assert "the roster is not taken up, the loop goes on by the one before until that is mended: WB-" in said[-2]
        assert said[-1].startswith("mate: started for 2026-11-22 12:30 UTC")  # by the one before
        ends(rounds)


@pytest.mark.usefixtures("utc")
@pytest.mark.thorough
def test_a_firing_past_its_deadline_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped as it is, it hears no SIGTERM; then its tree is killed.

    Broken once: with SIGTERM alone it stood there until the test gave up.
    """
    with fleet(tmp_path, {"bosun": {**agent(HALF), "schedule": "0 * * * *"}}) as it:
        it.world.issue("octocat", "Do it", labels=[LABEL])
        monkeypatch.setenv("WATCHBILL_HOME", str(it.home))
        said: list[str] = []
        wall, elapsed = Clock(NOON), Clock(0.0)
        rounds = Rounds(Home(str(it.home)), said.append, wall, elapsed)
        rounds.look()
        wall.now += 3600
        rounds.look()
        (running,) = rounds.running.values()
        wait_for("the engine to work", lambda: list((it.home / "worktrees").glob("*/tree/half")))
        tree = [running.child.pid, *process.descendants(running.child.pid)]
        os.kill(running.child.pid, signal.SIGSTOP)
        elapsed.now += running.unit.deadline_s + 1
        rounds.look()
        assert "is asked to end" in said[-1]
        elapsed.now += 21
        rounds.look()
        try:
            ends(rounds)
        finally:
            running.child.kill()
        assert said[-1] == "bosun: ended with SIGKILL"
        wait_for("its tree to be gone", lambda: not [pid for pid in tree if os.path.exists(f"/proc/{pid}/cwd")])


def test_what_was_missed_is_caught_up_once(tmp_path: Path) -> None:
    """Broken once: without what the ledger knows, a second `--once` started it again."""
    with fleet(tmp_path, {"bosun": {**agent(), "schedule": "0 * * * *"}}) as it:
        applied(it, "bosun", int(time.time()) - 86_400)
        for _ in range(2):
            done = it.run("loop", "--once", TZ="UTC")
            assert done.returncode == 0, done.stderr
        ((name, due),) = fired(it)
        assert name == "bosun"
        assert due is not None
        assert due % 3600 == 0
        assert "bosun: nothing to do" in it.run("logs", "bosun").stdout


@pytest.mark.thorough
def test_nothing_is_owed_from_before_it_was_applied(tmp_path: Path) -> None:
    with fleet(tmp_path, {"bosun": {**agent(), "schedule": "0 0 1 1 *"}}) as it:
        applied(it, "bosun", int(time.time()) - 60)
        assert it.run("loop", "--once").returncode == 0
        assert it.run("loop", "--once", "--catch-up").returncode == 2
        assert not (it.home / "ledger.db").exists() or fired(it) == []


@pytest.mark.thorough
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_it_takes_its_firings_with_it(tmp_path: Path, number: int, status: int) -> None:
    with fleet(tmp_path, {"bosun": {**agent(HALF), "schedule": "0 * * * *"}}) as it:
        it.world.issue("octocat", "Do it", labels=[LABEL])
        applied(it, "bosun", int(time.time()) - 86_400)
        with looping(it) as loop_:
            wait_for("the engine to work", lambda: list((it.home / "worktrees").glob("*/tree/half")))
            second = it.run("loop", "--once")
            assert second.returncode == 75
            assert "WB-SCHED-30" in second.stderr
            below = tree_of(loop_)[1:]
            loop_.send_signal(number)
            _, err = loop_.communicate(timeout=40)
            assert loop_.returncode == status, err
        assert "bosun: ended with 143" in err
        assert it.rows("SELECT outcome, reason_id FROM firings") == [("cancelled", "signal")]
        wait_for("everything to be gone", lambda: not [pid for pid in below if os.path.exists(f"/proc/{pid}/cwd")])


@pytest.mark.usefixtures("utc")
def test_what_a_firing_leaves_in_its_group_goes_with_it(tmp_path: Path) -> None:
    left = "import os, time; os.fork() or time.sleep(600)"
    unit = _unit(tmp_path, (sys.executable, "-c", left))
    said: list[str] = []
    rounds = Rounds(Home(str(tmp_path)), said.append)
    rounds._units, rounds._done = {"bosun": unit}, {}  # no roster: the unit alone is what is tested
    rounds._start("bosun", NOON)
    (running,) = rounds.running.values()
    ends(rounds)
    wait_for("the child to be gone", lambda: not _group(running.child.pid))


@pytest.mark.thorough
def test_as_an_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fleet(tmp_path, {"bosun": {**DAILY}}) as it:
        monkeypatch.setenv("WATCHBILL_HOME", str(it.home))
        name = units.unit_name(Home(str(it.home)), "bosun")
        assert loop.look([name])[name].why == "`watchbill loop` does not run"
        with looping(it) as started:
            wait_for("the loop to hold its lock", lambda: loop.look([name])[name].why is None)
            assert loop.look([name])[name].armed
            started.terminate()
            assert started.wait(20) == 143
            started.communicate()
        assert loop.files(_unit(tmp_path, ("true",))) == ()
        assert loop.once(_unit(tmp_path, ("/bin/sh", "-c", "exit 7")), 20) == 7
        assert loop.once(_unit(tmp_path, ("/bin/sleep", "60")), 0.1) is None


@pytest.mark.parametrize(
    ("applied_at", "last", "slot"),
    [(None, None, None), (NOON - 7200, None, NOON), (NOON + 1, None, None),
     (NOON - 7200, missed.Last(NOON - 3600, NOON - 3590, NOON - 3600), NOON),
     (NOON - 7200, missed.Last(NOON + 5, NOON + 9, NOON), None),
     (NOON - 7200, missed.Last(NOON + 5, NOON + 9, None), None)],
)  # fmt: skip
@pytest.mark.usefixtures("utc")
def test_what_is_owed(applied_at: int | None, last: missed.Last | None, slot: int | None) -> None:
    masks = spread.slots(check("0 12 * * *"), "bosun")
    done = missed.served(applied_at, last)
    assert (None if done is None else missed.slot_of(masks, done, NOON + 60)) == slot


def _unit(tmp_path: Path, argv: tuple[str, ...]) -> Unit:
    return Unit("bosun", "watchbill-bosun", "", str(tmp_path), argv, str(tmp_path), (), str(tmp_path / "log"), 60, (),
                check("daily 09:00"), 0)  # fmt: skip


def _group(pid: int) -> list[str]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) == pid and fields[0] != "Z":
                found.append(str(stat))
    return found
