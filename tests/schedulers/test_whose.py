"""Whose a timer is, when homes are copied, moved, linked, or spelt another way; against launchctl's double."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from schedulers.test_applying import CATCH_UP, Mac, mac
from watchbill.errors import Fixable
from watchbill.home import Home, find_home
from watchbill.roster import compile_roster
from watchbill.schedulers import applying, manifest, survey, units
from watchbill.schedulers.survey import Survey

__all__ = ["mac"]


def quiet(_: str) -> None:
    """What is said meanwhile."""


def applied(home: Home) -> dict[str, str]:
    return {one.agent: one.ended for one in applying.apply(home, compile_roster(home.root), quiet)}


def looked(home: Home) -> Survey:
    return survey.take(home, compile_roster(home.root))


def copied(mac: Mac) -> Home:
    there = Path(mac.home.root).with_name("copy")
    # What makes up for a Mac that was off is at work in it just now.
    shutil.copytree(mac.home.root, there, ignore=shutil.ignore_patterns("ledger*", "logs", "locks"))
    return Home(str(there))


def test_a_copy_of_a_home_never_touches_the_original(mac: Mac) -> None:
    """Broken once: by what the copied manifest says alone, `uninstall` in the copy took the original's timers away."""
    mac.apply()
    copy = copied(mac)
    assert applying.installed(copy) == []
    assert applying.uninstall(copy, quiet) == []
    toml = Path(copy.fleet_toml)
    toml.write_text(toml.read_text().replace('"launchd"', '"loop"'))
    applied(copy)  # its manifest speaks of launchd's
    mac.all_is_well()


@pytest.mark.thorough
def test_a_copy_can_have_timers_of_its_own(mac: Mac) -> None:
    mac.apply()
    copy = copied(mac)
    assert set(applied(copy).values()) == {"done"}
    assert {one.state for one in looked(copy).agents.values()} == {"armed"}
    assert len(mac.double.loaded()) == 6
    assert mac.states() == {"bosun": "armed", "mate": "armed"}


@pytest.mark.thorough
def test_a_moved_home_takes_its_timers_along(mac: Mac) -> None:
    """Broken once: what was applied under the old name counted, and everybody was paused outside."""
    mac.apply()
    there = Path(mac.home.root).with_name("moved")
    shutil.move(mac.home.root, there)
    moved = Home(str(there))
    assert set(applied(moved).values()) == {"done"}
    assert {one.state for one in looked(moved).agents.values()} == {"armed"}
    assert set(mac.double.loaded()) == {units.unit_name(moved, name) for name in ("bosun", "mate", CATCH_UP)}


def test_another_spelling_of_the_same_home(mac: Mac, monkeypatch: pytest.MonkeyPatch, own_world: Path) -> None:
    """Broken once: with the path as it was typed, each agent had two timers."""
    mac.apply()
    link = own_world.with_name("link")
    link.symlink_to(own_world)
    for spelt in (f"{own_world}/.", f"{own_world.parent}//{own_world.name}", str(link)):
        monkeypatch.setenv("HOME", spelt)
        home = find_home({})
        assert home == mac.home
        assert set(applied(home).values()) == {"kept"}
    assert len(mac.double.loaded()) == 3


@pytest.mark.thorough
def test_all_or_none_move_to_another_scheduler(mac: Mac) -> None:
    mac.apply()
    toml = Path(mac.home.fleet_toml)
    toml.write_text(toml.read_text().replace('"launchd"', '"loop"'))
    with pytest.raises(Fixable) as caught:
        mac.apply(only="mate")
    assert caught.value.id == "WB-SCHED-06"
    assert mac.loaded() == {"bosun", "mate"}


@pytest.mark.thorough
def test_a_scheduler_that_is_not_here_any_more_is_no_obstacle(mac: Mac, monkeypatch: pytest.MonkeyPatch) -> None:
    mac.apply()
    toml = Path(mac.home.fleet_toml)
    toml.write_text(toml.read_text().replace('"launchd"', '"loop"'))
    monkeypatch.setenv("PATH", "/nowhere")
    assert set(applied(mac.home).values()) == {"done"}
    assert manifest.read(mac.home).scheduler == "loop"


def test_a_roster_that_cannot_be_read_wants_nothing_removed(mac: Mac) -> None:
    mac.apply()
    seen = survey.take(mac.home, None).agents
    assert {(one.state, one.change) for one in seen.values()} == {("unknown", "none")}


@pytest.mark.thorough
def test_a_folder_in_a_units_place_is_a_strangers(mac: Mac) -> None:
    mac.plist("mate").mkdir(parents=True)
    done = mac.apply()
    assert (done["bosun"].ended, done["mate"].ended) == ("done", "failed")
    assert mac.plist("mate").is_dir()


@pytest.mark.thorough
def test_a_launcher_that_is_gone_shows_and_comes_back(mac: Mac) -> None:
    mac.apply()
    shutil.rmtree(Path(mac.home.units, "bin"))
    assert set(mac.states().values()) == {"failed"}
    mac.apply()
    mac.all_is_well()


def test_somebody_elses_home_is_not_applied(mac: Mac) -> None:
    """Root's timers would fire it beside its owner's."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    os.chown(mac.home.root, 1000, 1000)
    with pytest.raises(Fixable) as caught:
        mac.apply()
    assert (caught.value.id, caught.value.outcome) == ("WB-SCHED-05", "unauthorized")
