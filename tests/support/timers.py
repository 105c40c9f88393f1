"""A whole fleet on real timers: its home on a practice forge, and a systemd user manager of its own that fires it.

with timed(tmp_path, {"bosun": agent(schedule="* * * * *")}) as it:
    it.watchbill("apply")
    it.quicken(1)
    wait_for("a firing", lambda: it.fired("bosun"))

What a person types runs inside, beside the manager; the forge and the test are outside, on the same loopback.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from support import manager
from support.fleet import WATCHBILL, Fleet, fleet, wait_for
from support.manager import Manager
from watchbill.home import Home
from watchbill.schedulers import units

#: Verbs of systemctl that change something.
MUTATING = {
    "daemon-reload", "daemon-reexec", "enable", "disable", "reenable", "start", "stop", "restart", "mask", "unmask",
    "reset-failed", "clean", "kill", "link", "edit", "set-property", "revert", "exit",
}  # fmt: skip
#: Lines of fleet.toml; pushes are not paced, for nobody's patience is tested here.
SYSTEMD = 'pushes_per_minute = 600\n[schedule]\nuse = "systemd"\n'


class Timed(NamedTuple):
    """A fleet, and the manager that fires it."""

    fleet: Fleet
    manager: Manager
    calls: Path  # a line for every systemctl that was called inside

    def watchbill(self, *argv: str, status: int | None = 0, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """The `watchbill` command, typed inside. `status`: what it has to end with; None: whatever."""
        done = self.manager.run(
            sys.executable,
            WATCHBILL,
            *argv,
            env={
                "WATCHBILL_HOME": str(self.fleet.home),
                "PATH": f"{self.calls.parent}:{os.environ['PATH']}",
                "TMPDIR": str(self.calls.parent),
            },
            timeout=timeout,
        )
        bugs = [report.read_text() for report in self.calls.parent.glob("watchbill-bug-*")]
        assert not bugs, bugs[0]
        assert status in (None, done.returncode), f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def told(self, *argv: str) -> dict[str, Any]:
        """What `watchbill VERB --json` says."""
        found = json.loads(self.watchbill(*argv, "--json").stdout)
        assert isinstance(found, dict)
        return found

    def timer_of(self, agent: str) -> dict[str, Any]:
        """The agent's row in `plan`."""
        (row,) = (one for one in self.told("plan")["agents"] if one["agent"] == agent)
        return dict(row)

    def unit(self, agent: str) -> str:
        return units.unit_name(Home(str(self.fleet.home)), agent)

    def timer(self, agent: str) -> str:
        return f"{self.unit(agent)}.timer"

    def service(self, agent: str) -> str:
        return f"{self.unit(agent)}.service"

    def file(self, unit: str) -> Path:
        return self.manager.units / unit

    def changes_of(self, *argv: str) -> list[str]:
        """What systemctl is told to change while a command of ours runs."""
        before = self._called()
        self.watchbill(*argv)
        return [line for line in self._called()[len(before) :] if MUTATING & set(line.split())]

    def _called(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []

    def quicken(self, period_s: int, *, agent: str | None = None, service: str = "") -> None:
        """Every timer, or one agent's, comes round sooner than it could be written: for the test's patience only.

        A drop-in, as an operator may write them. `service`: lines of its [Service], for instance a shorter deadline.
        """
        named = {"timer": self.timer(agent), "service": self.service(agent)} if agent else {}
        lines = f"[Timer]\nOnCalendar=\nOnCalendar=*:*:0/{period_s}\nRandomizedDelaySec=0\n"
        for kind, text in (("timer", lines), ("service", f"[Service]\n{service}\n" if service else "")):
            if text:
                folder = self.manager.units / f"{named.get(kind, kind)}.d"
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "quick.conf").write_text(text)
        self.manager.systemctl("daemon-reload")
        told = self.manager.systemctl("show", "--property=TimersCalendar", self.timer(agent) if agent else "*.timer")
        assert all("OnCalendar=*-*-* *:*:" in line for line in told.split("\n") if line), told

    def unhurried(self) -> None:
        """As written again."""
        for folder in self.manager.units.glob("*.d"):
            shutil.rmtree(folder)
        self.manager.systemctl("daemon-reload")

    def fired(self, agent: str) -> list[tuple[Any, ...]]:
        """Every firing of an agent: outcome, due, started, ended."""
        if not (self.fleet.home / "ledger.db").exists():
            return []
        return self.fleet.rows(
            "SELECT outcome, due, started, ended FROM firings WHERE agent = ? ORDER BY started, id", agent
        )

    def at_rest(self, agent: str) -> bool:
        """No firing of it is at work by its timer."""
        return self.manager.show(self.service(agent), "ActiveState").get("ActiveState") in ("inactive", "failed")

    def processes(self, word: str = "") -> list[str]:
        """Command lines inside that hold this word, but those of the manager itself."""
        said = self.manager.run("ps", "-ww", "-eo", "pid=,stat=,args=").stdout.splitlines()
        own = (" ps -ww", " systemd --user", "(sd-pam)", "dbus-daemon")
        mine = [line.strip() for line in said if int(line.split()[0]) > 1 and not any(one in line for one in own)]
        return [line for line in mine if word in line and "Z" not in line.split()[1]]

    def groups(self) -> list[str]:
        """Control groups inside that are named like a unit of ours."""
        said = self.manager.run("find", "/sys/fs/cgroup", "-type", "d", "-name", "watchbill-*").stdout
        return said.split()

    def residue(self) -> list[str]:
        """Whatever of our units is still there: files, links, stamps, overrides, loaded units, groups, processes."""
        places = [self.manager.units, self.manager.stamps, self.manager.home / ".config", self.manager.home / ".local"]
        files = {str(path) for place in places for path in place.rglob("*watchbill-*")}
        runtime = self.manager.run("find", str(self.manager.runtime), "-name", "*watchbill-*").stdout.split()
        loaded = self.manager.systemctl("list-units", "--all", "--plain", "--no-legend", "watchbill-*").splitlines()
        known = self.manager.systemctl(
            "list-unit-files",
            "--plain",
            "--no-legend",
            "watchbill-*",
            check=False,  # 1: there is none
        ).splitlines()
        return sorted(files) + runtime + loaded + known + self.groups() + self.processes("--scheduled")


@contextlib.contextmanager
def timed(tmp_path: Path, agents: dict[str, dict[str, Any]], *, tz: str = "UTC", **more: Any) -> Iterator[Timed]:
    """`more`: as for `fleet`. Ends with nothing left of the manager, or AssertionError."""
    calls = tmp_path / "shims" / "calls"
    more.setdefault("toml", SYSTEMD)
    calls.parent.mkdir()
    with (
        fleet(tmp_path, agents, **more) as it,
        manager.private(tmp_path, tz=tz, shared_loopback=True) as own,
    ):
        real = shutil.which("systemctl")
        shim = calls.parent / "systemctl"
        shim.write_text(f'#!/bin/sh\necho "$@" >> {calls}\nexec {real} "$@"\n')
        shim.chmod(0o755)
        yield Timed(it, own, calls)


def far_off() -> str:
    """A schedule whose time does not come while a test runs."""
    return f"daily {datetime.now(UTC) + timedelta(hours=12):%H:%M}"


def settled(it: Timed, *agents: str, seconds: float = 60) -> None:
    """Until none of them is at work."""
    wait_for(f"{', '.join(agents)} to be at rest", lambda: all(it.at_rest(one) for one in agents), seconds)
