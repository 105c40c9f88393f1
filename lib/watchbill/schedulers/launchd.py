"""launchd: macOS's scheduler. One property list an agent in ~/Library/LaunchAgents, named as its label.

Facts: launchd.plist(5), launchctl(1), and the code of launchd-842. What a person has to know of it is in
docs/schedules.md. Nothing here asks which system this is: whoever has a `launchctl` on PATH is served.

Unloading a unit ends what runs of it. So a unit whose firing is at work is left for later. A firing that begins in the
milliseconds between the question and the unloading gets a SIGTERM, as from `watchbill stop --now`: it keeps its work.
"""

from __future__ import annotations

import os
import plistlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from watchbill.compiled import Compiled
from watchbill.errors import Fixable
from watchbill.home import Home
from watchbill.schedulers import header, launchctl, launchd_plist, launchd_print, manifest, units, zone
from watchbill.schedulers.base import Change, Deferred, Failed, File, Loaded, Outcome, Say, Unit
from watchbill.schedulers.launchctl import Service
from watchbill.schedulers.launchd_once import once

__all__ = ["arm", "extras", "files", "found", "install", "look", "name", "once", "remove", "timezone",
           "unavailable"]  # fmt: skip

name = "launchd"

#: What stands for the agent in the unit that has none.
CATCH_UP = "catch.up"
_CATCH_UP_S = 300
#: `watchbill`, wherever this interpreter keeps it.
_COMMAND = "import sys; from watchbill.cli.main import run; sys.exit(run(sys.argv[1:]))"
_AT_WORK = "a firing of it is at work, and launchd would end it; the same again when it has ended"
_EX_CONFIG = 78  # launchd could not start it (sysexits.h); our own firings say it of a roster that is invalid


def unavailable() -> Fixable | None:
    """Why nothing can be scheduled with it here. Whether it answers, the first question shows."""
    return launchctl.missing()


def files(unit: Unit) -> tuple[File, ...]:
    """Its property list. Fixable: launchd cannot be told this schedule, or these words."""
    return (File(_path(unit.name), launchd_plist.content(unit, zone.local())),)


def timezone() -> str | None:
    """launchd knows the Mac's own only."""
    return None


def extras(home: Home, roster: Compiled) -> Mapping[str, Unit]:
    """Units of a home that are no agent's. At login it is made up for what passed while the Mac was off: launchd keeps
    count of what it slept through, and forgets the rest.

    No agent's name holds a dot, so that none is ever called as this.
    """
    unit = Unit(
        agent=CATCH_UP,
        name=units.unit_name(home, CATCH_UP),
        description="Watchbill: start what was missed while the Mac was off",
        home=home.root,
        argv=(units.interpreter(), "-I", "-c", _COMMAND, "loop", "--catch-up", "--home", home.root),
        directory=home.root,
        environment=units.environment(home, roster.fleet),
        log=os.path.join(home.logs, f"{CATCH_UP}.log"),
        deadline_s=_CATCH_UP_S,
        gates=(home.gate(),),
        schedule=launchd_plist.AT_LOGIN,
        delay_s=0,
    )
    return {CATCH_UP: unit}


def found(prefix: str) -> tuple[File, ...]:
    """Property lists whose names begin so, as they lie on disk."""
    try:
        names = sorted(os.listdir(_folder()))
    except (FileNotFoundError, NotADirectoryError):
        return ()
    ours = (one for one in names if one.startswith(prefix) and one.endswith(".plist"))
    return manifest.present([File(os.path.join(_folder(), one), b"") for one in ours])


def look(names: Sequence[str]) -> Mapping[str, Loaded]:
    """What launchd says of each. It tells neither when it fires next nor when it fired last."""
    if not names:
        return {}
    off, every = launchctl.disabled(), launchctl.everywhere(names)
    at_screen = all(every.values()) or launchctl.at_screen()
    return {one: _loaded(one, services, one in off, at_screen) for one, services in every.items()}


def install(changes: Sequence[Change], say: Say) -> Mapping[str, Outcome]:
    """One after the other: each is loaded and verified, or as it was before."""
    off = launchctl.disabled() if changes else frozenset()
    outcomes: dict[str, Outcome] = {}
    for change in changes:
        wish = _Wish(change.unit.agent, change.unit.name, change.before, change.after, change.unit.name in off)
        outcomes[wish.agent] = _brought(wish, say, respect=False) if change.arm else _kept(wish, say)
    return outcomes


def remove(names: Sequence[str], files: Sequence[File], say: Say) -> Mapping[str, Outcome]:
    """Forgotten by launchd first, then the file goes: one that is left would be loaded at the next login."""
    try:
        off = launchctl.disabled() if names else frozenset()
    except Fixable as silent:  # nothing was taken away, and each is as it was
        return {one: Failed(one, silent.what) for one in names}
    mine = {one: tuple(file for file in files if file.path == _path(one)) for one in names}
    return {one: _taken_away(_Wish(one, one, mine[one], (), one in off), say) for one in names}


def arm(name: str, files: Sequence[File]) -> Outcome:
    """Enabled, and loaded from its file again."""
    said = header.read(files[0].content)
    agent, off = said.agent if said else name, name in launchctl.disabled()
    return _brought(_Wish(agent, name, manifest.present(files), tuple(files), off), lambda _: None, respect=False)


class _Wish(NamedTuple):
    """What is to become of one unit."""

    agent: str
    name: str
    before: tuple[File, ...]  # on disk now
    after: tuple[File, ...]
    disabled: bool  # it is, now
    stays_off: bool = False  # and is to be, afterwards


def _brought(wish: _Wish, say: Say, *, respect: bool) -> Outcome:
    """Written, loaded and verified; or as it was before.

    `respect`: one that is loaded although somebody disabled it for the next login stays so.
    """
    (file,) = wish.after
    try:
        was = launchctl.services(wish.name)
    except Fixable as silent:  # the others have their own answer
        return Failed(wish.agent, silent.what)
    wish = wish._replace(stays_off=respect and wish.disabled and bool(was))
    fits = len(was) == 1 and _differs(file, was[0]) is None
    if not fits and _fires(wish, was):
        return Deferred(wish.agent, _AT_WORK)
    try:
        problem = _load(wish, file, () if fits else was, say, anew=not fits)
    except (OSError, Fixable) as error:
        problem = error.what if isinstance(error, Fixable) else str(error)
    except BaseException:
        _undone(wish, was, say)
        raise
    return Failed(wish.agent, f"{problem}; {_undone(wish, was, say)}") if problem else None


def _load(wish: _Wish, file: File, was: Sequence[Service], say: Say, *, anew: bool) -> str | None:
    """In the order that survives everything launchd answers: out, write, enable, in, look. What went wrong, else."""
    for old in was:
        if problem := launchctl.bootout(old, say):
            return problem
    manifest.put(file)  # also what has the right content: a link, or a file that others may write, is not loaded (122)
    if wish.disabled and (anew or not wish.stays_off):
        launchctl.enable(wish.name)  # what is disabled cannot be loaded (119)
    if anew and (problem := launchctl.bootstrap(wish.name, file.path)):
        return problem
    if (service := launchctl.settled(wish.name)) is None:
        return "launchctl bootstrap said that it is loaded, and it is not"
    if difference := _differs(file, service):
        return f"{service.target} is not what was to be loaded: {difference}"
    if wish.stays_off and anew:
        launchctl.disable(wish.name)
    if wish.disabled and (wish.name in launchctl.disabled()) != wish.stays_off:
        return "launchctl disable did not disable it again" if wish.stays_off else "launchctl enable did not enable it"
    return None


def _undone(wish: _Wish, was: Sequence[Service], say: Say) -> str:
    """Take a change back; what came of that, in words."""
    try:
        now = launchctl.services(wish.name)
        if _fires(wish, now):
            return "and it cannot be taken back while a firing is at work"
        for service in now:
            launchctl.bootout(service, say)
        for file in wish.before:
            manifest.put(file)
        for path in dict(wish.after).keys() - dict(wish.before).keys():
            _unlink(path)
        problem = launchctl.bootstrap(wish.name, _path(wish.name)) if was and wish.before else None
        if was and wish.before and problem is None and launchctl.settled(wish.name) is None:
            problem = "launchd does not have it loaded"
        if wish.disabled:
            launchctl.disable(wish.name)
    except (OSError, Fixable) as error:
        problem = error.what if isinstance(error, Fixable) else str(error)
    return f"and it could not be brought back: {problem}" if problem else "it is as it was before"


def _kept(wish: _Wish, say: Say) -> Outcome:
    """Somebody paused it behind our back, and it stays so: only its file is written. One that was disabled fires until
    the next logout, and by then it is to fire as its file says."""
    try:
        if wish.disabled and launchctl.services(wish.name):
            return _brought(wish, say, respect=True)
    except Fixable as silent:
        return Failed(wish.agent, silent.what)
    try:
        for file in wish.after:
            manifest.put(file)
    except OSError as error:
        return Failed(wish.agent, str(error))
    return None


def _fires(wish: _Wish, was: Sequence[Service]) -> bool:
    """Whether a firing would be killed; what is no agent's may be."""
    return "." not in wish.agent and any(one.printed.running for one in was)


def _taken_away(wish: _Wish, say: Say) -> Outcome:
    try:
        was = launchctl.services(wish.name)
    except Fixable as silent:
        return Failed(wish.agent, silent.what)
    if _fires(wish, was):
        return Deferred(wish.agent, _AT_WORK)
    try:
        for service in was:
            if problem := launchctl.bootout(service, say):
                return Failed(wish.agent, problem)
        for file in wish.before:
            _unlink(file.path)
        if wish.disabled:  # there is no way to have an override forgotten, but this one would surprise whoever returns
            launchctl.enable(wish.name)
    except (OSError, Fixable) as error:
        what = error.what if isinstance(error, Fixable) else str(error)
        return Failed(wish.agent, f"{what}; {_undone(wish, was, say)}")
    return None


def _loaded(label: str, services: Sequence[Service], disabled: bool, at_screen: bool) -> Loaded:
    """`label` as a person has to know it."""
    path = _path(label)
    content = manifest.on_disk(path)
    if not services:
        if label.endswith(CATCH_UP) and not disabled:
            return Loaded()  # no agent's: nobody can resume it, and `apply` loads it again
        if disabled:
            return Loaded(paused="disabled, by `launchctl disable` or in Login Items")
        if content is None:
            return Loaded(paused="booted out, and its plist deleted")
        return Loaded(paused="booted out" if at_screen else "not loaded: nobody is logged in at the screen")
    differs = content is None or any(_differs(File(path, content), one) for one in services)
    linked = os.path.islink(path)  # it is not loaded at the next login (122); `apply` puts a file in its place
    return Loaded(
        known=True,
        armed=True,
        running=any(one.printed.running for one in services),
        stale=differs or linked or len(services) > 1,  # in both sessions it would be started twice
        paused="disabled: it fires as before until the next logout" if disabled else None,
        why=next((why for one in services if (why := _fault(one))), None),
    )


def _differs(file: File, service: Service) -> str | None:
    """What is loaded otherwise than the file says."""
    plist = _parsed(file.content)
    if plist is None:
        return "the file is no plist"
    printed = service.printed
    if printed.path and os.path.realpath(printed.path) == os.path.realpath(file.path):  # its home lies behind a link
        printed = printed._replace(path=file.path)
    return launchd_print.differs(plist, file.path, printed)


def _parsed(content: bytes) -> dict[str, Any] | None:
    try:
        plist = plistlib.loads(content)
    except Exception:  # whatever a damaged file makes expat and plistlib raise
        return None
    return plist if isinstance(plist, dict) else None


def _fault(service: Service) -> str | None:
    """Why launchd could not start it last time, as far as the disk shows it."""
    printed = service.printed
    program = printed.program or (printed.arguments or ("",))[0]
    if printed.exit != _EX_CONFIG:
        return None
    if program and not os.access(program, os.X_OK):
        return f"launchd could not start it: {program} is not there, or no program"
    if printed.directory and not os.path.isdir(printed.directory):
        return f"launchd could not start it: {printed.directory} is not there"
    if printed.stdout and not os.access(os.path.dirname(printed.stdout), os.W_OK):
        return f"launchd could not start it: {printed.stdout} cannot be written"
    return None


def _folder() -> str:
    return os.path.join(units.person(), "Library", "LaunchAgents")


def _path(label: str) -> str:
    return os.path.join(_folder(), f"{label}.plist")


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
