"""Whether the scheduler starts what the roster wants, and what keeps it from that."""

from __future__ import annotations

import contextlib
import os
import plistlib
import re
import shutil
import subprocess
import time
from collections.abc import Iterator

from watchbill import gatefiles, overdue
from watchbill.clock import moment
from watchbill.doctor.finding import Finding, Look, of_problem
from watchbill.errors import Fixable
from watchbill.host import host_id
from watchbill.ledger import db, holds
from watchbill.ledger.db import Ledger
from watchbill.schedulers import manifest, registry, systemd, units
from watchbill.schedulers import survey as surveying
from watchbill.schedulers.base import File
from watchbill.schedulers.survey import Seen, Survey

TIMEOUT_S = 10.0
#: A state of survey.STATES -> what mends it.
_FIXES = {
    "paused outside": "`watchbill resume {agent}`, or `watchbill pause {agent}` so that it is on record",
    "drifted": "`watchbill plan` shows the edit, `watchbill apply` takes it back",
    "stale": "`watchbill apply`",
    "failed": "`watchbill apply`; see {log}",
    "orphan": "`watchbill apply --prune`",
    "foreign": "move that file away; then `watchbill apply`",
}
#: The first word of what a service starts, as we write it (systemd.syntax(7), QUOTING).
_PROGRAM = re.compile(r'^ExecStart=[:@+!-]*"((?:[^"\\]|\\.)*)"', re.MULTILINE)


def look(it: Look) -> Iterator[Finding]:
    """Nothing of it is so in a shell."""
    if it.roster is None:
        return
    for check_of in (_system, _session, _units, _launchers, _gates, _silent, _odd):
        yield from (found._replace(where="scheduler") for found in check_of(it))


def _system(it: Look) -> Iterator[Finding]:
    """Is there one?"""
    assert it.roster is not None
    use = it.roster.fleet.timers.use
    scheduler = registry.chosen(use)
    problem = scheduler.unavailable()
    if problem is None:
        yield Finding("timers", scheduler.name, "ok", "it is there")
    else:
        needed = use != "auto" or bool(manifest.read(it.home).agents)
        yield of_problem("timers", scheduler.name, "wrong" if needed else "note", problem)


def _session(it: Look) -> Iterator[Finding]:
    """Linger on Linux; on macOS which session this is."""
    assert it.roster is not None
    scheduler = registry.chosen(it.roster.fleet.timers.use)
    if scheduler.unavailable() is not None:
        return
    if scheduler.name == "systemd" and systemd.lingering() is False:
        what = "timers stop when you log out, and none starts before you log in (linger is off)"
        yield Finding("timers", "linger", "wrong", what, "WB-DOCTOR-15", "loginctl enable-linger")
    if scheduler.name == "launchd" and (kind := _session_kind()) not in ("Aqua", None):
        what = f"this session is {kind}: the login keychain, and timers of a login at the screen, are out of its reach"
        yield Finding("timers", "session", "note", what, "WB-DOCTOR-15", "log in at the screen, and run it there")


def _session_kind() -> str | None:
    """Aqua: a login at the screen; Background: ssh, or none (launchctl(1), managername)."""
    program = shutil.which("launchctl")
    if program is None:
        return None
    try:
        done = subprocess.run([program, "managername"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=TIMEOUT_S, check=False)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _units(it: Look) -> Iterator[Finding]:
    """Every agent's, compared: wanted, applied, on disk, loaded."""
    try:
        survey = surveying.take(it.home, it.roster)
    except Fixable as problem:
        yield of_problem("timers", "units", "wrong", problem)
        return
    if survey.problem is not None:
        if survey.scheduler.unavailable() is None:  # else that is said
            yield of_problem("timers", "units", "wrong", survey.problem)
        return
    if survey.scheduler.name == "loop":
        yield from _loop(survey)
        return
    for one in survey.agents.values():
        yield from _unit(it, survey, one)
        yield from _interpreter(one)


def _loop(survey: Survey) -> Iterator[Finding]:
    """It says the same of everybody. An outer clock may start it from time to time."""
    for what in {one.loaded.why for one in survey.agents.values() if one.loaded.why}:
        fix = "`watchbill loop`, by whatever supervises services here; or `watchbill loop --once`, by an outer clock"
        yield Finding("timers", "loop", "note", what, "WB-DOCTOR-16", fix)


def _unit(it: Look, survey: Survey, one: Seen) -> Iterator[Finding]:
    if one.state == "failed" and one.unit and any(one.what.startswith(f"{word},") for word in one.unit.argv):
        return  # its launcher: that is told once, for all who are started by it
    if one.state in _FIXES:
        fix = _FIXES[one.state].format(agent=one.agent, log=os.path.join(it.home.logs, f"{one.agent}.log"))
        if "." in one.agent and one.state == "paused outside":  # no agent's, so that it cannot be resumed
            fix = f"`launchctl enable gui/{os.getuid()}/{one.name}`, then `watchbill apply`"
        what = f"{one.state}: {one.what}" if one.what else one.state
        yield Finding("timers", one.agent, "wrong", what, "WB-DOCTOR-16", fix)
    elif one.state == "not applied":
        # Of a fleet that nobody has applied yet nothing is wrong.
        state = "wrong" if survey.manifest.agents else "note"
        what = "it has a schedule, and no timer: not applied"
        yield Finding("timers", one.agent, state, what, "WB-DOCTOR-16", "`watchbill apply`")
    elif one.state == "armed" and one.change != "none":
        what = "its timer is not what the roster wants now"
        yield Finding("timers", one.agent, "wrong", what, "WB-DOCTOR-16", "`watchbill plan`, then `watchbill apply`")
    elif one.state == "armed":
        yield Finding("timers", one.agent, "ok", "armed")


def _interpreter(one: Seen) -> Iterator[Finding]:
    """An upgrade of Python, or a virtual environment that was moved, takes it away from under the timer."""
    for path in sorted({path for file in one.disk if (path := _started_by(file))}):
        if not os.access(path, os.X_OK):
            what = f"its timer starts {path}, and that is no program"
            fix = f"`watchbill apply`, with the Watchbill that you use now ({units.interpreter()})"
            yield Finding("timers", one.agent, "wrong", what, "WB-DOCTOR-21", fix)


def _started_by(file: File) -> str | None:
    """The program that a unit's file starts."""
    if file.path.endswith(".plist"):
        try:
            return str(plistlib.loads(file.content)["ProgramArguments"][0])
        except Exception:  # whatever a damaged file makes expat and plistlib raise; the survey says that it is one
            return None
    match = _PROGRAM.search(file.content.decode(errors="replace"))
    return re.sub(r"\\(.)", r"\1", match[1]).replace("%%", "%") if match else None


def _launchers(it: Look) -> Iterator[Finding]:
    """What applied units start."""
    assert it.roster is not None
    if not manifest.read(it.home).agents:
        return
    for file in units.launchers(it.home, it.roster):
        lies = manifest.on_disk(file.path)
        if lies != file.content:
            what = "timers start it, and it is gone" if lies is None else "it was edited, and timers start it"
            yield Finding("timers", file.path, "wrong", what, "WB-DOCTOR-21", "`watchbill apply`")


def _gates(it: Look) -> Iterator[Finding]:
    """Files that hold without a hold: nobody said who and why."""
    assert it.roster is not None
    with _ledger(it) as ledger:
        standing = holds.standing(ledger, int(time.time())) if ledger else []
    kept = gatefiles.wanted(it.home, standing, host_id(it.home.host)) if standing else set()
    for path in (it.home.gate(), *map(it.home.gate, it.roster.agents)):
        if os.path.exists(path) and path not in kept:
            what = "it keeps timers from starting a firing, and no pause or stop stands for it"
            yield Finding("timers", path, "wrong", what, "WB-DOCTOR-17", f"`{gatefiles.lifting(path)}`")


def _silent(it: Look) -> Iterator[Finding]:
    """Agents whose time came and went."""
    assert it.roster is not None
    with _ledger(it) as ledger:
        late = overdue.look(it.home, ledger, it.roster, host_id(it.home.host), int(time.time())) if ledger else []
    for one in late:
        what = f"it should have fired at {moment(one.slot)}, and has not since"
        fix = f"`watchbill why {one.agent}`, `watchbill logs {one.agent}`"
        yield Finding("timers", one.agent, "wrong", what, "WB-DOCTOR-18", fix)


@contextlib.contextmanager
def _ledger(it: Look) -> Iterator[Ledger | None]:
    """None where there is none yet, and for one that cannot be read, which is said already."""
    ledger = None
    with contextlib.suppress(Fixable):
        ledger = db.open_ledger(it.home.ledger) if os.path.exists(it.home.ledger) else None
    try:
        yield ledger
    finally:
        if ledger is not None:
            ledger.close()


def _odd(it: Look) -> Iterator[Finding]:
    """Schedules that will surprise somebody."""
    assert it.roster is not None
    for name, said in units.surprises(it.roster):
        fix = f"agents/{name}.md: another time, or leave it when that is what you want"
        fix = fix if name else "`every` or `hourly` shares them out"
        yield Finding("timers", name or "schedules", "note", said, "WB-DOCTOR-19", fix)
