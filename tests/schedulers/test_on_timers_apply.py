"""Acceptance: `plan`, `apply`, `pause`, `resume`, `uninstall` on a real systemd user manager, and what people do to
its units behind our back."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.fleet import agent, wait_for, write_agent
from support.timers import Timed, far_off, settled, timed

pytestmark = [pytest.mark.needs("systemctl", "unshare", "nsenter", "ip"), pytest.mark.thorough]

MINUTELY = "* * * * *"


def counts(it: Timed, names: list[str]) -> dict[str, int]:
    return {name: len(it.fired(name)) for name in names}


def quiet(it: Timed, names: list[str], seconds: float = 2.5) -> bool:
    """None of them fires while their timers, if they went, would have come round twice."""
    settled(it, *names)
    before = counts(it, names)
    time.sleep(seconds)
    return counts(it, names) == before


def fires(it: Timed, name: str) -> None:
    before = len(it.fired(name))
    wait_for(f"{name} to fire", lambda: len(it.fired(name)) > before, 60)


def states(it: Timed) -> dict[str, str]:
    return {row["agent"]: row["timer"] for row in it.told("plan")["agents"]}


def delete(it: Timed, name: str) -> None:
    it.manager.systemctl("stop", it.timer(name))
    for unit in (it.timer(name), it.service(name)):
        it.file(unit).unlink()
    it.manager.systemctl("daemon-reload")


def mask(it: Timed, name: str) -> None:
    """systemctl refuses to mask a unit whose own file is in the way: who does it by hand takes that away."""
    it.file(it.timer(name)).unlink()
    it.manager.systemctl("mask", "--now", it.timer(name))


#: What people do to a timer of ours, by the name of the agent it is done to.
BEHIND: dict[str, Callable[[Timed, str], object]] = {
    "stopped": lambda it, name: it.manager.systemctl("stop", it.timer(name)),
    "disabled": lambda it, name: it.manager.systemctl("disable", "--now", it.timer(name)),
    "masked": mask,
    "deleted": delete,
    "timer-deleted": lambda it, name: it.file(it.timer(name)).unlink(),
}


def test_paused_behind_our_back_stays_paused(tmp_path: Path) -> None:
    """Stopped, disabled, masked, deleted: named by `plan` and `status`, left alone by `apply` and by a changed roster,
    ended by `resume`; and the one that nobody touched fires all the while.

    Broken once: `apply` that arms whatever it renews (`disabled` and `stopped` were armed by a changed roster)."""
    names = list(BEHIND)
    with timed(tmp_path, {name: agent(schedule=MINUTELY) for name in [*names, "bosun"]}) as it:
        it.watchbill("apply")
        for name, act in BEHIND.items():
            act(it, name)
        it.quicken(1)
        assert states(it) == {"bosun": "armed", **dict.fromkeys(names, "paused outside")}
        status = {row["agent"]: row["timer"] for row in it.told("status")["agents"]}
        assert status["bosun"] == "armed"
        assert all(status[name].startswith("paused outside") for name in names), status
        assert it.changes_of("apply") == []
        assert quiet(it, names)
        fires(it, "bosun")

        for name in names:  # the roster wants something else of them now
            write_agent(it.fleet.home, name, agent(schedule=MINUTELY, timeout="31s"))
        it.watchbill("apply")
        assert states(it) == {"bosun": "armed", **dict.fromkeys(names, "paused outside")}
        it.manager.restart()
        fires(it, "stopped")  # that lasted until the next login, and no longer
        it.manager.systemctl("stop", it.timer("stopped"))
        assert quiet(it, names)
        for name in names:
            it.watchbill("resume", name)
        for name in names:
            fires(it, name)
        it.unhurried()
        assert set(states(it).values()) == {"armed"}
        assert it.changes_of("apply") == []
        it.watchbill("uninstall")
        settled(it, *names, "bosun")
        assert it.residue() == []


def test_pause_starts_no_process_and_resume_makes_up_for_nothing(tmp_path: Path) -> None:
    """systemd itself looks at the gate file: no row, no process. Slots of the pause are not caught up.

    Broken once: a unit without ConditionPathExists (refused firings were counted)."""
    with timed(tmp_path, {"bosun": agent(schedule=MINUTELY), "mate": agent(schedule=MINUTELY)}) as it:
        it.watchbill("apply")
        it.quicken(1)
        fires(it, "bosun")
        it.watchbill("pause", "bosun")
        assert quiet(it, ["bosun"])
        assert it.manager.show(it.service("bosun"), "ConditionResult")["ConditionResult"] == "no"
        fires(it, "mate")
        it.watchbill("pause", "--fleet")
        assert quiet(it, ["bosun", "mate"])
        it.watchbill("resume", "--fleet")
        fires(it, "mate")
        assert quiet(it, ["bosun"])
        it.watchbill("resume", "bosun")
        fires(it, "bosun")
        assert it.changes_of("apply") == []


def test_drift_is_shown_and_put_back(tmp_path: Path) -> None:
    """A unit edited by hand, one edited and not reloaded, one that is not ours: each as it should be, and `apply` twice
    asks systemd to change nothing the second time.

    Broken once: no daemon-reload after writing (`apply` itself found the old one loaded, and took its change back)."""
    names = ["edited", "loaded-old", "foreign", "bosun"]
    with timed(tmp_path, {name: agent(schedule=MINUTELY) for name in names}) as it:
        it.manager.units.mkdir(parents=True)
        it.file(it.timer("foreign")).write_text("[Timer]\nOnCalendar=daily\n")
        done = it.watchbill("apply", status=None)
        assert done.returncode == 69, done
        assert "foreign" in done.stderr
        assert it.file(it.timer("foreign")).read_text() == "[Timer]\nOnCalendar=daily\n"
        it.file(it.timer("foreign")).unlink()
        it.watchbill("apply")
        wanted = {path: path.read_bytes() for path in it.manager.units.glob("watchbill-*.*")}
        assert len(wanted) == 8
        before = {path: path.stat().st_mtime_ns for path in wanted}
        assert it.changes_of("apply") == []
        assert {path: path.stat().st_mtime_ns for path in wanted} == before

        for name, reload in (("edited", True), ("loaded-old", False)):
            timer = it.file(it.timer(name))
            timer.write_text(timer.read_text().replace("Persistent=true", "Persistent=false"))
            if reload:
                it.manager.systemctl("daemon-reload")
        found = {row["agent"]: row for row in it.told("plan")["agents"]}
        assert {name: found[name]["timer"] for name in names} == {
            "edited": "drifted", "loaded-old": "drifted", "foreign": "armed", "bosun": "armed",
        }  # fmt: skip
        assert "-Persistent=false\n+Persistent=true" in it.watchbill("plan", "--diff").stdout
        it.watchbill("apply")
        assert {path: path.read_bytes() for path in it.manager.units.glob("watchbill-*.*")} == wanted
        for name in names:
            seen = it.manager.show(it.timer(name), "NeedDaemonReload", "Persistent", "ActiveState")
            assert seen == {"NeedDaemonReload": "no", "Persistent": "yes", "ActiveState": "active"}, (name, seen)
        assert it.changes_of("apply") == []


def test_prune_and_uninstall_leave_nothing(tmp_path: Path) -> None:
    """Nor do they end a firing that runs, or touch what is another home's.

    Broken once, each by itself: stamps that stay, links that stay, a service that is stopped with its timer."""
    sleeps = {"use": "command", "argv": ["sleep", "4"]}
    crew = {
        "bosun": agent(sleeps, schedule=far_off()),
        "mate": {"role": "sweep", "schedule": far_off()},
        "purser": agent(every="20m"),
    }
    with timed(tmp_path, crew) as it:
        it.fleet.world.issue("octocat", "Do it", labels=["agent:implement"])
        other = tmp_path / "person" / ".watchbill"
        (other / "agents").mkdir(parents=True)
        (other / "fleet.toml").write_text((it.fleet.home / "fleet.toml").read_text())
        write_agent(other, "bosun", agent(schedule=far_off()))
        it.watchbill("--home", str(other), "apply")
        it.watchbill("apply")
        assert {path.name for path in it.manager.units.glob("*.timer")} == {
            "watchbill-bosun.timer", *(it.timer(name) for name in crew)
        }  # fmt: skip

        (it.fleet.home / "agents" / "purser.md").unlink()
        it.watchbill("apply")
        assert it.file(it.timer("purser")).exists()
        assert states(it)["purser"] == "orphan"
        it.watchbill("apply", "--prune")
        assert not [
            path for path in it.manager.home.rglob("*purser*") if ".config" in str(path) or ".local" in str(path)
        ]
        assert it.manager.show(it.timer("purser"), "LoadState")["LoadState"] == "not-found"

        it.quicken(1, agent="bosun")
        wait_for("the engine", lambda: it.processes("sleep 4"), 60)
        it.watchbill("uninstall")
        assert it.processes("bosun --scheduled"), "the firing was ended"
        settled(it, "bosun")
        it.unhurried()
        assert [row[0] for row in it.fired("bosun")] == ["no_change"]
        assert [line for line in it.residue() if "watchbill-bosun" not in line] == []
        assert it.manager.show("watchbill-bosun.timer", "ActiveState")["ActiveState"] == "active"
        it.watchbill("--home", str(other), "uninstall")
        assert it.residue() == []
        assert "there was no timer" in it.watchbill("uninstall").stdout
