"""systemd's user manager as a scheduler: one service and one timer for each agent, in the user's own folder.

Facts, by systemd.timer(5), systemctl(1) and systemd 252 itself:

- A reload leaves firings and timers alone: a timer whose file changed arms itself anew, a firing goes on as it began.
- `enable` reloads by itself, unless told not to: here one reload brings all changes, however many.
- A timer with one line that it cannot read counts by its others and says nothing: it is asked how many it has.
- A timer that has no next time stays so when its file is mended and read again: it is to be restarted.
- A timer that is stopped when its file goes leaves no link; one that is not leaves a link that nothing removes.
- A persistent timer that is started fires at once when it missed a slot since its stamp. The manager does so at every
  start of its own, which is the catch-up that is wanted; who is armed here begins with the next slot, without a stamp.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
from collections.abc import Mapping, Sequence

from watchbill.compiled import Compiled
from watchbill.errors import Fixable
from watchbill.home import Home
from watchbill.schedulers import manifest, systemd_text
from watchbill.schedulers import systemd_ask as ask
from watchbill.schedulers import systemd_state as state
from watchbill.schedulers import systemd_traces as traces
from watchbill.schedulers.base import Change, Failed, File, Loaded, Outcome, Say, Unit
from watchbill.schedulers.systemd_once import once
from watchbill.schedulers.systemd_state import drop_ins

__all__ = ["arm", "drop_ins", "extras", "files", "found", "install", "lingering", "look", "name", "once", "remove",
           "timezone", "unavailable"]  # fmt: skip

name = "systemd"

_LOOP = '`watchbill loop` fires without it ([schedule] use = "loop" in fleet.toml)'
_LINGER = "/var/lib/systemd/linger"  # a file for each user who does
_LOGIND = "/run/systemd/users"  # logind's own notes, where there is one


def unavailable() -> Fixable | None:
    """No systemctl, no systemd, or no user manager of this user."""
    if shutil.which("systemctl") is None:
        return _without("WB-SCHED-10", "this host has no systemctl", "PATH names no folder that holds it")
    if not os.path.isdir("/run/systemd/system"):  # sd_booted(3)
        why = "a container, or a system that something else started; in WSL: [boot] systemd=true in /etc/wsl.conf"
        return _without("WB-SCHED-11", "systemd does not run here", why)
    if not ask.answers():
        where = ask.runtime_directory()
        why = f"nothing listens in {where}/systemd: nobody logged in as this user, and it does not linger"
        fix = f"`loginctl enable-linger {_user()}`, then the same again; or without systemd: {_LOOP}"
        return Fixable("WB-SCHED-12", "systemd runs no user manager for you", why=why, fix=fix, outcome="unavailable")
    return None


def _without(id: str, what: str, why: str) -> Fixable:
    return Fixable(id, what, why=why, fix=_LOOP, outcome="unavailable")


def lingering() -> bool | None:
    """Whether this user's manager, and its timers, stay when nobody is logged in (loginctl(1), enable-linger).

    None: there is no logind here to say so.
    """
    if os.path.exists(os.path.join(_LINGER, _user())):
        return True
    return False if os.path.isdir(_LOGIND) else None


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def files(unit: Unit) -> tuple[File, ...]:
    return systemd_text.files(unit, traces.folder())


def timezone() -> str | None:
    """The manager's environment may hold one (systemctl(1), set-environment)."""
    if unavailable() is not None:
        return None
    try:
        lines = ask.must("show-environment").splitlines()
    except Fixable:
        return None
    return next((line.removeprefix("TZ=") for line in lines if line.startswith("TZ=")), None)


def extras(home: Home, roster: Compiled) -> Mapping[str, Unit]:  # noqa: ARG001 - the port's signature
    """None: systemd itself catches up what was missed."""
    return {}


def found(prefix: str) -> tuple[File, ...]:
    try:
        names = sorted(os.listdir(traces.folder()))
    except FileNotFoundError:
        return ()
    ours = [one for one in names if one.startswith(prefix) and one.endswith((".service", ".timer"))]
    return manifest.present(File(os.path.join(traces.folder(), one), b"") for one in ours)


def look(names: Sequence[str]) -> Mapping[str, Loaded]:
    return {name: state.loaded_of(asked) for name, asked in state.asked_of(names).items()}


def install(changes: Sequence[Change], say: Say) -> Mapping[str, Outcome]:
    before = state.timers_of([change.unit.name for change in changes])
    outcomes: dict[str, Outcome] = {change.unit.agent: None for change in changes}
    written: list[Change] = []
    try:
        for change in changes:
            if not change.arm and not _differing(change):
                continue
            if failed := _write(change):
                outcomes[change.unit.agent] = failed
            else:
                written.append(change)
        refused = _bring(written, before)
    except BaseException:
        for change in written:
            _put_back(change)
        raise
    asked = state.after_reload([change.unit.name for change in written])
    wrong = {}
    for change in written:
        name = change.unit.name
        if what := _wrong(change, asked[name]):
            wrong[name] = change
            outcomes[change.unit.agent] = Failed(change.unit.agent, refused.get(f"{name}.timer") or what)
    if wrong:
        say(f"{len(wrong)} of {len(changes)} cannot be used by systemd: taken back")
        _take_back(list(wrong.values()), before)
    return outcomes


def _write(change: Change) -> Failed | None:
    """Its files, each whole, or as it was before."""
    try:
        for file in _differing(change):
            manifest.put(file)
    except OSError as error:
        _put_back(change)
        where = error.filename2 or error.filename or os.path.dirname(change.after[0].path)
        return Failed(change.unit.agent, f"its files could not be written: {error.strerror} ({where})")
    return None


def _differing(change: Change) -> list[File]:
    """What is to be written. What somebody masked stays masked until it is to be armed."""
    return [file for file in change.after if _differs(file) and (change.arm or not _masks(file.path))]


def _differs(file: File) -> bool:
    """What is as it should be keeps its time of change, by which systemd knows that it need not be read again."""
    return os.path.islink(file.path) or manifest.on_disk(file.path) != file.content


def _masks(path: str) -> bool:
    return os.path.islink(path) and os.path.realpath(path) == os.devnull


def _put_back(change: Change) -> None:
    """As it lay there before, as far as the disk lets us."""
    with contextlib.suppress(OSError):
        for file in change.before:
            if _differs(file) and not _masks(file.path):
                manifest.put(file)
        for path in {file.path for file in change.after} - {file.path for file in change.before}:
            with contextlib.suppress(OSError):
                os.unlink(path)


def _bring(written: Sequence[Change], before: Mapping[str, Loaded]) -> dict[str, str]:
    """Link, reload once, start: who could not be linked, with systemd's words."""
    if not written:
        return {}
    arming = [change.unit.name for change in written if change.arm]
    moved = [change.unit.name for change in written if change.arm and before[change.unit.name].armed and _moves(change)]
    # What could not be started again is left as it is: a reload arms it with its new times, or it is taken back.
    moved = [name for name, asked in state.asked_of(moved).items() if state.broken(asked) is None]
    anew = [one for one in arming if not before[one].armed or one in moved]
    # A reload would have it count from when it fired last, by times that were not its own then.
    ask.tell("stop", [f"{one}.timer" for one in moved])
    for one in anew:
        traces.forget_stamp(one)
    refused = ask.tell_each("enable", [f"{one}.timer" for one in arming], "--no-reload")
    ask.must("daemon-reload", timeout_s=ask.RELOAD_S)
    ask.tell("restart", [f"{one}.timer" for one in anew])
    return refused


def _moves(change: Change) -> bool:
    """Whether it gets other times."""
    before, after = ({file.path: file.content for file in files} for files in (change.before, change.after))
    return any(path.endswith(".timer") and before.get(path) != content for path, content in after.items())


def _wrong(change: Change, asked: state.Asked) -> str | None:
    """What is not as it should be of a unit that was brought."""
    loaded, paths = state.loaded_of(asked), [os.path.realpath(file.path) for file in change.after]
    if loaded.paused == "masked" and not change.arm:
        return None
    if broken := state.broken(asked):
        return broken
    for values in asked:
        where = ask.one(values, "FragmentPath")
        if values and os.path.realpath(where) not in paths:
            return f"systemd does not take it from {traces.folder()}, but from {where or 'nowhere'}"
    lines = len(change.unit.schedule.entries)
    if len(asked.timer.get("TimersCalendar", ())) != lines and not state.paths_beside(asked.timer):
        return f"systemd understands {len(asked.timer.get('TimersCalendar', ()))} of its {lines} calendar times"
    if loaded.stale:
        return "systemd still has the old one after a reload"
    if change.arm and (loaded.paused or not loaded.armed):
        return f"it is not armed: {loaded.paused or ask.one(asked.timer, 'SubState')}"
    return None


def _take_back(changes: Sequence[Change], before: Mapping[str, Loaded]) -> None:
    """As they were: files, links, and whether they were armed."""
    idle = [change.unit.name for change in changes if change.arm and not before[change.unit.name].armed]
    armed = [change.unit.name for change in changes if before[change.unit.name].armed]
    ask.tell("stop", [f"{one}.timer" for one in idle])
    for change in changes:
        _put_back(change)
    traces.unlink([one for one in idle if not before[one].known])
    ask.must("daemon-reload", timeout_s=ask.RELOAD_S)
    ask.tell("reset-failed", [f"{change.unit.name}.timer" for change in changes])
    now = state.timers_of(armed)
    ask.tell("restart", [f"{one}.timer" for one in armed if not now[one].armed])


def remove(names: Sequence[str], files: Sequence[File], say: Say) -> Mapping[str, Outcome]:
    """A firing that runs goes on and ends by itself; if it fails, systemd lists it until it is told `reset-failed`.

    Files first: what cannot be deleted is not stopped either, or it would seem to be paused.
    """
    kept = traces.delete(files)
    theirs = _elsewhere(names, files)
    going = [one for one in names if one not in kept and one not in theirs]
    ask.tell("stop", [f"{one}.timer" for one in going])
    kept |= traces.unlink(going, {os.path.dirname(file.path) for file in files})
    for one in going:
        traces.forget_stamp(one)
        for path in (os.path.join(traces.folder(), f"{one}.{kind}.d") for kind in ("timer", "service")):
            if os.path.isdir(path):
                say(f"{path} is not ours, and stays")
    ask.must("daemon-reload", timeout_s=ask.RELOAD_S)
    ask.tell("reset-failed", [f"{one}.{kind}" for one in going for kind in ("timer", "service")])
    now = state.timers_of(going)
    return {one: _left(one, now.get(one, Loaded()), kept.get(one)) for one in names}


def _elsewhere(names: Sequence[str], files: Sequence[File]) -> set[str]:
    """Units of these names that systemd has from somewhere else: not ours to stop."""
    ours = {os.path.realpath(file.path) for file in files}
    here = os.path.realpath(traces.folder())
    return {
        name
        for name, loaded in state.timers_of(names).items()
        if loaded.known and loaded.path
        if (path := os.path.realpath(loaded.path)) not in ours and os.path.dirname(path) != here
    }


def _left(name: str, loaded: Loaded, kept: str | None) -> Outcome:
    if kept or loaded.known or loaded.armed:
        return Failed(name, kept or "systemd still has it")
    return None


def arm(name: str, files: Sequence[File]) -> Outcome:
    """Its files as they were applied, unmasked, enabled, started. It begins with its next slot."""
    for file in files:
        if _differs(file):
            manifest.put(file)
    for kind in ("timer", "service"):
        override = os.path.join(ask.runtime_directory(), "systemd", "user", f"{name}.{kind}")
        if _masks(override):
            os.unlink(override)
    armed = state.timers_of([name])[name].armed
    if not armed:
        traces.forget_stamp(name)
    refused = ask.tell_each("enable", [f"{name}.timer"], "--no-reload")
    ask.must("daemon-reload", timeout_s=ask.RELOAD_S)
    ask.tell("reset-failed", [f"{name}.timer", f"{name}.service"])
    said = "" if armed else ask.tell("restart", [f"{name}.timer"])
    now = look([name])[name]
    if now.armed and not now.paused:
        return None
    words = [now.why, now.paused, *refused.values(), " ".join(said.split())]
    return Failed(name, next((one for one in words if one), "systemd did not arm it"))
