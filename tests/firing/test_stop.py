"""A stop that stops, from outside: processes, real git, the practice forge, SQLite."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.fleet import (
    LABEL,
    WATCHBILL,
    Fleet,
    agent,
    at_work,
    finish,
    fleet,
    other_host,
    python,
    scripted,
    tree_of,
    wait_for,
)
from watchbill import process
from watchbill.practice.faults import Rule

#: What DESIGN promises of `stop --now`; seconds.
PROMISED_S = 10.0

#: `make crash`: ten firings instead of five, and what has to wait for a stop's whole patience.
THOROUGH = bool(os.environ.get("WATCHBILL_CRASH_THOROUGH"))
FIRINGS = 10 if THOROUGH else 5

#: An engine with a child tree: one that ignores SIGTERM and holds stdout, one that left the session and the tree.
TREE = """
import os, signal, subprocess, sys, time
IGNORES = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
subprocess.Popen([sys.executable, "-I", "-S", "-c", IGNORES])
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    time.sleep(600)
os.wait()
print('{"type": "usage", "input_tokens": 10, "output_tokens": 5, "cost_usd": 0.25}', flush=True)
"""
WORKS = TREE + 'open("half", "w").write("half"); time.sleep(600)'
IGNORES = TREE + "for n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\n" + 'open("half", "w").write("half")\n' + (
    "while True: time.sleep(600)"
)  # fmt: skip


def stop(it: Fleet, *argv: str, timeout: float = 60) -> tuple[dict[str, Any], subprocess.CompletedProcess[str]]:
    done = it.run("stop", "--json", *argv, timeout=timeout)
    assert done.stdout, done.stderr
    return json.loads(done.stdout), done


def documented(name: str) -> set[str]:
    """The keys that docs/programs.md gives an object."""
    page = (Path(__file__).parents[2] / "docs" / "programs.md").read_text(encoding="utf-8")
    section = page.partition(f"\n### {name}\n")[2].partition("\n## ")[0].partition("\n### ")[0]
    return set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))


def working(it: Fleet, count: int) -> None:
    def written() -> list[Path]:
        return [one for one in (it.home / "worktrees").glob("*/tree/*") if one.name in ("half", "checked", "pushed")]

    wait_for(f"{count} engines to work", lambda: len(written()) >= count, 60)


def open_reservations(it: Fleet) -> int:
    return int(it.rows("SELECT count(*) FROM reservations WHERE settled IS NULL")[0][0])


def hold_ref(it: Fleet) -> str:
    return it.remote("for-each-ref", "--format=%(objectname)", "refs/watchbill/hold")


@contextlib.contextmanager
def a_server_that_hangs(it: Fleet, place: Path) -> Iterator[None]:
    """From the first push of work on, for that push."""
    free = place / "free"
    hook = it.world.bare / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(
        f"#!/bin/sh\nwhile read old new ref; do case $ref in refs/heads/watchbill/issue-*) touch {place}/hangs; "
        f"n=0; while ! test -e {free} && test $n -lt 600; do sleep 0.1; n=$((n+1)); done; exit 1;; esac; done\n"
    )
    hook.chmod(0o755)
    try:
        yield
    finally:
        free.touch()


def test_firings_with_their_child_trees(tmp_path: Path) -> None:
    """Nothing of them runs after ten seconds, each is billed and released, the work is kept, nothing starts again.

    Among them: an engine that ignores every signal, a runner that is frozen, one in `verify`, one in a push that is
    never answered, and one that has just begun.

    Broken on purpose: with only the runner itself killed, the git of the hanging push lived on; without the hold the
    next firing took an issue; without `bury` two were not billed, and `stop` said so (exit status 65).
    """
    crew = {f"plain{n}": agent(python(WORKS), isolation="none") for n in range(FIRINGS - 5)}
    crew |= {
        "deaf": agent(python(IGNORES)),
        "frozen": agent(python(WORKS)),
        "checks": agent(scripted({"write": {"path": "checked", "content": "x"}})),
        "pushes": agent(scripted({"write": {"path": "pushed", "content": "x"}})),
        "begins": agent(python(WORKS)),
    }
    check = "if test -e checked; then sleep 600 & sleep 600; fi"
    with fleet(tmp_path, crew, checks=[check]) as it, a_server_that_hangs(it, tmp_path):
        for n in range(len(crew)):
            it.world.issue("octocat", f"Do {n}", labels=[LABEL])
        firings = {name: it.start(name) for name in crew if name != "begins"}
        working(it, len(firings))
        in_verify = "SELECT count(*) FROM steps WHERE name = 'verify' AND duration_ms IS NULL"
        wait_for("the check to run", lambda: it.rows(in_verify) == [(1,)])
        wait_for("the push to hang", (tmp_path / "hangs").exists)
        trees = [pid for firing in firings.values() for pid in tree_of(firing)]
        os.kill(firings["frozen"].pid, signal.SIGSTOP)
        firings["begins"] = it.start("begins")
        began = time.monotonic()
        told, done = stop(it, "--now")
        took_s = time.monotonic() - began
        left = [pid for pid in trees if runs(pid)]
        for firing in firings.values():
            firing.communicate(timeout=30)

        assert done.returncode == 0, (done.stderr, told)
        assert (left, told["left"]) == ([], [])
        assert told["seconds"] < PROMISED_S, told
        assert took_s < 60
        by_name = {one["agent"]: one for one in told["stopped"]}
        assert set(by_name) >= set(crew) - {"begins"}
        assert by_name["frozen"]["became"] == by_name["pushes"]["became"] == "killed"
        assert all(one["billed"] for one in told["stopped"])
        for name, one in {"stop": told, "ended": told["stopped"][0], "stopping": told["running"][0],
                          "heard": told["repositories"][0]}.items():  # fmt: skip
            assert set(one) == documented(name), name
        assert open_reservations(it) == 0
        assert it.rows("SELECT count(*) FROM firings WHERE ended IS NULL") == [(0,)]
        assert it.rows("SELECT sum(reserved) FROM spend") == [(0,)]
        for name in set(crew) - {"begins", "checks", "pushes"}:
            assert by_name[name]["cost_usd"] >= 0.25, by_name[name]  # what it said it had used, or more
            released(it, by_name[name], "half")
        released(it, by_name["checks"], "checked")
        released(it, by_name["pushes"], "pushed")
        assert it.rows("SELECT count(*) FROM attempts WHERE count > 0") == [(0,)]  # a stop says nothing of the issue
        assert it.fire("deaf").outcome == "held"
        assert hold_ref(it)
        resumed = it.run("resume", "--fleet")
        assert resumed.returncode == 0, resumed.stderr
        assert hold_ref(it) == ""


def runs(pid: int) -> bool:
    """Whether it is there and no zombie: our own children are reaped later."""
    try:
        return process.alive(process.identity(pid))
    except ProcessLookupError:
        return False


def released(it: Fleet, one: dict[str, Any], file: str) -> None:
    """Its issue is given back, and what it had done lies where the next firing finds it."""
    number = int(one["issue"].partition("#")[2])
    assert one["claim"] == "released", one
    record = it.record(number)
    assert (record.state, record.outcome) == ("released", "retry")
    assert it.labels(number) == {LABEL}
    assert it.mirror("show", f"refs/watchbill/kept/{one['firing']}:{file}")
    assert it.remote("show", f"refs/watchbill/wip/{number}:{file}")


def test_a_stop_that_is_killed_and_two_at_once(tmp_path: Path) -> None:
    """The hold stands whatever becomes of the one who set it; the next goes on, and two do each thing once.

    Broken on purpose: with no hold written, the test waited for it in vain.
    """
    with fleet(tmp_path, {"bosun": agent(python(WORKS)), "mate": agent()}) as it:
        number = it.world.issue("octocat", "Do it", labels=[LABEL])
        firing = at_work(it)
        tree = tree_of(firing)
        if THOROUGH:
            os.kill(firing.pid, signal.SIGSTOP)  # so that both have somebody to kill
        first = started(it, "stop", "--now")
        wait_for("the hold", lambda: it.rows("SELECT count(*) FROM holds WHERE kind = 'stop'") == [(1,)])
        first.kill()
        first.communicate()
        assert it.fire("mate").outcome == "held"
        both = [started(it, "stop", "--now", "--json") for _ in range(2)]
        told = [json.loads(one.communicate(timeout=60)[0]) for one in both]
        firing.communicate(timeout=30)
        assert [one.returncode for one in both] == [0, 0], told
        assert [pid for pid in tree if runs(pid)] == []
        assert it.rows("SELECT count(*) FROM holds") == [(1,)]
        ((outcome, basis),) = it.rows("SELECT outcome, cost_basis FROM firings WHERE number IS NOT NULL")
        # One that runs may find the hold by itself before it is told to end.
        assert (outcome == "cancelled") or (outcome == "held" and not THOROUGH)
        assert basis == ("stream" if THOROUGH else "engine")
        assert open_reservations(it) == 0
        wait_for("the claim to be released", lambda: it.record(number).state == "released")


def started(it: Fleet, *argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, WATCHBILL, *argv],
        env=it.environment(), text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def test_a_hold_that_comes_right_after_the_gates(tmp_path: Path) -> None:
    """A firing that passed its gates just before the stop claims nothing: holds are read again where it reserves.

    Broken on purpose: with `live.Firing.held` finding none, its pull request was opened.
    """
    with fleet(tmp_path) as it:
        it.world.issue("octocat", "Do it", labels=[LABEL])
        it.world.practice.faults.add(Rule("delay", "GET", r"/repos/acme/api/issues$", delay_s=2))
        firing = it.start("bosun")
        wait_for("its look outside", lambda: it.world.practice.faults.fitted() > 0)
        told, done = stop(it)
        assert done.returncode == 0, done.stderr
        assert [(one["agent"], one["step"]) for one in told["running"]] == [("bosun", "poll")]
        ended = finish(firing)
        assert (ended.outcome, ended.status) == ("held", 75), ended
        assert it.remote("for-each-ref", "refs/watchbill/claims") == ""


def test_a_ledger_that_is_damaged(tmp_path: Path) -> None:
    """What runs is ended all the same; that there is no hold is said, and is no success.

    Broken on purpose: with the ledger opened first, and with neither locks nor marks looked at, the engine worked on.
    """
    with fleet(tmp_path, {"bosun": agent(python(WORKS))}) as it:
        it.world.issue("octocat", "Do it", labels=[LABEL])
        firing = at_work(it)
        tree = tree_of(firing)
        if THOROUGH:
            os.kill(firing.pid, signal.SIGSTOP)  # else it sees by itself that its ledger is gone, and ends
        for name in ("ledger.db", "ledger.db-wal", "ledger.db-shm"):
            (it.home / name).write_bytes(os.urandom(8192))
        told, done = stop(it, "--now")
        firing.communicate(timeout=30)
        assert (done.returncode, told["held"], told["left"]) == (65, False, []), (told, done.stderr)
        assert "there is NO hold" in done.stderr
        assert [pid for pid in tree if runs(pid)] == []
        assert it.run("fire", "bosun").returncode == 75  # a ledger that cannot be read means held


def test_another_host_is_told(tmp_path: Path) -> None:
    """It holds itself for five minutes, again and again, until the stop is gone from the repository.

    Broken on purpose: without `heed` in the poll, the other host did the issue while the fleet was stopped.
    """
    with fleet(tmp_path) as one:
        one.world.issue("octocat", "Do it", labels=[LABEL])
        two = other_host(one, "two")
        assert two.run("pause", "bosun", "--for", "1s").returncode == 0  # a ledger, and a host id of its own
        assert one.run("stop", "--reason", "the bill looks wrong").returncode == 0
        time.sleep(1.1)
        ended = two.fire("bosun")
        assert (ended.outcome, "the bill looks wrong" in ended.reason) == ("held", True), ended
        assert two.fire("bosun").outcome == "held"  # at its gates
        assert elsewhere(two) == [(None, None)]
        over(two)
        assert two.fire("bosun").outcome == "held"  # its canary has looked again
        over(two)
        one.world.practice.faults.add(Rule("status", "", r"info/refs", status=503, times=None))
        assert two.fire("bosun").outcome == "unavailable"  # no answer lifts nothing
        one.world.practice.faults.clear()
        assert elsewhere(two) == [(None, None)]
        assert one.remote("for-each-ref", "refs/watchbill/claims") == ""
        assert one.run("resume", "--fleet").returncode == 0
        ended = two.fire("bosun")
        assert ended.outcome == "pull_request", ended


def test_our_own_word_and_one_that_makes_no_sense(tmp_path: Path) -> None:
    """A host is not held twice by its own stop; and whatever lies at that ref stops it, if it is not its own.

    Broken on purpose: without the comparison of hosts, the resumed host held itself by its own ref.
    """
    with fleet(tmp_path) as it:
        it.world.issue("octocat", "Do it", labels=[LABEL])
        assert it.run("stop").returncode == 0
        (id,) = it.rows("SELECT id FROM holds WHERE kind = 'stop'")[0]
        assert it.run("resume", "--hold", str(id)).returncode == 0
        assert hold_ref(it)
        assert it.fire("bosun").outcome == "pull_request"
        it.remote("update-ref", "refs/watchbill/hold", "main")
        ended = it.fire("bosun")
        assert (ended.outcome, "cannot be read" in ended.reason) == ("held", True), ended
        assert it.run("resume", "--fleet").returncode == 0
        assert it.fire("bosun").outcome == "idle"


def elsewhere(it: Fleet) -> list[tuple[Any, ...]]:
    return it.rows("SELECT lifted_at, canary FROM holds WHERE kind = 'stop_elsewhere'")


def over(it: Fleet) -> None:
    """Its five minutes are: the waiting itself is not what is tested."""
    it.change("UPDATE holds SET until = ? WHERE kind = 'stop_elsewhere'", int(time.time()) - 1)


if THOROUGH:  # each of these waits for more than ten seconds

    def test_a_ledger_that_is_locked(tmp_path: Path) -> None:
        """What runs is found by its lock and its marks, and ended; hold and bill follow when the ledger is free.

        Broken on purpose: with a stop that waits for its hold before it ends anything, the engine worked on.
        """
        with fleet(tmp_path, {"bosun": agent(python(WORKS))}) as it:
            number = it.world.issue("octocat", "Do it", labels=[LABEL])
            firing = at_work(it)
            tree = tree_of(firing)
            with contextlib.closing(sqlite3.connect(it.home / "ledger.db", isolation_level=None)) as locker:
                locker.execute("BEGIN EXCLUSIVE")
                stopping = started(it, "stop", "--now", "--json")
                wait_for("all of it to end", lambda: not any(runs(pid) for pid in tree), PROMISED_S + 2)
                assert stopping.poll() is None
                locker.execute("ROLLBACK")
            told = json.loads(stopping.communicate(timeout=60)[0])
            firing.communicate(timeout=30)
            assert (stopping.returncode, told["held"], told["left"]) == (0, True, []), told
            assert [one["billed"] for one in told["stopped"]] == [True]
            assert it.record(number).state == "released"
            assert it.fire("bosun").outcome == "held"

    def test_a_repository_that_does_not_answer(tmp_path: Path) -> None:
        """It holds up neither the killing nor the bill; what is not released is named, and released after the stop.

        Broken on purpose: with no more than git's own deadline, the stop took minutes.
        """
        with fleet(tmp_path, {"bosun": agent(python(WORKS)), "mate": agent()}) as it:
            number = it.world.issue("octocat", "Do it", labels=[LABEL])
            firing = at_work(it)
            it.world.practice.faults.add(Rule("delay", "", r"\.git/", delay_s=45, times=None))
            told, done = stop(it, "--now")
            firing.communicate(timeout=30)
            (one,) = told["stopped"]
            assert (done.returncode, one["billed"], told["left"]) == (0, True, []), done.stderr
            assert one["claim"].startswith("not released: "), one
            assert [repo["told"] for repo in told["repositories"]] == [False]
            assert it.record(number).state == "active"
            it.world.practice.faults.clear()
            assert it.run("resume", "--fleet").returncode == 0
            assert it.fire("mate").outcome == "pull_request"
            assert it.record(number).generation == 2


def test_it_goes_on_when_nobody_reads_what_it_says_and_needs_no_roster_that_answers(tmp_path: Path) -> None:
    """`stop --now | head -1`, with a pipe lying where an agent's file should be.

    Broken once: the first line that nobody read ended the stop with 0, before it had ended anything; and a pipe among
    the agents' files was waited for before the hold was written.
    """
    with fleet(tmp_path, {"bosun": agent(python(WORKS))}) as it:
        it.world.issue("octocat", "Do it", labels=[LABEL])
        firing = at_work(it)
        os.mkfifo(it.home / "agents" / "pipe.md")
        tree = [process.identity(pid) for pid in tree_of(firing)]
        unread, said = os.pipe()
        os.close(unread)
        argv = [sys.executable, WATCHBILL, "stop", "--now"]
        stop = subprocess.Popen(argv, env=it.environment(), stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        os.close(said)
        assert stop.wait(timeout=60) == 0
        firing.communicate(timeout=30)
        assert not [one for one in tree if process.alive(one)]
        assert it.rows("SELECT kind FROM holds WHERE lifted_at IS NULL") == [("stop",)]
