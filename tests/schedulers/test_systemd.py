"""The systemd adapter against systemd itself: a user manager of the tests' own."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from support import manager
from support.manager import Manager
from watchbill.errors import Fixable
from watchbill.schedulers import manifest, systemd, systemd_ask
from watchbill.schedulers.base import Change, Failed, File, Loaded, Outcome, Unit
from watchbill.schedulers.schedule import check

pytestmark = pytest.mark.needs("systemctl", "unshare", "nsenter", "setsid")


class Bench:
    """The adapter as it works inside, on units of this test's."""

    def __init__(self, it: Manager, where: Path) -> None:
        self.it = it
        self.where = where
        self.said: list[str] = []
        self.calls = where / "calls"
        (where / "bin").mkdir()
        spy = where / "bin" / "systemctl"
        spy.write_text(f'#!/bin/sh\necho "$@" >> "{self.calls}"\nexec /usr/bin/systemctl "$@"\n')
        spy.chmod(0o755)

    def unit(self, agent: str, text: str = "daily 04:00", **changed: Any) -> Unit:
        plain = Unit(
            agent=agent,
            name=f"watchbill-{agent}",
            description=f"Watchbill: {agent}",
            home=str(self.where),
            argv=("/bin/true",),
            directory=str(self.where),
            environment=(("PATH", "/usr/bin:/bin"),),
            log=str(self.where / f"{agent}.log"),
            deadline_s=60,
            gates=(str(self.where / "held"),),
            schedule=check(text),
            delay_s=0,
        )
        return plain._replace(**changed)

    def ask(self, function: Any, *values: Any, **more: str) -> Any:
        path = f"{self.where}/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        return self.it.call(function, *values, env={"PATH": path, **more})

    def install(self, *units: Unit, arm: bool = True, **files: tuple[File, ...]) -> Mapping[str, Outcome]:
        """`files`: other bytes than the adapter's own, by agent."""
        changes = []
        for unit in units:
            after = files.get(unit.agent) or systemd.files(unit)
            changes.append(Change(unit, manifest.present(after), after, arm))
        outcomes: Mapping[str, Outcome] = self.ask(systemd.install, changes, _nothing)
        return outcomes

    def remove(self, *units: Unit) -> Mapping[str, Outcome]:
        files = [file for unit in units for file in manifest.present(systemd.files(unit))]
        outcomes: Mapping[str, Outcome] = self.ask(systemd.remove, [unit.name for unit in units], files, _nothing)
        return outcomes

    def look(self, unit: Unit, **more: str) -> Loaded:
        found: Loaded = self.ask(systemd.look, [unit.name], **more)[unit.name]
        return found

    def reloads(self) -> int:
        """How often the manager has read its units anew, by its own journal."""
        return self.it.run("journalctl", "--no-pager", "--output=cat").stdout.count("Reloading.")

    def left(self, unit: Unit) -> list[str]:
        """Whatever of a unit is anywhere."""
        found = [str(path) for path in self.it.home.rglob(f"*{unit.name}*")]
        found += self.it.run("find", str(self.it.runtime), "/run/systemd", "-name", f"*{unit.name}*").stdout.split()
        listed = self.it.systemctl("list-units", "--all", "--plain", "--no-legend", f"{unit.name}*")
        return found + listed.splitlines()


def _nothing(_: str) -> None:
    """Nobody waits."""


@pytest.fixture(scope="module")
def own_manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    with manager.private(tmp_path_factory.mktemp("manager"), journal=True) as it:
        yield it


@pytest.fixture
def bench(own_manager: Manager, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Bench]:
    monkeypatch.setenv("HOME", str(own_manager.home))
    where = own_manager.directory / request.node.name.partition("[")[0] / str(time.monotonic_ns())
    where.mkdir(parents=True)
    it = Bench(own_manager, where)
    yield it
    for path in own_manager.units.glob("watchbill-*"):
        if path.is_dir():
            shutil.rmtree(path)
    names = {path.stem for path in own_manager.units.glob("watchbill-*")}
    files = [File(str(path), b"") for path in own_manager.units.glob("watchbill-*.*")]
    it.ask(systemd.remove, sorted(names), files, _nothing)
    own_manager.systemctl("reset-failed")
    assert own_manager.systemctl("list-units", "--all", "--plain", "--no-legend", "watchbill*") == ""


def _slots(fires: Loaded) -> str:
    assert fires.next is not None
    return time.strftime("%H:%M", time.gmtime(fires.next))


def test_a_unit_is_armed_and_taken_away_without_a_trace(bench: Bench) -> None:
    unit = bench.unit("bosun")
    assert bench.look(unit) == Loaded()
    assert bench.install(unit) == {"bosun": None}
    loaded = bench.look(unit)
    assert (loaded.known, loaded.armed, loaded.stale, loaded.paused, loaded.why) == (True, True, False, None, None)
    assert _slots(loaded) == "04:00"
    assert loaded.last is None
    assert manifest.present(systemd.files(unit)) == systemd.files(unit)
    assert all(os.stat(file.path).st_mode & 0o777 == 0o644 for file in systemd.files(unit))
    assert bench.remove(unit) == {"watchbill-bosun": None}
    assert bench.left(unit) == []


@pytest.mark.thorough
def test_many_come_in_one_reload_and_a_few_questions(bench: Bench) -> None:
    """One reload by the manager's own count. Broken once: without --no-reload `enable` made a second one."""
    before = bench.reloads()
    units = [bench.unit(f"hand-{number}", "every 20m") for number in range(40)]
    assert set(bench.install(*units).values()) == {None}
    assert bench.reloads() == before + 1
    assert len(bench.calls.read_text().splitlines()) <= 8
    bench.calls.unlink()
    bench.ask(systemd.look, [unit.name for unit in units])
    assert len(bench.calls.read_text().splitlines()) == 2
    bench.calls.unlink()
    assert set(bench.remove(*units).values()) == {None}
    assert bench.reloads() == before + 2
    assert len(bench.calls.read_text().splitlines()) <= 8


@pytest.mark.thorough
@pytest.mark.parametrize("text", ["every 90m", "every 20m", "*/7 * 1,15 * 5"])
def test_any_schedule_is_armed_with_its_next_time(bench: Bench, text: str) -> None:
    """Whoever asks. Broken once: without TZ=UTC for systemctl somebody in Tokyo was told no next time."""
    unit = bench.unit("bosun", text)
    assert bench.install(unit) == {"bosun": None}
    german = bench.look(unit, LANG="de_DE.UTF-8", TZ="Asia/Tokyo")
    assert german.armed
    assert german.next is not None
    assert german.next > time.time()
    assert abs(german.next - (bench.look(unit).next or 0)) <= 1


def _spoilt(unit: Unit, how: str) -> tuple[File, ...]:
    """A unit's files with a mistake in them that systemd does not tell whoever brings them."""
    service, timer = systemd.files(unit)
    spoilt = {
        "every line": timer.content.replace(b"OnCalendar=", b"OnCalendar=not "),
        "one line": timer.content.replace(b"OnCalendar=Fri", b"OnCalendar=Freitag"),
        "never": timer.content.replace(b"OnCalendar=", b"OnCalendar=2020-01-01 00:00\n#"),
        "service": timer.content,
    }[how]
    bad = service.content.replace(b"ExecStart=", b"#ExecStart=") if how == "service" else service.content
    return File(service.path, bad), File(timer.path, spoilt)


@pytest.mark.thorough
@pytest.mark.parametrize("how", ["every line", "one line", "never", "service"])
def test_what_systemd_cannot_use_is_taken_back_alone(bench: Bench, how: str) -> None:
    """Broken once: without the count of calendar times `one line` was armed, and its Friday slots were lost; with
    `start` for `restart` the old one of `every line` and `never` was back and never fired again.
    """
    old, other = bench.unit("bosun", "daily 04:00"), bench.unit("purser", "daily 05:00")
    assert bench.install(old) == {"bosun": None}
    before = bench.reloads()
    new = bench.unit("bosun", "30 4 1,15 * 5")
    outcomes = bench.install(new, other, bosun=_spoilt(new, how))
    failed = outcomes["bosun"]
    assert isinstance(failed, Failed)
    assert failed.what
    assert outcomes["purser"] is None
    assert manifest.present(systemd.files(old)) == systemd.files(old)
    assert (_slots(bench.look(old)), _slots(bench.look(other))) == ("04:00", "05:00")
    assert bench.look(old).armed
    assert not bench.look(old).stale
    assert bench.reloads() == before + 2


@pytest.mark.thorough
def test_of_a_new_one_that_cannot_be_used_nothing_stays(bench: Bench) -> None:
    unit = bench.unit("bosun", "30 4 1,15 * 5")
    assert isinstance(bench.install(unit, bosun=_spoilt(unit, "every line"))["bosun"], Failed)
    assert bench.left(unit) == []


def test_files_that_cannot_be_written_fail_alone(bench: Bench) -> None:
    unit, other = bench.unit("bosun"), bench.unit("purser")
    in_the_way = Path(systemd.files(unit)[1].path)
    in_the_way.mkdir(parents=True)
    outcomes = bench.ask(
        systemd.install, [Change(one, (), systemd.files(one), True) for one in (unit, other)], _nothing
    )
    failed = outcomes["bosun"]
    assert isinstance(failed, Failed)
    assert str(in_the_way) in failed.what
    assert outcomes["purser"] is None
    assert not os.path.exists(systemd.files(unit)[0].path)
    in_the_way.rmdir()
    assert bench.left(unit) == []


@pytest.mark.thorough
def test_a_manager_that_hangs_is_a_sentence_and_nothing_is_half_written(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken once: without putting back what was written the new timer's file stayed."""
    old, new = bench.unit("bosun", "daily 04:00"), bench.unit("bosun", "daily 05:00")
    assert bench.install(old) == {"bosun": None}
    monkeypatch.setattr(systemd_ask, "RELOAD_S", 0.3)
    spy = bench.where / "bin" / "systemctl"
    spy.write_text(
        '#!/bin/sh\nfor word; do [ "$word" != daemon-reload ] || exec sleep 5; done\nexec /usr/bin/systemctl "$@"\n'
    )
    with pytest.raises(Fixable) as told:
        bench.install(new)
    assert told.value.id == "WB-SCHED-13"
    assert "did not end" in told.value.what
    spy.write_text('#!/bin/sh\nexec /usr/bin/systemctl "$@"\n')
    monkeypatch.undo()
    monkeypatch.setenv("HOME", str(bench.it.home))
    assert manifest.present(systemd.files(old)) == systemd.files(old)


@pytest.mark.thorough
def test_a_firing_that_runs_survives_a_change_and_a_removal(bench: Bench) -> None:
    """And when it has ended nothing of its unit is there; of one that failed, the manager's memory of that.

    Broken once: with the service stopped before its file goes, "down" never came.
    """
    for end in (0, 3):
        unit = bench.unit(f"bosun-{end}", argv=("/bin/sh", "-c", f"echo up; sleep 1.5; echo down; exit {end}"))
        assert bench.install(unit) == {unit.agent: None}
        bench.it.systemctl("start", "--no-block", f"{unit.name}.service")
        _until(lambda log=Path(unit.log): log.exists() and "up" in log.read_text())
        assert bench.look(unit).running
        assert bench.install(unit._replace(schedule=check("daily 05:00"))) == {unit.agent: None}
        assert bench.look(unit).running
        assert _slots(bench.look(unit)) == "05:00"
        assert bench.remove(unit) == {unit.name: None}
        _until(lambda log=Path(unit.log): "down" in log.read_text())
        if end:
            _until(lambda unit=unit: not bench.look(unit).running)
            bench.it.systemctl("reset-failed", f"{unit.name}.service", check=False)
        _until(lambda unit=unit: bench.left(unit) == [])


def _until(so: Any, seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < until, "not within the time"
        time.sleep(0.1)


def _masked(bench: Bench, unit: Unit) -> None:
    """What somebody types whom `systemctl mask` told that the file is in its way."""
    bench.it.systemctl("stop", f"{unit.name}.timer")
    Path(systemd.files(unit)[1].path).unlink()
    bench.it.systemctl("mask", f"{unit.name}.timer")


PAUSES = {
    "stop": (lambda b, u: b.it.systemctl("stop", f"{u.name}.timer"), "timer stopped"),
    "disable": (
        lambda b, u: b.it.systemctl("disable", f"{u.name}.timer"),
        "timer disabled: it fires until the next logout",
    ),
    "disable --now": (lambda b, u: b.it.systemctl("disable", "--now", f"{u.name}.timer"), "timer disabled"),
    "mask": (_masked, "masked"),
}


@pytest.mark.thorough
@pytest.mark.parametrize("how", PAUSES)
def test_paused_behind_our_back_it_is_seen_kept_and_ended(bench: Bench, how: str) -> None:
    """Broken once: with arming whatever a change says, `stop` was undone by the next apply; with writing where a mask
    is, the mask was gone.
    """
    pause, words = PAUSES[how]
    unit = bench.unit("bosun")
    assert bench.install(unit) == {"bosun": None}
    pause(bench, unit)
    assert bench.look(unit).paused == words
    # Its files are renewed meanwhile, and it stays paused.
    later = unit._replace(schedule=check("daily 05:00"))
    assert bench.install(later, arm=False) == {"bosun": None}
    assert bench.look(unit).paused == words
    assert not bench.look(unit).stale
    before = bench.reloads()
    assert bench.install(later, arm=False) == {"bosun": None}
    assert bench.reloads() == before, "nothing was to be done"
    assert bench.ask(systemd.arm, unit.name, systemd.files(later)) is None
    loaded = bench.look(unit)
    assert (loaded.armed, loaded.paused, _slots(loaded)) == (True, None, "05:00")


@pytest.mark.thorough
def test_a_deleted_file_leaves_no_link_behind(bench: Bench) -> None:
    """Broken once: without `_unlink` the link in timers.target.wants stayed, and the manager listed a ghost."""
    unit = bench.unit("bosun")
    assert bench.install(unit) == {"bosun": None}
    for file in systemd.files(unit):
        os.unlink(file.path)
    bench.it.systemctl("daemon-reload")
    loaded = bench.look(unit)
    assert not loaded.armed
    assert bench.ask(systemd.arm, unit.name, systemd.files(unit)) is None
    assert bench.look(unit).armed
    for file in systemd.files(unit):
        os.unlink(file.path)
    bench.it.systemctl("daemon-reload")
    assert bench.remove(unit) == {unit.name: None}
    assert bench.left(unit) == []


@pytest.mark.thorough
def test_an_edit_is_stale_until_it_is_loaded(bench: Bench) -> None:
    unit = bench.unit("bosun")
    assert bench.install(unit) == {"bosun": None}
    timer = Path(systemd.files(unit)[1].path)
    timer.write_bytes(timer.read_bytes().replace(b"04:00", b"06:00"))
    assert bench.look(unit).stale
    assert bench.install(unit) == {"bosun": None}
    assert not bench.look(unit).stale
    assert _slots(bench.look(unit)) == "04:00"


@pytest.mark.thorough
def test_what_is_beside_a_unit_is_told_and_stays(bench: Bench) -> None:
    unit = bench.unit("bosun", argv=(sys.executable, "-c", "import os; print(os.nice(0))"))
    beside = bench.it.units / f"{unit.name}.service.d" / "mine.conf"
    beside.parent.mkdir(parents=True)
    beside.write_text("[Service]\nNice=11\n")
    assert bench.install(unit) == {"bosun": None}
    assert bench.ask(systemd.drop_ins, [unit.name]) == {unit.name: [str(beside)]}
    bench.it.systemctl("start", f"{unit.name}.service")
    assert Path(unit.log).read_text() == "11\n"
    assert bench.remove(unit) == {unit.name: None}
    assert beside.exists()
    beside.unlink()
    beside.parent.rmdir()


@pytest.mark.thorough
def test_what_systemd_could_not_start_says_why(bench: Bench) -> None:
    gone = bench.unit("bosun", argv=("/nowhere/python",))
    lost = bench.unit("purser", log="/nowhere/purser.log")
    assert set(bench.install(gone, lost).values()) == {None}
    for unit in (gone, lost):
        bench.it.systemctl("start", f"{unit.name}.service", check=False)
    assert bench.look(gone).why == "systemd could not start its last firing: 203/EXEC"
    assert bench.look(lost).why == "systemd could not start its last firing: 209/STDOUT"
    assert bench.look(gone).armed


@pytest.mark.thorough
def test_who_is_armed_begins_with_the_next_slot(bench: Bench) -> None:
    """And who was armed all along, and missed slots while the manager was down, is fired once.

    Broken once: with the stamp left where it was, arming after a long pause fired at once.
    """
    paused = bench.unit("bosun", "every 1h", argv=("/bin/echo", "fired"))
    asleep = bench.unit("purser", "every 1h", argv=("/bin/echo", "fired"))
    assert set(bench.install(paused, asleep).values()) == {None}
    bench.it.systemctl("disable", "--now", f"{paused.name}.timer")
    bench.it.restart(slept_s=10_000)
    _until(lambda: Path(asleep.log).exists())
    assert bench.ask(systemd.arm, paused.name, systemd.files(paused)) is None
    _until(lambda: not bench.look(asleep).running)
    assert not Path(paused.log).exists()
    assert Path(asleep.log).read_text() == "fired\n"
    last = bench.look(asleep).last
    assert last is not None
    assert abs(last - time.time()) < 60


def test_once_is_as_a_firing_is(bench: Bench) -> None:
    """The same environment, folder, limits and user; except for what names the start itself."""
    shows = (
        "import json, os, resource\n"
        "own = ('INVOCATION_ID', 'SYSTEMD_EXEC_PID', 'JOURNAL_STREAM', 'MEMORY_PRESSURE_')\n"
        "env = {k: v for k, v in os.environ.items() if not k.startswith(own)}\n"
        "limits = [resource.getrlimit(n) for n in range(10)]\n"
        "print(json.dumps([env, os.getcwd(), os.umask(0), os.nice(0), os.getuid(), limits,\n"
        "                  [line for line in open('/proc/self/status') if line.startswith('NoNewPrivs')]]))\n"
    )
    (bench.where / "shows.py").write_text(shows)
    unit = bench.unit("bosun", argv=(sys.executable, "-I", str(bench.where / "shows.py")))
    assert bench.install(unit) == {"bosun": None}
    bench.it.systemctl("start", f"{unit.name}.service")
    assert bench.ask(systemd.once, unit, 20) == 0
    fired, once = Path(unit.log).read_text().splitlines()
    assert fired == once
    assert '"NoNewPrivs:\\t1' in fired
    assert bench.remove(unit) == {unit.name: None}
    assert bench.left(unit) == []


@pytest.mark.thorough
def test_once_tells_its_status_or_that_it_did_not_end(bench: Bench) -> None:
    status = bench.unit("bosun", argv=("/bin/sh", "-c", "exit 7"))
    assert bench.ask(systemd.once, status, 20) == 7
    hangs = bench.unit("purser", argv=("/bin/sleep", "60"))
    assert bench.ask(systemd.once, hangs, 0.5) is None
    assert bench.left(status) + bench.left(hangs) == []
    assert "sleep 60" not in bench.it.run("ps", "ax").stdout


@pytest.mark.thorough
def test_of_once_nothing_stays_when_who_asked_is_killed(bench: Bench) -> None:
    """Broken once: without the cleaner the unit ran on for its whole deadline, and its file stayed."""
    unit = bench.unit("bosun", argv=("/bin/sh", "-c", "echo up; exec sleep 60"))

    def dies() -> None:
        if os.fork() == 0:
            with contextlib.suppress(BaseException):
                systemd.once(unit, 60)
            os._exit(0)
        while not os.path.exists(unit.log):
            time.sleep(0.02)
        children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)

    bench.ask(dies)
    _until(lambda: bench.left(unit) == [])
    assert "sleep 60" not in bench.it.run("ps", "ax").stdout


def test_where_there_is_no_systemd_the_loop_is_named(bench: Bench) -> None:
    assert bench.ask(systemd.unavailable) is None
    silent = bench.ask(systemd.unavailable, XDG_RUNTIME_DIR=str(bench.where))
    assert silent.id == "WB-SCHED-12"
    assert "enable-linger root" in silent.fix
    # cron and `su` set none; logind's own place is looked at
    assert bench.ask(systemd.unavailable, XDG_RUNTIME_DIR="") is None
    missing = bench.ask(systemd.unavailable, PATH=str(bench.where))
    assert missing.id == "WB-SCHED-10"
    for problem in (silent, missing):
        assert "watchbill loop" in problem.fix
    with pytest.raises(Fixable) as told:
        bench.ask(systemd.look, ["watchbill-bosun"], XDG_RUNTIME_DIR=str(bench.where))
    assert told.value.id == "WB-SCHED-13"
    if not os.path.isdir("/run/systemd/system"):
        unbooted = systemd.unavailable()
        assert unbooted is not None
        assert unbooted.id == "WB-SCHED-11"
        assert "watchbill loop" in unbooted.fix


def test_lingering_is_what_logind_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "_LINGER", str(tmp_path / "linger"))
    monkeypatch.setattr(systemd, "_LOGIND", str(tmp_path / "users"))
    assert systemd.lingering() is None
    (tmp_path / "users").mkdir()
    assert systemd.lingering() is False
    (tmp_path / "linger").mkdir()
    (tmp_path / "linger" / pwd.getpwuid(os.getuid()).pw_name).touch()
    assert systemd.lingering() is True


def test_found_is_whatever_is_named_so(bench: Bench) -> None:
    unit = bench.unit("bosun")
    assert bench.install(unit) == {"bosun": None}
    foreign = bench.it.units / "watchbill-foreign.timer"
    foreign.write_text("[Timer]\n")
    (bench.it.units / "watchbill-bosun.service.d").mkdir()
    found = systemd.found("watchbill-")
    assert [os.path.basename(file.path) for file in found] == [
        "watchbill-bosun.service",
        "watchbill-bosun.timer",
        "watchbill-foreign.timer",
    ]
    (bench.it.units / "watchbill-bosun.service.d").rmdir()
