"""Single checks of `watchbill doctor`, each on what it looks at."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import launchctl
from support.fleet import agent, python, write_agent
from watchbill.doctor import columns, credentials, machine, programs, reach, running, second, timers
from watchbill.doctor.finding import Finding, Look, roster_of
from watchbill.home import Home
from watchbill.schedulers import launchd, schedule, systemd_text
from watchbill.schedulers.base import File, Unit


def here(home: Path, toml: str | None = None, **more: str) -> Look:
    """In a shell; with a fleet, when its fleet.toml is given."""
    found = Home(str(home))
    if toml is not None:
        (home / "agents").mkdir()
        write_agent(home, "mate", agent(python("pass"), **more))
        (home / "fleet.toml").write_text(toml)
    return Look(found, roster_of(found) if toml is not None else None, "shell", {})


def test_a_check_that_hangs_or_fails_is_cut_short_and_keeps_what_it_found(tmp_path: Path) -> None:
    """Broken once: OSError not caught, and doctor ended as a bug."""

    def hangs(_: Look) -> Iterator[Finding]:
        yield Finding("host", "one", "ok", "found")
        time.sleep(60)

    def fails(_: Look) -> Iterator[Finding]:
        yield Finding("host", "one", "ok", "found")
        raise PermissionError(13, "Permission denied", "/there")

    for check, what in ((hangs, "no answer within 0 s"), (fails, "it cannot be looked at: Permission denied (/there)")):
        first, last = columns.within(0.1, "disk", check, here(tmp_path))
        assert first.what == "found"
        assert (last.subject, last.state, last.id, last.what) == ("disk", "wrong", "WB-DOCTOR-04", what)
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


def test_both_columns_become_one() -> None:
    """Word for word the same, or the same fault in other words; two of a kind stay apart.

    Broken once: with any two of an id taken for the same, "one" was of both.
    """
    shell = [Finding("a", "x", "ok", "same"), Finding("b", "y", "wrong", "PATH is 1", "WB-1"),
             Finding("a", "x", "wrong", "one", "WB-2"), Finding("a", "x", "wrong", "two", "WB-2")]  # fmt: skip
    unit = [Finding("b", "y", "wrong", "PATH is 2", "WB-1"), Finding("a", "x", "ok", "same", fix="other"),
            Finding("a", "x", "wrong", "three", "WB-2"), Finding("c", "z", "note", "new")]  # fmt: skip
    said = [(one.what, one.where) for one in columns.merged(shell, unit)]
    assert said == [("same", "both"), ("one", "shell"), ("two", "shell"), ("three", "scheduler"), ("PATH is 1", "both"),
                    ("new", "scheduler")]  # fmt: skip
    assert {one.where for one in columns.merged(shell, None)} == {"shell"}


@pytest.mark.parametrize(
    ("version", "state"),
    [((3, 36, 0), "wrong"), ((3, 40, 1), "note"), ((3, 44, 6), "ok"), ((3, 45, 0), "note"), ((3, 50, 6), "note"),
     ((3, 50, 7), "ok"), ((3, 51, 0), "note"), ((3, 51, 2), "note"), ((3, 51, 3), "ok"), ((3, 53, 0), "ok")],
)  # fmt: skip
def test_releases_of_sqlite(tmp_path: Path, version: tuple[int, ...], state: str) -> None:
    (found,) = programs.sqlite(here(tmp_path), version)
    assert found.state == state


def test_places_that_macos_guards(own_world: Path) -> None:
    """Broken once: with only the fleet's directory looked at, the repository was not among what was told."""
    repo = own_world / "Documents" / "api.git"
    home = own_world / "Library" / "Mobile Documents" / "fleet"
    for folder in (repo, home):
        folder.mkdir(parents=True)
    it = here(home, f'[fleet]\nrepos = ["acme/api"]\n[repo."acme/api"]\nremote = "{repo}"\n')
    found = {one.subject: one for one in reach.look(it, platform="darwin")}
    assert {one.state for one in found.values()} == {"note"}
    assert "~/Library/Mobile Documents" in found[str(home)].what
    assert (
        found[str(repo)].fix
        == f"keep it elsewhere: mv {repo} ~/api.git, and name that place in its stead; then `watchbill apply`"
    )
    assert {one.state for one in reach.look(it, platform="linux")} == {"ok"}
    shutil.rmtree(repo)
    (gone,) = (one for one in reach.look(it, platform="linux") if one.state == "wrong")
    assert (gone.subject, gone.id) == (str(repo), "WB-DOCTOR-09")


def test_a_guest_of_windows(tmp_path: Path) -> None:
    it = here(tmp_path, '[fleet]\nrepos = ["acme/api"]\n')
    release = tmp_path / "osrelease"
    release.write_text("5.15.167.4-microsoft-standard-WSL2\n")
    (found,) = machine.guest(it, str(release))
    assert (found.state, found.where, found.id) == ("note", "scheduler", "WB-DOCTOR-20")
    release.write_text("6.1.0-18-amd64\n")
    assert list(machine.guest(it, str(release))) == []


def test_a_credential_of_an_agents_own_unit_is_nobody_elses_to_look_at(tmp_path: Path) -> None:
    """Broken once: taken as any other, it was wrong, and no column could ever have found it."""
    toml = '[fleet]\nrepos = ["acme/api"]\n[github]\nauth = "token:systemd:github"\n'
    (found,) = credentials.github(here(tmp_path, toml))
    assert (found.state, found.id) == ("note", "WB-SECRET-02")


def test_a_loop_that_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told once, and no fault: an outer clock may start it. Broken once: taken as systemd's is, `mate` was wrong."""
    monkeypatch.setenv("WATCHBILL_HOME", str(tmp_path))
    it = here(tmp_path, '[fleet]\nrepos = ["acme/api"]\n[schedule]\nuse = "loop"\n', every="20m")
    found = [one for one in timers.look(it) if one.state != "ok"]
    assert [(one.subject, one.state, one.where, one.id) for one in found] == [
        ("loop", "note", "scheduler", "WB-DOCTOR-16")
    ]


@pytest.mark.parametrize(("kind", "state"), [("Aqua", None), ("Background", "note")])
def test_a_session_without_a_screen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, state: str | None
) -> None:
    (tmp_path / "launchctl").write_text(f"#!/bin/sh\necho {kind}\n")
    (tmp_path / "launchctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    it = here(tmp_path, '[fleet]\nrepos = ["acme/api"]\n[schedule]\nuse = "launchd"\n')
    found = [one.state for one in timers.look(it) if one.subject == "session"]
    assert found == ([state] if state else [])


@pytest.mark.parametrize("program", ["/opt/my env/bin/python", '/opt/a"b\\c%d/bin/python3', "/opt/x/bin/python"])
def test_what_a_timer_starts_is_read_as_it_is_written(tmp_path: Path, program: str) -> None:
    """Broken once: guessed in the text, a blank cut it short, and a folder of PATH called python was taken for one."""
    environment = (("PATH", "/usr/bin:/opt/python"),)
    unit = Unit("bosun", "watchbill-bosun", "", str(tmp_path), (program, "-I"), str(tmp_path), environment,
                str(tmp_path / "log"), 60, (), schedule.check("hourly"), 0)  # fmt: skip
    for file in (*systemd_text.files(unit, "/units"), *launchd.files(unit)):
        assert timers._started_by(file) == (None if file.path.endswith(".timer") else program)
    assert timers._started_by(File("/units/x.plist", b"no plist")) is None


def test_a_launchd_that_does_not_answer_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken once: it was said to answer, and of the units nothing."""
    double = launchctl.install(tmp_path)
    monkeypatch.setenv("PATH", f"{double.bin}:{os.environ['PATH']}")
    double.knob("fail", "print-disabled 125\nprint-disabled 125")
    it = here(tmp_path, '[fleet]\nrepos = ["acme/api"]\n[schedule]\nuse = "launchd"\n', every="20m")
    found = [one for one in timers.look(it) if one.state == "wrong"]
    assert [(one.subject, one.id) for one in found] == [("units", "WB-SCHED-21")]


def test_each_program_is_asked_once_and_what_there_is_no_time_for_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken once: one that hung was waited for anew for each agent, and the rest of the column was not even named."""
    (tmp_path / "claude").write_text(f"#!/bin/sh\necho asked >> {tmp_path}/asked\necho 2.1.329\n")
    (tmp_path / "claude").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    it = here(tmp_path, '[fleet]\nrepos = ["acme/api"]\n')
    for name in ("bosun", "gunner"):
        write_agent(tmp_path, name, agent({"use": "claude", "model": name}, isolation="none"))
    it = it._replace(roster=roster_of(it.home))
    checks = dict(running.each(it))
    for name in ("claude (bosun)", "claude (gunner)"):
        assert next(one.what for one in checks[name](it)).endswith("is version 2.1.329")
    assert (tmp_path / "asked").read_text() == "asked\n"
    late = columns.seen_by(it, most_s=0.0).findings
    assert {one.subject for one in late} > {"git", "claude (bosun)", "claude (gunner)", "isolation"}
    assert {one.what for one in late} == {"it was not looked at: what came before took too long"}


def test_a_ledger_from_tomorrow(tmp_path: Path) -> None:
    """A clock that was set back. Broken once: with a row of tomorrow let pass, nothing was wrong."""
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db")) as ledger, ledger:
        ledger.execute("CREATE TABLE firings (id TEXT, started INTEGER)")
        ledger.execute("INSERT INTO firings VALUES ('1', ?)", (int(time.time()) + 86_400,))
    (found,) = (one for one in machine.clock(here(tmp_path)) if one.state == "wrong")
    assert (found.subject, found.id) == ("clock", "WB-DOCTOR-11")


def test_a_file_of_a_doctor_who_was_killed_goes_with_the_next(tmp_path: Path) -> None:
    """Broken once: however old, none was tidied away."""
    units_of = tmp_path / "units"
    units_of.mkdir()
    for name, age in (("doctor-old.jsonl", 7200), ("doctor-of-now.jsonl", 60), ("applied.json", 7200)):
        (units_of / name).touch()
        os.utime(units_of / name, (time.time() - age, time.time() - age))
    with second._answers(Home(str(tmp_path))) as answers:
        assert os.stat(answers).st_mode & 0o777 == 0o600
    assert {path.name for path in units_of.iterdir()} == {"doctor-of-now.jsonl", "applied.json"}
