"""Wanted, applied, on disk, loaded: what `apply`, `uninstall` and `resume` make of the four, against a launchctl that
answers as Apple's does. The same with real timers: test_on_timers_apply.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from support import launchctl
from support.fleet import WATCHBILL
from support.launchctl import Double
from watchbill.compiled import Compiled
from watchbill.errors import Fixable
from watchbill.home import Home
from watchbill.roster import compile_roster
from watchbill.schedulers import applying, manifest, survey
from watchbill.schedulers.applying import Done

CATCH_UP = "catch.up"  # what launchd starts at login
AGENTS = {"bosun": "every 20m", "mate": "daily 07:30", "gunner": "manual"}


class Mac(NamedTuple):
    """A person's Mac, as far as a fleet sees it."""

    home: Home
    double: Double
    plists: Path

    def write(self, name: str, schedule: str) -> None:
        folder = Path(self.home.agents)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.md").write_text(
            f"---\nname: {name}\ndescription: d\nwatchbill:\n  role: sweep\n  schedule: {schedule}\n---\nSweep.\n"
        )

    def drop(self, name: str) -> None:
        (Path(self.home.agents) / f"{name}.md").unlink()

    def roster(self) -> Compiled:
        return compile_roster(self.home.root)

    def apply(self, only: str | None = None, prune: bool = False) -> dict[str, Done]:
        done = applying.apply(self.home, self.roster(), lambda _: None, only=only, prune=prune)
        return {one.agent: one for one in done if one.agent != CATCH_UP}

    def states(self) -> dict[str, str]:
        seen = survey.take(self.home, self.roster()).agents
        return {name: one.state for name, one in seen.items() if name != CATCH_UP}

    def loaded(self) -> set[str]:
        """Agents that launchd would fire; beside them only what makes up for a Mac that was off."""
        return {name.removeprefix("watchbill-") for name in self.double.loaded()} - {CATCH_UP}

    def nothing_is_left(self) -> bool:
        return self.double.loaded() == {} and list(self.plists.iterdir()) == []

    def name(self, agent: str) -> str:
        return f"watchbill-{agent}"

    def plist(self, agent: str) -> Path:
        return self.plists / f"{self.name(agent)}.plist"

    def all_is_well(self) -> None:
        assert self.states() == {"bosun": "armed", "mate": "armed"}
        assert self.loaded() == {"bosun", "mate"}
        assert CATCH_UP in {name.removeprefix("watchbill-") for name in self.double.loaded()}
        self.double.forget_calls()
        assert {one.ended for one in self.apply().values()} == {"kept"}
        assert self.double.mutations() == []


@pytest.fixture
def mac(own_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mac:
    double = launchctl.install(tmp_path)
    monkeypatch.setenv("PATH", f"{double.bin}:{os.environ['PATH']}")
    home = own_world / ".watchbill"
    home.mkdir()
    (home / "fleet.toml").write_text('[fleet]\nrepos = ["acme/api"]\n[schedule]\nuse = "launchd"\n')
    it = Mac(Home(str(home)), double, own_world / "Library" / "LaunchAgents")
    for name, schedule in AGENTS.items():
        it.write(name, schedule)
    return it


def test_twice_is_once(mac: Mac) -> None:
    """Broken once: with what was applied not written down, the second call armed both again."""
    done = mac.apply()
    assert {name: (one.change, one.ended) for name, one in done.items()} == {
        "bosun": ("add", "done"), "mate": ("add", "done")}  # fmt: skip
    mac.all_is_well()


@pytest.mark.thorough
def test_one_agent_and_no_other(mac: Mac) -> None:
    mac.apply(only="mate")
    assert mac.states() == {"bosun": "not applied", "mate": "armed"}
    assert mac.loaded() == {"mate"}


@pytest.mark.thorough
def test_an_edit_by_hand_shows_and_is_put_back(mac: Mac) -> None:
    mac.apply()
    whole = mac.plist("mate").read_bytes()
    mac.plist("mate").write_bytes(whole.replace(b"<integer>30</integer>", b"<integer>31</integer>", 1))
    assert mac.states() == {"bosun": "armed", "mate": "drifted"}
    assert mac.apply()["mate"] == Done("mate", "restore", "done", "")
    assert mac.plist("mate").read_bytes() == whole
    mac.all_is_well()


@pytest.mark.thorough
def test_without_our_line_what_we_applied_is_still_ours(mac: Mac) -> None:
    mac.apply()
    lines = mac.plist("mate").read_text().splitlines(keepends=True)
    mac.plist("mate").write_text("".join(line for line in lines if "managed by" not in line))
    assert mac.states()["mate"] == "drifted"
    mac.apply()
    mac.all_is_well()


@pytest.mark.parametrize("whose", ["a stranger's", "another fleet's"])
def test_what_is_not_ours_is_not_touched(mac: Mac, whose: str) -> None:
    """Broken once: without the look at its line it was overwritten, and `uninstall` removed it."""
    theirs = "<plist><dict/></plist>"
    if whose == "another fleet's":
        mac.apply(only="mate")
        theirs = mac.plist("mate").read_text().replace(f"home={mac.home.root};", "home=/elsewhere;")
        mac.double.ask("bootout", f"gui/{os.getuid()}/{mac.name('mate')}")
        Path(mac.home.units, "applied.json").unlink()
    mac.plists.mkdir(parents=True, exist_ok=True)
    mac.plist("mate").write_text(theirs)
    done = mac.apply(prune=True)
    assert (done["bosun"].ended, done["mate"].ended) == ("done", "failed")
    assert str(mac.plist("mate")) in done["mate"].what
    assert sorted(one.agent for one in applying.uninstall(mac.home, lambda _: None)) == ["bosun", CATCH_UP]
    assert mac.plist("mate").read_text() == theirs
    assert [path.name for path in mac.plists.iterdir()] == [mac.plist("mate").name]


@pytest.mark.thorough
def test_who_left_the_roster(mac: Mac) -> None:
    """Its timer stays until it is pruned; one that fires by hand now has none at once."""
    mac.apply()
    mac.drop("mate")
    mac.write("bosun", "manual")
    done = mac.apply()
    assert (done["bosun"].change, done["bosun"].ended) == ("remove", "done")
    assert (done["mate"].change, done["mate"].ended) == ("prune", "kept")
    assert mac.loaded() == {"mate"}
    assert mac.apply(prune=True)["mate"].ended == "done"
    assert mac.nothing_is_left()
    assert mac.apply() == {}


def booted_out(mac: Mac) -> None:
    mac.double.ask("bootout", f"gui/{os.getuid()}/{mac.name('bosun')}")


def disabled(mac: Mac) -> None:
    mac.double.ask("disable", f"gui/{os.getuid()}/{mac.name('bosun')}")


def both(mac: Mac) -> None:
    disabled(mac)
    booted_out(mac)


def deleted(mac: Mac) -> None:
    mac.plist("bosun").unlink()


def deleted_and_out(mac: Mac) -> None:
    booted_out(mac)
    deleted(mac)


@pytest.mark.parametrize(
    "how",
    [
        booted_out,
        *(pytest.param(one, marks=pytest.mark.thorough) for one in (disabled, both, deleted, deleted_and_out)),
    ],
)
def test_paused_behind_our_back(mac: Mac, how: Callable[[Mac], None]) -> None:
    """It is named, `apply` leaves it so also when its schedule changes, and `resume` ends it.

    Broken once: without the look at what was applied, a deleted file was an agent not applied yet, and came back.
    """
    mac.apply()
    how(mac)
    before = mac.loaded()
    assert mac.states() == {"bosun": "paused outside", "mate": "armed"}
    mac.double.forget_calls()
    done = mac.apply()["bosun"]
    assert (done.ended, "paused outside" in done.what) == ("kept", True)
    assert mac.double.mutations() == []
    mac.write("bosun", "every 30m")
    assert "paused outside" in mac.apply()["bosun"].what
    assert mac.loaded() == before
    assert mac.states()["bosun"] == "paused outside"
    assert applying.rearm(mac.home, mac.roster(), "bosun") is None
    mac.all_is_well()


def test_a_firing_that_runs_is_left_alone(mac: Mac) -> None:
    """launchd would end it with its unit. Broken once: without the look it was booted out, and killed."""
    mac.apply()
    mac.double.begin(mac.name("bosun"))
    mac.write("bosun", "every 30m")
    assert mac.apply()["bosun"].ended == "deferred"
    assert [one.ended for one in applying.uninstall(mac.home, lambda _: None) if one.agent == "bosun"] == ["deferred"]
    assert mac.double.killed() == []
    mac.double.end(mac.name("bosun"))
    mac.apply()
    mac.all_is_well()


@pytest.mark.thorough
def test_a_change_that_does_not_take_is_taken_back(mac: Mac) -> None:
    mac.apply()
    before = mac.plist("bosun").read_bytes()
    mac.write("bosun", "every 30m")
    mac.write("mate", "daily 08:30")
    mac.double.knob("lies", 1)  # the next bootstrap says yes, and loads nothing
    done = mac.apply()
    assert sorted(one.ended for one in done.values()) == ["done", "failed"]
    if done["bosun"].ended == "failed":
        assert mac.plist("bosun").read_bytes() == before
    assert mac.loaded() == {"bosun", "mate"}
    mac.apply()
    mac.all_is_well()


@pytest.mark.thorough
def test_nobody_is_left_where_the_fleet_was(mac: Mac) -> None:
    """Also when what was applied is not on record any more."""
    mac.apply()
    Path(mac.home.units, "applied.json").write_text("{")
    assert applying.installed(mac.home) == ["bosun", CATCH_UP, "mate"]
    assert {one.ended for one in applying.uninstall(mac.home, lambda _: None)} == {"done"}
    assert mac.nothing_is_left()
    assert not os.path.exists(mac.home.units)
    assert applying.uninstall(mac.home, lambda _: None) == []
    mac.apply()
    mac.all_is_well()


@pytest.mark.thorough
def test_another_scheduler_takes_over(mac: Mac) -> None:
    """Or two would start everything twice. Broken once: without `_leave_other` launchd had both still loaded."""
    mac.apply()
    toml = Path(mac.home.fleet_toml)
    toml.write_text(toml.read_text().replace('"launchd"', '"loop"'))
    mac.apply()
    assert mac.nothing_is_left()
    assert manifest.read(mac.home).scheduler == "loop"


def test_one_at_a_time(mac: Mac, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applying, "_PATIENCE_S", 0.2)
    with applying._alone(mac.home), pytest.raises(Fixable) as caught:
        mac.apply()
    assert caught.value.id == "WB-SCHED-01"


@pytest.mark.thorough
@pytest.mark.parametrize("what", ["apply", "a change", "uninstall"])
def test_killed_anywhere_the_next_one_puts_it_right(mac: Mac, tmp_path: Path, what: str) -> None:
    """kill -9 at each call of launchctl in turn: what is there is always this home's, and one more call ends it well.

    Broken once: without `pending` in what is on record, whoever died before `bootstrap` of a change left an agent that
    was paused outside, for nobody had done that.
    """
    died, left, verb = 0, tmp_path / "left", "uninstall" if what == "uninstall" else "apply"
    deadly = tmp_path / "deadly"
    deadly.mkdir()
    (deadly / "launchctl").write_text(
        f"#!/bin/sh\nread n < {left}; echo $((n - 1)) > {left}\n[ $n != 0 ] || kill -9 $PPID\n"
        f'exec {mac.double.bin}/launchctl "$@"\n'
    )
    (deadly / "launchctl").chmod(0o755)
    for call in range(1, 60):
        if what != "apply":
            mac.write("bosun", "every 20m")
            mac.apply()
        if what == "a change":
            mac.write("bosun", "every 30m")
        left.write_text(f"{call}\n")
        child = subprocess.Popen([sys.executable, WATCHBILL, "--home", mac.home.root, verb],
                                 env={**os.environ, "PATH": f"{deadly}:{os.environ['PATH']}"},
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        child.wait(60)
        if child.returncode != -signal.SIGKILL:
            break
        died += 1
        if what == "uninstall":
            assert {one.ended for one in applying.uninstall(mac.home, lambda _: None)} <= {"done"}
            assert mac.nothing_is_left()
        else:
            mac.apply()
            mac.all_is_well()
            applying.uninstall(mac.home, lambda _: None)
    assert died > 4, "nobody was killed"
