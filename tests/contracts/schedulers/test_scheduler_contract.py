"""What every scheduler does alike (base.Scheduler), each in its own words."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from watchbill.schedulers import header, manifest
from watchbill.schedulers.base import Change, Failed, File


def soon(what: Callable[[], Any], seconds: float = 20) -> bool:
    until = time.monotonic() + seconds
    while not what() and time.monotonic() < until:
        time.sleep(0.05)
    return bool(what())


def test_its_files(bench: Any) -> None:
    """Absolute, the same for the same unit, and they say whose they are."""
    unit = bench.unit()
    files = bench.adapter.files(unit)
    assert files == bench.adapter.files(unit)
    assert files != bench.adapter.files(bench.unit(text="daily 05:00"))
    for file in files:
        assert os.path.isabs(file.path)
        assert os.path.basename(file.path).startswith(f"{unit.name}.")
        said = header.read(file.content)
        assert said is not None
        assert (said.home, said.agent, said.edited) == (unit.home, unit.agent, False)
        edited = header.read(file.content + b"\n")
        assert edited is not None
        assert edited.edited
    assert bench.call(bench.adapter.unavailable) is None
    assert bench.adapter.found("watchbill-") == ()


def test_one_agents_life(bench: Any) -> None:
    unit, other = bench.unit(), bench.unit("mate", "every 90m")
    assert not bench.look(unit).known
    assert bench.install(unit, other) == {"bosun": None, "mate": None}
    for one in (unit, other):
        seen = bench.look(one)
        assert (seen.known, seen.armed, seen.running, seen.stale) == (True, True, False, False)
        assert (seen.paused, seen.why) == (None, None)
        assert manifest.present(bench.adapter.files(one)) == bench.adapter.files(one)
    assert {file.path for file in bench.adapter.found("watchbill-")} == {
        file.path for one in (unit, other) for file in bench.adapter.files(one)
    }
    later = bench.unit(text="daily 05:00", argv=("/bin/sleep", "1"))
    assert bench.install(later) == {"bosun": None}
    assert (bench.look(later).armed, bench.look(later).stale) == (True, False)
    assert bench.install(later) == {"bosun": None}
    assert bench.remove(later) == {later.name: None}
    assert not bench.look(later).known
    assert [file.path for file in bench.adapter.found("watchbill-b")] == []
    assert bench.look(other).armed
    assert bench.remove(later, other) == {later.name: None, other.name: None}


def test_paused_behind_its_back_and_armed_again(bench: Any) -> None:
    unit = bench.unit()
    bench.install(unit)
    bench.pause(unit)
    seen = bench.look(unit)
    assert not seen.armed
    assert seen.paused
    later = bench.unit(text="daily 05:00")
    assert bench.install(later, arm=False) == {"bosun": None}
    assert not bench.look(later).armed
    assert manifest.present(bench.adapter.files(later)) == bench.adapter.files(later)
    assert bench.call(bench.adapter.arm, later.name, bench.adapter.files(later)) is None
    seen = bench.look(later)
    assert (seen.armed, seen.paused, seen.stale) == (True, None, False)


@pytest.mark.thorough
def test_a_firing_at_work_lives_on(bench: Any) -> None:
    """Whatever is changed, and whether that waits for it or not."""
    unit = bench.unit(argv=("/bin/sh", "-c", "echo began; sleep 3; echo ended"))
    bench.install(unit)
    bench.begin(unit)
    log = Path(unit.log)
    assert soon(lambda: log.exists() and "began" in log.read_text())
    assert bench.look(unit).running
    assert not isinstance(bench.install(unit._replace(deadline_s=90, log=unit.log + "2"))["bosun"], Failed)
    assert soon(lambda: "ended" in log.read_text())
    assert soon(lambda: not bench.look(unit).running)


@pytest.mark.thorough
def test_what_cannot_be_brought_is_as_it_was_before(bench: Any) -> None:
    unit, other = bench.unit(), bench.unit("mate")
    bench.install(unit)
    files = bench.adapter.files(unit)
    bad = tuple(File(file.path, b"no unit of anybody's\n") for file in files)
    outcomes = _installed(bench, unit, files, bad, other)
    assert isinstance(outcomes["bosun"], Failed)
    assert outcomes["mate"] is None
    assert manifest.present(files) == files
    assert (bench.look(unit).armed, bench.look(unit).stale) == (True, False)
    assert bench.look(other).armed


def _installed(bench: Any, unit: Any, before: Any, after: Any, other: Any) -> Any:
    changes = [Change(unit, before, after, True), Change(other, (), bench.adapter.files(other), True)]
    return bench.call(bench.adapter.install, changes, _nothing)


def _nothing(_: str) -> None:
    """Nobody waits."""


def test_once(bench: Any) -> None:
    """As firings are started: its status, its log, and nothing of it stays."""
    unit = bench.unit("doctor", "manual", argv=("/bin/sh", "-c", 'echo "$X"; pwd; exit 7'))
    assert bench.call(bench.adapter.once, unit, 20.0) == 7
    assert Path(unit.log).read_text().splitlines() == [dict(unit.environment)["X"], unit.directory]
    assert not bench.look(unit).known
    assert bench.adapter.found("watchbill-") == ()
