"""What strangers to the systemd adapter found wrong with it: each as it happened, against systemd itself."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from schedulers.test_systemd import Bench, bench, own_manager
from watchbill.schedulers import systemd
from watchbill.schedulers.base import Failed, File

__all__ = ["bench", "own_manager"]

pytestmark = [pytest.mark.needs("systemctl", "unshare", "nsenter", "setsid"), pytest.mark.thorough]


def test_new_times_begin_with_the_next_of_them(bench: Bench) -> None:
    """systemd counts from when it fired last, and would at once start for a time that was not the agent's then.

    Broken once: without the stop before the reload it fired within the second.
    """
    ran = bench.where / "ran"
    argv = ("/usr/bin/touch", str(ran))

    def daily(hours: float) -> str:
        return f"daily {time.strftime('%H:%M', time.gmtime(time.time() + hours * 3600))}"

    unit = bench.unit("bosun", daily(2), argv=argv)
    bench.install(unit)
    bench.it.restart(slept_s=3 * 3600)  # systemd says it fired then, and it missed nothing since
    assert bench.install(bench.unit("bosun", daily(-1), argv=argv)) == {"bosun": None}
    time.sleep(1.5)
    assert not ran.exists()
    assert bench.look(unit).armed


def test_what_is_taken_back_is_armed_as_it_was(bench: Bench) -> None:
    """Broken once: with every timer of theirs restarted, systemd stopped this one and would not start it."""
    unit = bench.unit("bosun")
    bench.install(unit)
    drop_in = bench.it.units / "watchbill-bosun.service.d"
    drop_in.mkdir()
    (drop_in / "mine.conf").write_text("[Service]\nExecStart=\n")
    bench.it.systemctl("daemon-reload")
    outcome = bench.install(bench.unit("bosun", "daily 05:00"))["bosun"]
    assert isinstance(outcome, Failed)
    assert bench.look(unit).armed
    assert bench.look(unit).paused is None


def test_a_strangers_timer_of_that_name_is_not_stopped(bench: Bench) -> None:
    """It lies where systemd looks later than where ours lie."""
    unit = bench.unit("bosun")
    theirs = bench.it.home / ".local" / "share" / "systemd" / "user"
    theirs.mkdir(parents=True)
    for file in systemd.files(unit):
        (theirs / Path(file.path).name).write_bytes(file.content)
    bench.it.systemctl("daemon-reload")
    bench.it.systemctl("start", "watchbill-bosun.timer")
    assert bench.look(unit).path == str(theirs / "watchbill-bosun.timer")
    bench.ask(systemd.remove, [unit.name], [], print)
    assert bench.look(unit).armed
    bench.it.systemctl("stop", "watchbill-bosun.timer")
    shutil.rmtree(theirs)
    bench.it.systemctl("daemon-reload")


def test_links_go_where_the_files_were(bench: Bench) -> None:
    """In a shell that looks elsewhere for units. Broken once: the link in timers.target.wants stayed."""
    unit = bench.unit("bosun")
    bench.install(unit)
    wants = bench.it.units / "timers.target.wants" / "watchbill-bosun.timer"
    assert wants.is_symlink()
    outcomes = bench.ask(
        systemd.remove, [unit.name], systemd.files(unit), print, XDG_CONFIG_HOME=str(bench.where / "x")
    )
    assert outcomes == {unit.name: None}
    assert not wants.is_symlink()


def test_what_cannot_be_deleted_goes_on_firing(bench: Bench) -> None:
    """Broken once: it was stopped first, and counted as paused for ever."""
    unit = bench.unit("bosun")
    bench.install(unit)
    stays = bench.where / "watchbill-bosun.stays"  # as a file on a disk that is read-only
    stays.mkdir()
    outcome = bench.ask(systemd.remove, [unit.name], [File(str(stays), b"")], print)[unit.name]
    assert isinstance(outcome, Failed)
    assert str(stays) in outcome.what
    assert bench.look(unit).armed
