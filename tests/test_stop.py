"""What a stop is made of: ending a whole tree, finding runners, the short ladder, its record in a repository."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.engines import a_task, run, wait_for
from support.repos import git, make_bare, refs, tip
from watchbill import process
from watchbill.claims import hold
from watchbill.claims.hold import HoldRecord
from watchbill.claims.record import Unreadable
from watchbill.claims.refs import FALLBACK_NAMESPACE, NAMESPACE, hold_ref
from watchbill.engines import watch
from watchbill.git import Remote

REF = hold_ref(NAMESPACE)
STOP = HoldRecord(1, "stop", "the bill\nlooks wrong ✓", "alice", "abc", 1_790_000_000, None, "0123456789abcdef")


def test_a_tree_that_grows_while_it_is_ended() -> None:
    """Each is stopped before its children are counted.

    Broken on purpose: with nobody stopped, there was always one more child, and it took a minute.
    """
    root = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", TREE], env={"STOP_TEST": str(os.getpid())}, stdout=subprocess.PIPE
    )
    assert root.stdout
    root.stdout.readline()
    began = time.monotonic()
    killed = process.end_tree(process.identity(root.pid))
    assert time.monotonic() - began < 10
    root.communicate()
    assert len(killed) > 3
    assert [pid for pid in killed if runs(pid)] == []
    assert process.find_marked("STOP_TEST", str(os.getpid())) == []


#: Three that live, and one that starts a child every millisecond, each for a second.
TREE = """
import os, subprocess, sys, time
for _ in range(3):
    subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"])
print("ready", flush=True)
while True:
    if os.fork() == 0:
        time.sleep(1)
        os._exit(0)
    time.sleep(0.001)
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        pass
"""


def runs(pid: int) -> bool:
    try:
        return process.alive(process.identity(pid))
    except ProcessLookupError:
        return False


def test_it_is_told_to_exactly_this_process() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        who = process.identity(child.pid)
        assert not process.tell(who._replace(started=who.started - 1), 9)
        assert not process.tell(who._replace(boot="another"), 9)
        assert process.end_tree(who._replace(started=who.started - 1)) == []
        assert child.poll() is None
        assert process.tell(who, 15)
    finally:
        child.wait()
    assert not process.tell(who, 15)
    assert process.end_tree(process.me()) == []  # nor ourselves


@pytest.mark.skipif(sys.platform != "linux", reason="missing: /proc/locks")
def test_who_holds_a_lock(tmp_path: Path) -> None:
    path = tmp_path / "bosun.lock"
    assert process.holders(str(path)) == []
    path.touch()
    (tmp_path / "other").touch()
    with path.open() as file, path.open() as reader, (tmp_path / "other").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert process.holders(str(path)) == []
        fcntl.flock(reader, fcntl.LOCK_SH)  # a probe
        assert process.holders(str(path)) == []
        fcntl.flock(reader, fcntl.LOCK_UN)
        fcntl.flock(file, fcntl.LOCK_EX)
        assert process.holders(str(path)) == [os.getpid()]
    assert process.holders(str(path)) == []


def test_marks() -> None:
    mark = f"f{os.getpid()}"
    child = subprocess.Popen(["sleep", "60"], env={"STOP_MARK": mark, "PATH": os.defpath})
    try:
        wait_for(lambda: process.marks("STOP_MARK").get(child.pid) == mark)
        assert process.marks("STOP_MAR") == {}
    finally:
        child.kill()
        child.wait()


def test_a_signal_takes_the_short_ladder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the long one had begun: at a hold an engine has thirteen seconds, at a stop four and a half.

    Broken on purpose: without `_hurry`, it had the thirteen.
    """
    assert sum(watch.SHORT_LADDER) < watch.LADDER[0]
    monkeypatch.setattr(watch, "SHORT_LADDER", (0.4, 0.3))  # the waiting itself is not what is tested
    asked = iter([None, "held"])
    deaf = "for number in (1, 2, 15): signal.signal(number, signal.SIG_IGN)\ntime.sleep(60)\n"
    result = run(a_task(tmp_path, "command", deaf), "command", beat=lambda: next(asked, "signal"), ladder=watch.LADDER)
    assert (result.verdict, result.stopped_by) == ("interrupted", "held")
    assert result.duration_s < watch.LADDER[0]


# The record in a repository


def test_the_record_is_read_as_it_was_written() -> None:
    for record in (STOP, STOP._replace(until=1_790_000_600, reason="", host="a b/c")):
        assert hold.parse(hold.render(record).encode()) == record
    with pytest.raises(ValueError):
        hold.render(STOP._replace(reason="x" * 3000))


@pytest.mark.parametrize(
    "change",
    [{"version": 2}, {"since": "now"}, {"until": True}, {"reason": None}, {"more": 1}, {"host": "x" * 300}],
    ids=str,
)
def test_a_record_that_makes_no_sense(change: dict[str, object]) -> None:
    message = "hold stop x [skip ci]\n\n" + json.dumps({**STOP._asdict(), **change}) + "\n"
    assert isinstance(hold.parse(message.encode()), Unreadable)


@pytest.mark.parametrize("message", [b"", b"x\n\n[]\n", b"x\n\n{}\n", b"\xff\n\n\xff", b"x\n\n" + b"[" * 10000])
def test_a_message_that_is_no_record(message: bytes) -> None:
    assert isinstance(hold.parse(message), Unreadable)


def test_the_newest_stop_counts_and_resume_deletes_just_that(tmp_path: Path) -> None:
    bare, scratch = tmp_path / "bare.git", tmp_path / "scratch.git"
    make_bare(bare, {"a": "b"})
    git(scratch, "init", "--quiet", "--bare", str(scratch))
    remote, place = Remote(str(bare)), str(scratch)
    first, second = hold.commit(place, STOP), hold.commit(place, STOP._replace(nonce="f" * 16))
    assert first != second
    assert hold.withdraw(place, remote, REF, 5) == ""  # nothing stands there
    assert hold.announce(place, remote, REF, first, 5) == ""
    assert hold.announce(place, remote, REF, second, 5) == ""
    assert tip(bare, REF) == second
    assert hold.withdraw(place, remote, REF, 5) == ""
    assert REF not in refs(bare)
    assert "not appear" in hold.announce(place, Remote(str(tmp_path / "nowhere")), REF, first, 5)
    assert "not appear" in hold.withdraw(place, Remote(str(tmp_path / "nowhere")), REF, 5)


def test_where_it_stands() -> None:
    assert hold_ref(NAMESPACE) == "refs/watchbill/hold"
    assert hold_ref(FALLBACK_NAMESPACE) == "refs/heads/watchbill/hold"
