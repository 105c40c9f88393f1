"""A firing that takes longer than it may ends itself; when it cannot, its watchdog ends it with all that it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.fleet import FAILS, HALF, LABEL, WRITES, Fleet, agent, at_work, crew, finish, fleet, tree_of, wait_for
from watchbill import deadline, process, watchdog
from watchbill.compiled import Timers, load
from watchbill.practice.faults import Rule

#: Two seconds more than its engine may have, for everything; two more, and it is killed.
SHORT = '[schedule]\nuse = "loop"\nmargin = "2s"\n'
#: What the promise leaves for a busy host.
MOST_S = 60
_THOROUGH = pytest.mark.thorough


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if process.descendants(pid) or _runs(pid)]


def _runs(pid: int) -> bool:
    try:
        return process.alive(process.identity(pid))
    except ProcessLookupError:
        return False


def watchdogs(it: Fleet) -> list[int]:
    """Of this fleet's firings."""
    log, found = str(it.home / "logs"), []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_text()
        except OSError:
            continue
        if "watchdog.py" in words and log in words:
            found.append(int(pid))
    return found


def test_how_long_a_firing_may_take(tmp_path: Path) -> None:
    with fleet(tmp_path, crew(agent(timeout="30s")), checks=["true", "true"]) as it:
        assert it.run("apply").returncode == 0
        roster = load(str(it.home / "roster.json"))
        assert roster is not None
        margin = Timers().margin_s
        assert deadline.of(roster.agents["bosun"], roster.fleet) == 30 + 2 * (1200 + 1200) + margin
        assert deadline.of(roster.agents["steward"], roster.fleet) == margin
        for one in roster.agents.values():
            ends = deadline.of(one, roster.fleet) + deadline.grace_of(roster.fleet)
            assert ends < deadline.of_scheduler(one, roster.fleet)


@pytest.mark.parametrize(
    ("method", "path", "nth", "limit_s", "outcome"),
    [
        pytest.param("GET", r"/repos/acme/api/issues$", 1, 4, "unavailable", id="http, nothing claimed"),
        pytest.param("", r"git-upload-pack", 1, 4, "unavailable", id="git, nothing claimed", marks=_THOROUGH),
        pytest.param("POST", r"git-receive-pack", 2, 15, "engine_failed", id="git, paid work", marks=_THOROUGH),
        pytest.param("POST", r"/acme/api/pulls$", 1, 15, "engine_failed", id="http, published", marks=_THOROUGH),
    ],
)
def test_a_server_that_never_answers(
    tmp_path: Path, method: str, path: str, nth: int, limit_s: int, outcome: str
) -> None:
    """Broken once: with a handler that only remembers, each waited for its own time-out: killed by the watchdog."""
    # A pull request that was meant is believed absent after two looks, a grace apart.
    toml = f'{SHORT}[claims]\ngrace = "0s"\n'
    with fleet(tmp_path, {"bosun": agent(WRITES, timeout=f"{limit_s - 2}s")}, checks=[], toml=toml) as it:
        it.world.issue("octocat", "Do it", labels=[LABEL])
        it.world.practice.faults.add(Rule("delay", method, path, nth=nth, times=1, delay_s=120))
        began = time.monotonic()
        ended = it.fire("bosun")
        assert time.monotonic() - began < MOST_S
        assert (ended.outcome, ended.object["exit"]) == (outcome, 65 if outcome == "engine_failed" else 69)
        assert f"it had not ended {limit_s} s after its start" in ended.reason
        assert it.rows("SELECT reason_id FROM firings") == [("deadline",)]
        tries = it.rows("SELECT sum(count) FROM attempts")[0][0] or 0
        assert tries <= (outcome == "engine_failed")
        it.world.practice.faults.clear()
        it.change("UPDATE attempts SET next_at = 0")
        for _ in range(3):
            if it.pulls():
                break
            it.fire("bosun")
        assert len(it.pulls()) == 1  # as after a crash: nothing is lost, nothing is done twice
        assert it.rows("SELECT count(*) FROM claims WHERE state IN ('intended', 'won')") == [(0,)]


@pytest.mark.thorough
def test_the_engine_is_stopped_with_care_and_its_work_kept(tmp_path: Path) -> None:
    with fleet(tmp_path, {"bosun": agent(HALF)}) as it:
        it.world.issue("octocat", "Do it", labels=[LABEL])
        firing = at_work(it)
        below = [pid for pid in tree_of(firing)[1:] if pid not in watchdogs(it)]
        os.kill(firing.pid, signal.SIGALRM)  # as its watchdog says it
        ended = finish(firing)
        assert (ended.outcome, ended.object["exit"]) == ("engine_failed", 65)
        assert "kept: refs/watchbill/kept/" in ended.reason
        assert alive(below) == []
        assert it.rows("SELECT count FROM attempts") == [(1,)]


@pytest.mark.thorough
def test_children_that_stand_still(tmp_path: Path) -> None:
    """SIGTERM waits at a stopped process; SIGKILL does not."""
    with fleet(tmp_path, {"bosun": agent(HALF)}) as it:
        it.world.issue("octocat", "Do it", labels=[LABEL])
        firing = at_work(it)
        below = [pid for pid in tree_of(firing)[1:] if pid not in watchdogs(it)]
        os.kill(below[-1], signal.SIGSTOP)
        os.kill(firing.pid, signal.SIGALRM)
        assert finish(firing).outcome == "engine_failed"
        assert alive(below) == []


@pytest.mark.thorough
def test_a_runner_that_stands_still_is_killed_with_its_tree(tmp_path: Path) -> None:
    """Broken once: with a watchdog that sends SIGALRM and no more, it stood there until the test gave up."""
    with fleet(tmp_path, {"bosun": agent(HALF, timeout="15s")}, checks=[], toml=SHORT) as it:
        number = it.world.issue("octocat", "Do it", labels=[LABEL])
        firing = at_work(it)
        tree = tree_of(firing)
        os.kill(firing.pid, signal.SIGSTOP)
        try:
            assert firing.wait(MOST_S) == -signal.SIGKILL
        finally:
            firing.kill()
            firing.communicate()
        wait_for("its tree to be gone", lambda: not alive(tree))
        assert "killed by its watchdog" in (it.home / "logs" / "bosun.log").read_text()
        assert it.labels(number) == {"agent:in-flight"}
        (it.home / "agents" / "bosun.md").write_text(
            (it.home / "agents" / "bosun.md").read_text().replace("15s", "30s")
        )
        it.fire("bosun")
        assert it.rows("SELECT outcome FROM firings ORDER BY id LIMIT 1") == [("died",)]


#: A runner that starts something in a session of its own, as engines are, and then hears nothing any more.
_DEAF = """
import os, signal, subprocess, sys
left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(left.pid, flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_a_watchdog_alone(tmp_path: Path) -> None:
    """Broken once: without `end_tree`, what the runner had started went on."""
    log = tmp_path / "bosun.log"
    runner = subprocess.Popen([sys.executable, "-c", _DEAF], stdout=subprocess.PIPE, text=True)
    left = runner.pid
    try:
        assert runner.stdout is not None
        left = int(runner.stdout.readline())
        who = process.identity(runner.pid)
        words = [str(who.pid), str(who.started), who.boot, "0.1", "0.3", "01firing", str(log)]
        dog = subprocess.Popen([sys.executable, "-I", "-S", watchdog.__file__, *words], stdin=subprocess.PIPE)
        dog.wait(MOST_S)
        assert runner.wait(MOST_S) in (-signal.SIGALRM, -signal.SIGKILL)
        wait_for("what it had started to be gone", lambda: not _runs(left))
        assert log.read_text().split(" ", 1)[1].startswith("01firing killed by its watchdog")
        dog.communicate()
    finally:
        for pid in (left, runner.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        runner.communicate()


@pytest.mark.thorough
@pytest.mark.parametrize("number", [None, signal.SIGKILL])
def test_the_watchdog_leaves_with_its_runner(tmp_path: Path, number: int | None) -> None:
    """Broken once: with a sleep for its wait, it outlived its runner until the deadline."""
    with fleet(tmp_path, {"bosun": agent(HALF if number else FAILS)}) as it:
        it.world.issue("octocat", "Do it", labels=[LABEL])
        if number is None:
            it.fire("bosun")
        else:
            firing = at_work(it)
            assert len(watchdogs(it)) == 1
            firing.send_signal(number)
            firing.communicate()
        wait_for("the watchdog to leave", lambda: not watchdogs(it), 10)
