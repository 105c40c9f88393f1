"""One log an agent: rotated, joined to firings, followed, and shown so that nothing in it harms who reads it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.fleet import LABEL, WATCHBILL, Fleet, fleet, wait_for
from watchbill import logs, roles
from watchbill.logs import Entry

ONE, TWO = "01kj400000000001", "01kj400000000002"


def log_of(it: Fleet, text: str | bytes, older: int = 0, agent: str = "bosun") -> Path:
    (it.home / "logs").mkdir(exist_ok=True)
    path = it.home / "logs" / (f"{agent}.log" + (f".{older}" if older else ""))
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def by_timer(it: Fleet, agent: str = "bosun") -> int:
    """As a unit starts it: stdout and stderr are appended to the agent's log."""
    (it.home / "logs").mkdir(exist_ok=True)
    with open(it.home / "logs" / f"{agent}.log", "ab") as log:
        argv = [sys.executable, "-I", roles.script_of("implement"), agent, "--scheduled"]
        done = subprocess.run(argv, env=it.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)
    return done.returncode


def test_what_a_timer_catches_joins_its_firing(tmp_path: Path) -> None:
    """Broken once: with the bare line in the log, `logs FIRING` of a refused firing was empty."""
    with fleet(tmp_path) as it:
        it.world.issue("octocat", "Do it", labels=[LABEL])
        assert by_timer(it) == 0
        it.run("pause", "bosun", "--reason", "thinking")
        assert by_timer(it) == 75
        for id, outcome in it.rows("SELECT id, outcome FROM firings"):
            shown = it.run("logs", id[:14])
            assert shown.returncode == 0, shown.stderr
            said = {"pull_request": "bosun: pull request opened acme/api#2 for #1", "held": "bosun: held: "}[outcome]
            assert [line for line in shown.stdout.splitlines() if f" {id} {said}" in line], shown.stdout
            assert {line.split()[2] for line in shown.stdout.splitlines()} == {id}
        whole = it.run("logs", "bosun", "--json")
        found = json.loads(whole.stdout)
        assert found["schema"] == 1
        assert [entry for entry in found["entries"] if entry["firing"] is None] == []
        by_hand = it.run("fire", "bosun")
        assert by_hand.stdout.startswith("bosun: held: ")


@pytest.mark.thorough
def test_a_firing_says_where_its_evidence_lies(tmp_path: Path) -> None:
    with fleet(tmp_path) as it:
        it.world.issue("octocat", "Do it", labels=[LABEL])
        id = str(it.fire("bosun").object["firing"])
        shown = it.run("logs", id)
        kinds = {line.split(": ")[0]: line.split(": ")[1] for line in shown.stderr.splitlines()}
        assert {"diff", "transcript"} <= set(kinds)
        assert all(Path(path).exists() for path in kinds.values())
        evidence = json.loads(it.run("logs", id, "--json").stdout)["evidence"]
        assert {one["kind"] for one in evidence} == set(kinds)


@pytest.mark.thorough
def test_raw_lines_belong_to_the_firing_above_them_and_files_are_one(tmp_path: Path) -> None:
    """Also a line that a firing wrote late, into the file that was moved away under it."""
    with fleet(tmp_path) as it:
        log_of(it, f"1000000100 {ONE} first\nTraceback:\n  File x\n1000000300 {TWO} late\n", older=1)
        log_of(it, f"1000000090 {ONE} oldest\n", older=2)
        log_of(it, f"1000000200 {ONE} second\nraw\n")
        texts = [entry["text"] for entry in json.loads(it.run("logs", "bosun", "--json").stdout)["entries"]]
        assert texts == ["oldest", "first\nTraceback:\n  File x", "second\nraw", "late"]
        shown = it.run("logs", "bosun", "-n", "3", TZ="UTC").stdout.splitlines()
        assert shown == [f"2001-09-09 01:50:00 {ONE} second", "    raw", f"2001-09-09 01:51:40 {TWO} late"]
        assert it.run("logs", "bosun", "-n", "0").stdout == ""


@pytest.mark.parametrize("number", ["-1", "x", "1.5"])
@pytest.mark.thorough
def test_a_number_that_is_none(tmp_path: Path, number: str) -> None:
    with fleet(tmp_path) as it:
        assert it.run("logs", "bosun", "-n", number).returncode == 2


@pytest.mark.thorough
def test_who_is_not_known(tmp_path: Path) -> None:
    with fleet(tmp_path) as it:
        nobody = it.run("logs", "bosum")
        assert nobody.returncode == 78
        assert "WB-LOGS-01" in nobody.stderr
        assert "did you mean 'bosun'?" in nobody.stderr
        assert it.run("logs", "0zzz").returncode == 78
        assert it.run("logs", "../../etc/passwd").returncode == 78
        assert it.run("logs", "bosun").stdout == ""  # known, and has not fired yet
        os.makedirs(it.home / "logs" / "bosun.log")
        assert it.run("logs", "bosun").returncode == 0


@pytest.mark.thorough
def test_hostile_content(tmp_path: Path) -> None:
    """A line of two megabytes, bytes that are no text, and words to the terminal."""
    with fleet(tmp_path) as it:
        hostile = b"\x1b]0;title\x07\x1b[2J\r\xff\xfe\0" + "\u202e".encode()
        log_of(it, b"1000000100 " + ONE.encode() + b" " + hostile + b"\n" + b"x" * 2_000_000 + b"\n")
        piped = it.run("logs", "bosun")
        assert len(piped.stdout) > 2_000_000
        shown_there = on_terminal(it, "logs", "bosun")
        for text in (piped.stdout, shown_there):
            shown = text.replace("\r\n", "\n")
            assert not [c for c in shown if not c.isprintable() and c != "\n"]
            assert r"\x1b]0;title\x07\x1b[2J\r\xff\xfe\x00\u202e" in shown
        assert "1996000 characters more" in shown_there
        (entry,) = json.loads(it.run("logs", "bosun", "--json").stdout)["entries"]
        assert entry["text"].startswith("\x1b]0;title")


def on_terminal(it: Fleet, *argv: str) -> str:
    ours, theirs = pty.openpty()
    started = subprocess.Popen([sys.executable, WATCHBILL, *argv], env=it.environment(), stdout=theirs, stderr=theirs)
    os.close(theirs)
    parts = []
    while True:
        try:
            part = os.read(ours, 65_536)
        except OSError:  # EIO: the other end is closed
            break
        parts.append(part)
    os.close(ours)
    started.wait()
    return b"".join(parts).decode()


@pytest.mark.parametrize("as_json", [False, pytest.param(True, marks=pytest.mark.thorough)])
@pytest.mark.thorough
def test_following_goes_through_a_rotation(tmp_path: Path, as_json: bool) -> None:
    """Broken once: without the look at the inode, nothing that came after the rotation was ever shown."""
    with fleet(tmp_path) as it:
        path = log_of(it, f"1000000100 {ONE} before\n")
        out = tmp_path / "out"
        with open(out, "wb") as file:
            argv = [sys.executable, WATCHBILL, "logs", "bosun", "-f", *(["--json"] if as_json else [])]
            following = subprocess.Popen(argv, env=it.environment(), stdout=file, stderr=subprocess.PIPE)
            try:
                wait_for("what was there", lambda: b"before" in out.read_bytes())
                with open(path, "a") as log:
                    log.write(f"1000000101 {ONE} half a ")
                    log.flush()
                    time.sleep(0.3)
                    assert b"half" not in out.read_bytes()
                    log.write("line\nraw\n")
                wait_for("what came", lambda: b"raw" in out.read_bytes())
                logs.rotate(str(path), most=1)
                with open(path, "a") as log:
                    log.write(f"1000000102 {TWO} after\n")
                wait_for("what came after", lambda: b"after" in out.read_bytes())
            finally:
                following.send_signal(signal.SIGINT)
                _, err = following.communicate(timeout=20)
        assert following.returncode == 130
        assert err == b""
        lines = out.read_text().splitlines()
        if as_json:
            assert [json.loads(line)["firing"] for line in lines] == [ONE, ONE, TWO]
        else:
            assert [line.split(ONE)[-1].split(TWO)[-1].strip() for line in lines] == [
                "before", "half a line", "raw", "after"]  # fmt: skip


def test_rotation_keeps_three_and_takes_our_streams_along(tmp_path: Path) -> None:
    """Broken once: without dup2, what the firing went on to say landed in the file that had been moved away."""
    path = tmp_path / "bosun.log"
    source = """
import sys
from watchbill import logs
for n in range(6):
    print("x" * 100, n, flush=True)
    logs.rotate(sys.argv[1], most=50)
    print("on", n, file=sys.stderr, flush=True)
"""
    with open(path, "ab") as log:
        argv = [sys.executable, "-c", source, str(path)]
        assert subprocess.run(argv, stdout=log, stderr=log, check=False).returncode == 0
    assert [os.path.basename(one) for one in logs.files(str(path))] == [
        "bosun.log.3", "bosun.log.2", "bosun.log.1", "bosun.log"]  # fmt: skip
    assert path.read_text() == "on 5\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert Path(f"{path}.1").read_text() == f"on 4\n{'x' * 100} 5\n"


@pytest.mark.thorough
def test_a_firing_rotates_past_its_gates_and_a_refused_one_does_not(tmp_path: Path) -> None:
    with fleet(tmp_path) as it:
        path = log_of(it, f"1000000100 {ONE} old\n" * 400_000)
        it.run("pause", "bosun")
        assert by_timer(it) == 75
        assert logs.files(str(path)) == [str(path)]
        it.run("resume", "bosun")
        it.world.issue("octocat", "Do it", labels=[LABEL])
        assert by_timer(it) == 0
        assert len(logs.files(str(path))) == 2
        assert "pull request opened" in path.read_text()
        assert "old" not in path.read_text()


def test_lines_without_an_owner(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"raw\n12 x\n1000000000 - no id\n\n1000000000 UPPERCASE0000000 raw\n")
    assert logs.read(str(path)) == [
        Entry(0, "", ("raw", "12 x")),
        Entry(1_000_000_000, "-", ("no id", "", "1000000000 UPPERCASE0000000 raw")),
    ]


def test_a_disk_that_takes_no_more_changes_no_firings_end(tmp_path: Path) -> None:
    """Broken once: whatever could not be said made a bug of it, with a report each time."""
    with fleet(tmp_path, {"bosun": {"role": "sweep", "every": "20m"}}) as it, open("/dev/full", "w") as full:
        assert it.run("pause", "bosun").returncode == 0
        fired = subprocess.run([sys.executable, WATCHBILL, "fire", "bosun", "--scheduled"], env=it.environment(),
                               stdout=full, stderr=subprocess.PIPE, text=True, check=False)  # fmt: skip
    assert fired.returncode == 75
    assert "held" in fired.stderr
    assert "No space left" in fired.stderr
