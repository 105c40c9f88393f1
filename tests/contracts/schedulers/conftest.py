"""Every adapter with a system of its own: launchd's stand-in, and a private systemd user manager."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from support import launchctl, manager
from watchbill.schedulers import launchd, manifest, systemd
from watchbill.schedulers.base import Change, Loaded, Outcome, Unit
from watchbill.schedulers.schedule import check


class Bench:
    """An adapter at work, and what a person does behind its back."""

    adapter: ModuleType
    where: Path

    def call(self, function: Any, *values: Any) -> Any:
        """Where the system is."""
        return function(*values)

    def begin(self, unit: Unit) -> None:
        """Start a firing of it, as the system does."""
        raise NotImplementedError

    def pause(self, unit: Unit) -> None:
        """As somebody does it who does not know of `watchbill pause`."""
        raise NotImplementedError

    def unit(self, agent: str = "bosun", text: str = "daily 04:00", **changed: Any) -> Unit:
        plain = Unit(
            agent=agent,
            name=f"watchbill-{agent}",
            description=f"Watchbill: {agent}, {text}",
            home=str(self.where),
            argv=("/bin/sleep", "0"),
            directory=str(self.where),
            environment=(("PATH", "/usr/bin:/bin"), ("X", 'a "b" $c %d \\ é')),
            log=str(self.where / f"{agent}.log"),
            deadline_s=60,
            gates=(str(self.where / "held"),),
            schedule=check(text),
            delay_s=0,
        )
        return plain._replace(**changed)

    def install(self, *units: Unit, arm: bool = True) -> Mapping[str, Outcome]:
        every = ((unit, self.adapter.files(unit)) for unit in units)
        changes = [Change(unit, manifest.present(files), files, arm) for unit, files in every]
        outcomes: Mapping[str, Outcome] = self.call(self.adapter.install, changes, _nothing)
        return outcomes

    def remove(self, *units: Unit) -> Mapping[str, Outcome]:
        files = [file for unit in units for file in manifest.present(self.adapter.files(unit))]
        outcomes: Mapping[str, Outcome] = self.call(self.adapter.remove, [u.name for u in units], files, _nothing)
        return outcomes

    def look(self, unit: Unit) -> Loaded:
        found: Loaded = self.call(self.adapter.look, [unit.name])[unit.name]
        return found


class Launchd(Bench):
    adapter = launchd

    def __init__(self, where: Path) -> None:
        self.where = where
        self.double = launchctl.install(where)

    def begin(self, unit: Unit) -> None:
        assert self.double.ask("kickstart", f"gui/{os.getuid()}/{unit.name}").returncode == 0

    def pause(self, unit: Unit) -> None:
        self.double.ask("bootout", f"gui/{os.getuid()}/{unit.name}")


class Systemd(Bench):
    adapter = systemd

    def __init__(self, it: manager.Manager) -> None:
        self.it = it
        self.where = it.directory / "fleet"
        self.where.mkdir()

    def call(self, function: Any, *values: Any) -> Any:
        return self.it.call(function, *values)

    def begin(self, unit: Unit) -> None:
        self.it.systemctl("start", "--no-block", f"{unit.name}.service")

    def pause(self, unit: Unit) -> None:
        self.it.systemctl("stop", f"{unit.name}.timer")


def _nothing(_: str) -> None:
    """Nobody waits."""


_SYSTEMD = [pytest.mark.needs("systemctl", "unshare", "nsenter", "setsid"), pytest.mark.thorough]


@pytest.fixture(params=["launchd", pytest.param("systemd", marks=_SYSTEMD)])
def bench(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    if request.param == "launchd":
        it = Launchd(tmp_path)
        monkeypatch.setenv("PATH", f"{it.double.bin}:{os.environ['PATH']}")
        yield it
        return
    with manager.private(tmp_path) as private:
        monkeypatch.setenv("HOME", str(private.home))
        yield Systemd(private)
