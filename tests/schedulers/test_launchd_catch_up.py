"""What makes up, at login, for slots that passed while a Mac was off."""

from __future__ import annotations

import os
import plistlib
import time
from pathlib import Path

import pytest

from support import launchctl as doubles
from watchbill.home import Home
from watchbill.roster import compile_roster
from watchbill.schedulers import launchd
from watchbill.schedulers.base import Change


def test_at_login_what_was_missed_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command in the unit is the real one, and launchd starts it when it is loaded."""
    double = doubles.install(tmp_path)
    monkeypatch.setenv("PATH", f"{double.bin}:{os.environ['PATH']}")
    home = Home(str(tmp_path / "fleet"))
    (tmp_path / "fleet" / "logs").mkdir(parents=True)
    (tmp_path / "fleet" / "agents").mkdir()
    (tmp_path / "fleet" / "fleet.toml").write_text(
        f'[fleet]\nrepos = ["acme/api"]\n[schedule]\nuse = "launchd"\npath = "{double.bin}:/usr/bin:/bin"\n'
    )
    (tmp_path / "fleet" / "agents" / "bosun.md").write_text(
        "---\nname: bosun\ndescription: d\nwatchbill:\n  role: sweep\n  schedule: hourly\n---\nSweep.\n"
    )
    (unit,) = launchd.extras(home, compile_roster(home.root)).values()
    (file,) = launchd.files(unit)
    plist = plistlib.loads(file.content)
    assert plist["RunAtLoad"] is True
    assert not {"StartInterval", "StartCalendarInterval", "KeepAlive"} & set(plist)
    assert "." in unit.name  # which no agent's name holds
    assert launchd.install([Change(unit, (), (file,), True)], lambda _: None) == {unit.agent: None}
    until = time.monotonic() + 30
    while not double.loaded()[unit.name]["runs"] and time.monotonic() < until:
        time.sleep(0.05)
    assert double.loaded()[unit.name]["exit"] == 0, Path(unit.log).read_text()
