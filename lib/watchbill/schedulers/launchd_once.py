"""Start something once, as launchd starts firings: what `doctor` asks, to see what an agent will see."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from watchbill.errors import Fixable
from watchbill.schedulers import launchctl, launchd_plist, manifest, zone
from watchbill.schedulers.base import File, Unit

#: Takes away what `once` began when whoever began it is gone: it waits for its own input, and for what that says.
_CLEANER = """\
import sys
if not sys.stdin.read():
    from watchbill.schedulers import launchd_once
    launchd_once.forget(*sys.argv[1:])
"""


def once(unit: Unit, timeout_s: float) -> int | None:
    """Started by `kickstart`, from a file outside of LaunchAgents: whatever becomes of us, it is gone after a reboot.

    A signal that ended it is 128 and its number, as a shell says it.
    """
    with _room(unit.name) as room:
        path = os.path.join(room, f"{unit.name}.plist")
        manifest.put(File(path, launchd_plist.content(unit, zone.local())))
        if problem := launchctl.bootstrap(unit.name, path):
            raise _not_started(unit, problem)
        service = launchctl.settled(unit.name)
        said = launchctl.ask("kickstart", service.target) if service else None
        if said is None or said.code != 0:
            raise _not_started(unit, said.words if said else "it was not loaded")
        return _ended(unit.name, timeout_s)


@contextlib.contextmanager
def _room(label: str) -> Iterator[str]:
    """A folder that goes away again with the unit, also when we are killed: a closed terminal is enough for that."""
    room = tempfile.mkdtemp(prefix="watchbill-once-")
    cleaner = subprocess.Popen(
        [sys.executable, "-I", "-c", _CLEANER, label, room], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
        start_new_session=True)  # fmt: skip
    done = b""
    try:
        yield room
    finally:
        try:
            done = b"done" if forget(label, room) else b""
        finally:
            cleaner.communicate(done)  # without a word it tries, too


def forget(label: str, room: str) -> bool:
    """Nothing of it stays; False: as far as launchd answers."""
    shutil.rmtree(room, ignore_errors=True)
    with contextlib.suppress(Fixable):
        problems = [launchctl.bootout(service, lambda _: None) for service in launchctl.services(label)]
        return not any(problems)
    return False


def _ended(label: str, timeout_s: float) -> int | None:
    """Wait for the one run of it; None: it did not end."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        for one in launchctl.services(label):
            if one.printed.runs and not one.printed.running:
                number = one.printed.signal.rpartition(" ")[2] if one.printed.signal else ""
                return 128 + int(number) if number.isdigit() else one.printed.exit
        time.sleep(0.1)
    return None


def _not_started(unit: Unit, why: str) -> Fixable:
    return Fixable(
        "WB-SCHED-24",
        f"launchd does not start {unit.name}",
        why=why,
        fix="log in at the Mac's screen and try again; `launchctl error N` explains a number",
        outcome="unavailable",
    )
