"""What goes wrong around `watchbill loop`: nobody's timers stop without a word."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from support.fleet import HALF, LABEL, WATCHBILL, Fleet, agent, fleet, wait_for, write_agent
from watchbill import lock
from watchbill.cli.loop import _go_round
from watchbill.home import Home
from watchbill.schedulers import loop, manifest
from watchbill.schedulers.manifest import Applied, Manifest
from watchbill.schedulers.rounds import Rounds

NOON = 1_795_348_800  # 2026-11-22 12:00 UTC
DAILY = {"role": "sweep", "schedule": "daily 09:00"}


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def one_look(it: Fleet, at: float) -> list[str]:
    """What `watchbill loop --once` says and does, at that time."""
    said: list[str] = []
    rounds = Rounds(Home(str(it.home)), said.append, lambda: at)
    rounds.look()
    rounds.end_all()
    return [text for text in said if "started" in text]


def applied(it: Fleet, at: int) -> None:
    manifest.write(Home(str(it.home)), Manifest("loop", {"bosun": Applied("watchbill-bosun", at, (), "daily 09:00")}))


@pytest.mark.parametrize("schedule", ["daily 09:00", pytest.param("every 90m", marks=pytest.mark.thorough)])
def test_a_fleet_that_nobody_applied_is_served_from_the_first_look_on(tmp_path: Path, schedule: str) -> None:
    """Each look is a process of its own, as an outer clock starts them. Broken once: each was the first, for ever."""
    with fleet(tmp_path, {"bosun": {**DAILY, "schedule": schedule}}) as it:
        assert one_look(it, NOON) == []
        write_agent(it.home, "mate", {**DAILY, "schedule": schedule})
        (start,) = one_look(it, NOON + 86_400)
        assert start.startswith("bosun: started")
        later = sorted(text.split(":")[0] for text in one_look(it, NOON + 2 * 86_400))
        assert later == ["bosun", "mate"]


def test_what_was_missed_is_caught_up_when_the_roster_is_mended(tmp_path: Path) -> None:
    """Broken once: a roster that was invalid at the first look left nothing to catch up."""
    with fleet(tmp_path, {"bosun": DAILY}) as it:
        applied(it, NOON - 3 * 86_400)
        write_agent(it.home, "bosun", {**DAILY, "schedule": "daily 99:00"})
        said: list[str] = []
        rounds = Rounds(Home(str(it.home)), said.append, lambda: NOON)
        for _ in range(2):
            rounds.look()
        assert [text.split(":")[0] for text in said] == [
            "the roster is not taken up, nothing is started until that is mended"
        ]
        write_agent(it.home, "bosun", DAILY)
        rounds.look()
        assert said[-1].startswith("bosun: started for 2026-11-22 09:00 UTC")
        rounds.end_all()


def test_what_passed_during_a_pause_is_not_made_up_for(tmp_path: Path) -> None:
    """Also by a loop that was started since. Broken once: without the end of the pause asked for, it was."""
    with fleet(tmp_path, {"bosun": {**DAILY, "schedule": f"0 {time.gmtime().tm_hour} * * *"}}) as it:
        applied(it, int(time.time()) - 2 * 86_400)
        assert it.run("pause", "bosun").returncode == 0
        assert one_look(it, time.time()) == [f"bosun: is not started while {it.home}/held/agent-bosun is there"]
        assert it.run("resume", "bosun").returncode == 0
        assert one_look(it, time.time()) == []


def test_what_cannot_be_read_or_written_is_told_and_tried_again(tmp_path: Path) -> None:
    """Broken once: the loop ended as a bug, with firings at work."""
    with fleet(tmp_path, {"bosun": DAILY}) as it:
        applied(it, NOON - 86_400)
        (it.home / "units" / "bin").write_text("")
        said: list[str] = []
        rounds = Rounds(Home(str(it.home)), said.append, lambda: NOON)
        for _ in range(2):
            rounds.look()
        assert rounds.problem is not None
        assert (rounds.problem.id, len(said)) == ("WB-SCHED-31", 1)
        once = it.run("loop", "--once")
        assert (once.returncode, "WB-SCHED-31" in once.stderr) == (69, True)
        (it.home / "units" / "bin").unlink()
        rounds.look()
        assert said[-1].startswith("bosun: started")
        rounds.end_all()


@pytest.mark.thorough
def test_once_with_a_roster_that_is_invalid_fails(tmp_path: Path) -> None:
    """Broken once: it ended with 0, having started nobody."""
    with fleet(tmp_path, {"bosun": {**DAILY, "schedule": "daily 99:00"}}) as it:
        assert it.run("loop", "--once").returncode == 78


@pytest.mark.thorough
def test_whatever_ends_the_loop_ends_its_firings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken once: a mistake of ours left them running, with nobody to end them."""
    with fleet(tmp_path, {"bosun": {**agent(HALF), "schedule": "0 * * * *"}}) as it:
        it.world.issue("octocat", "Do it", labels=[LABEL])
        for name, value in it.environment(TZ="UTC").items():
            monkeypatch.setenv(name, value)
        applied(it, int(time.time()) - 86_400)

        def mistake(_number: int, _frame: FrameType | None) -> None:
            if list((it.home / "worktrees").glob("*/tree/half")):
                signal.setitimer(signal.ITIMER_REAL, 0)
                raise RuntimeError("a mistake")

        before = signal.signal(signal.SIGALRM, mistake)
        signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
        try:
            with pytest.raises(RuntimeError, match="a mistake"):
                _go_round(Home(str(it.home)), once=False)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert it.rows("SELECT outcome FROM firings") == [("cancelled",)]


def test_a_hangup_that_was_ignored_stays_so(tmp_path: Path) -> None:
    """`nohup watchbill loop &`. Broken once: it ended with the terminal."""
    with fleet(tmp_path, {"bosun": DAILY}) as it:
        started = subprocess.Popen([sys.executable, WATCHBILL, "loop"], env=it.environment(), stdin=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, text=True, preexec_fn=_ignoring)  # fmt: skip
        try:
            assert started.stderr is not None
            assert "with a schedule" in started.stderr.readline()
            assert lock.held(loop.lock_path(Home(str(it.home))))
            started.send_signal(signal.SIGHUP)
            started.terminate()  # heard after it, were both heard
            assert started.wait(20) == 143
        finally:
            started.kill()
            started.communicate()


def _ignoring() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


@pytest.mark.thorough
def test_nobody_reads_what_it_says(tmp_path: Path) -> None:
    """Broken once: `watchbill loop 2>&1 | head` ended the loop at its next word."""
    with fleet(tmp_path, {"bosun": DAILY}) as it:
        reading, writing = os.pipe()
        started = subprocess.Popen([sys.executable, WATCHBILL, "loop"], env=it.environment(),
                                   stdin=subprocess.DEVNULL, stderr=writing)  # fmt: skip
        os.close(writing)
        os.close(reading)
        try:
            wait_for("the loop to begin", lambda: lock.held(loop.lock_path(Home(str(it.home)))))
            wait_for("its roster", lambda: (it.home / "units" / "loop.json").exists())
            started.terminate()
            assert started.wait(20) == 143
        finally:
            started.kill()
            started.wait()
