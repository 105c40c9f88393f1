"""What somebody did to a timer behind our back: `status` names it, `resume` ends it; on both systems, with real ones.

systemd is a real user manager; launchd a stand-in for launchctl. Broken once: without the system's view in `status`, an
agent whose timer was stopped was `ready`, with a next firing that never came.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from support import launchctl, manager
from support.fleet import WATCHBILL, wait_for, write_agent
from support.forge import make_repository
from watchbill.home import Home
from watchbill.schedulers.units import unit_name

#: The command line, or any other program, on a host with that system.
Run = Callable[..., "subprocess.CompletedProcess[str]"]


class Host(NamedTuple):
    """A fleet of two sweepers and one that fires by hand, on a host of a test's own."""

    home: Path
    run: Run

    def type(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, WATCHBILL, "--home", str(self.home), *argv)

    def status(self, agent: str = "bosun") -> dict[str, Any]:
        done = self.type("status", "--json")
        assert done.returncode == 0, done.stderr
        (one,) = [one for one in json.loads(done.stdout)["agents"] if one["agent"] == agent]
        return dict(one)

    def unit(self, agent: str = "bosun") -> str:
        return unit_name(Home(str(self.home)), agent)

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self.home / "ledger.db")) as connection:
            return connection.execute(statement).fetchall()


def a_home(tmp_path: Path, use: str, crew: dict[str, str]) -> Path:
    home = tmp_path / "home"
    (home / "agents").mkdir(parents=True)
    bare = make_repository(tmp_path / "api.git", {"README.md": "# api\n"})
    token = home / "token"
    token.write_text("none")
    token.chmod(0o600)
    (home / "fleet.toml").write_text(
        '[fleet]\nrepos = ["acme/api"]\n'
        f'[github]\napi_url = "http://127.0.0.1:9"\nauth = "token:file:{token}"\n'
        f'[repo."acme/api"]\nremote = "{bare}"\n[schedule]\nuse = "{use}"\n'
    )
    for name, when in crew.items():
        key = "every" if when.endswith("m") else "at"
        write_agent(home, name, {"role": "sweep", **({key: when} if when else {})})
    return home


CREW = {"bosun": "20m", "mate": "daily 07:30", "steward": ""}


@pytest.fixture
def linux(tmp_path: Path) -> Iterator[Host]:
    home = a_home(tmp_path, "systemd", CREW)
    with manager.private(tmp_path) as it:
        host = Host(home, lambda *argv: it.run(*argv))
        assert host.type("apply").returncode == 0
        yield host


@pytest.fixture
def mac(tmp_path: Path) -> Host:
    home = a_home(tmp_path, "launchd", CREW)
    double = launchctl.install(tmp_path)
    host = Host(home, calling({"PATH": f"{double.bin}:{os.environ['PATH']}"}))
    done = host.type("apply")
    assert done.returncode == 0, done.stderr
    return host


def calling(more: dict[str, str]) -> Run:
    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(argv, env={**os.environ, **more}, text=True, capture_output=True, check=False)

    return run


def undone(host: Host, how: str) -> None:
    """bosun's timer is paused outside: said, left alone by a dry run and by `apply`, and ended by `resume`."""
    paused = host.status()
    assert (paused["timer"], paused["state"]) == ("paused outside", "ready")
    assert re.search(how, paused["timer_reason"]), paused["timer_reason"]
    assert host.status("mate")["timer"] == "armed"
    line = next(line for line in host.type("status").stdout.splitlines() if line.startswith("bosun\t"))
    assert f"\tpaused outside: {paused['timer_reason']}\t" in line
    said = host.type("resume", "bosun", "--dry-run").stdout
    assert said == f"would let the timer of bosun fire again, paused outside: {paused['timer_reason']}\n"
    assert host.type("apply").returncode == 0
    assert host.status()["timer"] == "paused outside"
    done = host.type("resume", "bosun")
    assert (done.returncode, done.stderr) == (0, "")
    assert "fires again; it had been paused outside: " in done.stdout
    assert_armed(host)
    assert host.type("resume", "bosun").stdout == "bosun: nothing held it\n"


def assert_armed(host: Host) -> None:
    one = host.status()
    assert (one["timer"], one["timer_reason"], one["drift"]) == ("armed", None, None)
    assert time.time() - 60 < one["next"] <= time.time() + 1200 + 60


SYSTEMD = pytest.mark.needs("systemctl", "unshare", "nsenter", "setsid")
THOROUGH = pytest.mark.thorough
OUTSIDE = {
    "stopped": (("stop", "{}.timer"), "stopped"),
    "disabled": (("disable", "{}.timer"), "disabled"),
    "disabled now": (("disable", "--now", "{}.timer"), "disabled|stopped"),
}


@THOROUGH
@SYSTEMD
@pytest.mark.parametrize("way", OUTSIDE)
def test_a_timer_of_systemd(linux: Host, way: str) -> None:
    words, how = OUTSIDE[way]
    assert_armed(linux)
    linux.run("systemctl", "--user", *(word.format(linux.unit()) for word in words))
    undone(linux, how)


@THOROUGH
@SYSTEMD
def test_a_timer_whose_file_was_removed(linux: Host, tmp_path: Path) -> None:
    (path,) = (tmp_path / "person" / ".config" / "systemd" / "user").glob("*-bosun.timer")
    path.unlink()
    undone(linux, "was removed")
    assert path.exists()


@THOROUGH
@pytest.mark.parametrize("way", ["bootout", "disable", "both", "file"])
def test_an_agent_of_launchd(mac: Host, tmp_path: Path, way: str) -> None:
    domain = f"gui/{os.getuid()}/{mac.unit()}"
    assert_armed(mac)
    if way in ("bootout", "both"):
        mac.run("launchctl", "bootout", domain)
    if way in ("disable", "both"):
        mac.run("launchctl", "disable", domain)
    if way == "file":
        (path,) = (tmp_path / "person" / "Library" / "LaunchAgents").glob("*-bosun.plist")
        path.unlink()
    undone(mac, "removed" if way == "file" else "disabled" if way == "disable" else "booted out|disabled")


@pytest.mark.thorough
def test_one_that_fires_by_hand_and_one_that_was_never_applied(tmp_path: Path) -> None:
    double = launchctl.install(tmp_path)
    host = Host(a_home(tmp_path, "launchd", CREW), calling({"PATH": f"{double.bin}:{os.environ['PATH']}"}))
    for agent, timer, drift in (("steward", "none", None), ("bosun", "not applied", "add")):
        one = host.status(agent)
        assert (one["timer"], one["next"], one["drift"], one["overdue_since"]) == (timer, None, drift, None)
    assert host.type("resume", "bosun").stdout == "bosun: nothing held it\n"
    assert double.mutations() == []


@THOROUGH
@SYSTEMD
def test_all_timers_are_a_few_questions(tmp_path: Path) -> None:
    """Counted by a program of that name before the real one on PATH. Broken once: asked for each agent, twelve had ten
    more than two."""
    real = shutil.which("systemctl")
    counts = []
    with manager.private(tmp_path) as it:
        for number in (2, 12):
            folder = tmp_path / str(number)
            folder.mkdir()
            calls, program = folder / "calls", folder / "systemctl"
            program.write_text(f'#!/bin/sh\necho "$*" >> {calls}\nexec {real} "$@"\n')
            program.chmod(0o755)
            home = a_home(folder, "systemd", {f"agent{n}": "20m" for n in range(number)})
            path = {"PATH": f"{folder}:/usr/bin:/bin"}
            host = Host(home, lambda *argv, path=path: it.run(*argv, env=path))
            assert host.type("apply").returncode == 0
            calls.unlink()
            assert host.type("status").returncode == 0
            counts.append(len(calls.read_text().splitlines()))
            assert host.type("uninstall").returncode == 0
    assert counts[0] == counts[1] <= 5


@pytest.mark.thorough
def test_status_when_the_system_does_not_answer(mac: Host, tmp_path: Path) -> None:
    """It says so in words and in `problems`, and everything else: the next firing by the schedule."""
    for knob in ("gui", "user"):
        launchctl.Double(next(tmp_path.glob("**/knobs")).parent).knob(knob, 125)
    done = mac.type("status", "--json")
    whole = json.loads(done.stdout)
    assert done.returncode == 0
    assert whole["problems"][0]["id"].startswith("WB-SCHED-")
    assert f"{whole['problems'][0]['id']}: " in done.stderr
    one = mac.status()
    assert one["timer"] == "unknown"
    assert time.time() < one["next"] <= time.time() + 1200
    resumed = mac.type("resume", "bosun")
    assert resumed.returncode == 69
    assert resumed.stderr.startswith("whether the timer of bosun was paused outside cannot be told:\nWB-SCHED-")


@THOROUGH
@SYSTEMD
def test_a_paused_agent_is_not_even_started(linux: Host) -> None:
    """By a gate file systemd starts no process: there is no row, whereas a pause with an end leaves a refused one."""
    service = f"{linux.unit()}.service"
    assert linux.type("pause", "bosun", "--for", "2h").returncode == 0
    linux.run("systemctl", "--user", "start", service)
    assert linux.rows("SELECT outcome FROM firings") == [("held",)]
    assert linux.type("resume", "bosun").returncode == 0
    assert linux.type("pause", "bosun").returncode == 0
    linux.run("systemctl", "--user", "start", service)
    assert linux.rows("SELECT outcome FROM firings") == [("held",)]
    assert linux.type("resume", "bosun").returncode == 0
    linux.run("systemctl", "--user", "start", service)
    wait_for("the firing", lambda: len(linux.rows("SELECT 1 FROM firings WHERE ended IS NOT NULL")) == 2)
    assert linux.rows("SELECT outcome FROM firings ORDER BY id")[1] != ("held",)


@THOROUGH
@SYSTEMD
def test_a_peer_notices_why(linux: Host) -> None:
    """bosun's timer was stopped two hours ago; mate, which its own unit starts, asks systemd why it is silent."""
    applied = linux.home / "units" / "applied.json"
    raw = json.loads(applied.read_text())
    raw["agents"]["bosun"]["at"] -= 7200
    applied.write_text(json.dumps(raw))
    os.utime(linux.home / "held", (1, 1))
    linux.run("systemctl", "--user", "stop", f"{linux.unit()}.timer")
    linux.type("fire", "mate")  # makes a row, which is then an older one
    with contextlib.closing(sqlite3.connect(linux.home / "ledger.db")) as connection, connection:
        connection.execute("UPDATE firings SET id = '0' || substr(id, 2), started = started - 300")
    linux.run("systemctl", "--user", "start", f"{linux.unit('mate')}.service")
    wait_for("a report", lambda: linux.rows("SELECT 1 FROM overdue"))
    assert linux.rows("SELECT agent, why FROM overdue") == [("bosun", "paused outside: timer stopped")]
    whole = json.loads(linux.type("status", "--json").stdout)
    (problem,) = whole["problems"]
    assert (problem["id"], problem["fix"]) == ("WB-STATUS-02", "`watchbill resume bosun`")
    assert problem["what"].endswith("Paused outside: timer stopped")
    assert linux.type("resume", "bosun").returncode == 0
    assert "overdue" not in linux.type("status").stderr  # it begins to wait anew
