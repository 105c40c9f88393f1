"""An agent's unit in systemd's words: a service, and a timer where it fires by itself. Pure but for the templates.

What a value may hold, and how it is written, differs from key to key (systemd.syntax(7), systemd.exec(5), and tried
with systemd 252): words of ExecStart= and Environment= are quoted; the others are taken as they stand, blanks and
quotes included. In all of them `%` begins a specifier.
"""

from __future__ import annotations

import os

from watchbill import render
from watchbill.errors import Fixable
from watchbill.schedulers import header
from watchbill.schedulers.base import File, Unit
from watchbill.schedulers.schedule import Entry, Schedule

_DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")


def files(unit: Unit, folder: str) -> tuple[File, ...]:
    """Its files in `folder`: the service and, unless it is started by hand only, the timer. Fixable WB-SCHED-14."""
    found = [File(os.path.join(folder, f"{unit.name}.service"), service(unit))]
    if unit.schedule.entries or unit.schedule.interval_s:
        found.append(File(os.path.join(folder, f"{unit.name}.timer"), _timer(unit)))
    return tuple(found)


def service(unit: Unit) -> bytes:
    """What is started."""
    return _rendered(
        unit,
        "agent.service.j2",
        service=f"{unit.name}.service",
        description=_plain(unit, unit.description),
        gates=[_plain(unit, gate) for gate in unit.gates],
        argv=" ".join(_quoted(unit, word) for word in unit.argv),
        directory=_plain(unit, unit.directory),
        environment=[_quoted(unit, f"{name}={value}") for name, value in unit.environment],
        log=_plain(unit, unit.log),
        deadline_s=unit.deadline_s,
    )


def _timer(unit: Unit) -> bytes:
    return _rendered(
        unit,
        "agent.timer.j2",
        description=_plain(unit, unit.description),
        calendars=calendars(unit.schedule),
        interval_s=unit.schedule.interval_s,
        delay_s=unit.delay_s,
    )


def _rendered(unit: Unit, template: str, **values: object) -> bytes:
    """The header is a line of its own, over everything else."""
    first, rest = render.unit("systemd", template, header="", **values).split("\n", 1)
    return f"{first}{header.text(unit, rest)}\n{rest}".encode()


def calendars(schedule: Schedule) -> list[str]:
    """systemd.time(7), CALENDAR EVENTS: one line an entry, any of which may come."""
    return [_calendar(entry) + (" UTC" if schedule.utc else "") for entry in schedule.entries]


def _calendar(entry: Entry) -> str:
    days = ",".join(_DAYS[day] for day in sorted(entry.weekday, key=lambda day: day or 7)) if entry.weekday else ""
    date = f"*-{_numbers(entry.month)}-{_numbers(entry.day)}"
    return f"{days} {date} {_numbers(entry.hour)}:{_numbers(entry.minute)}:00".strip()


def _numbers(values: frozenset[int] | None) -> str:
    return "*" if values is None or len(values) == 60 else ",".join(f"{value:02}" for value in sorted(values))


def _plain(unit: Unit, value: str) -> str:
    """A value that is taken to the end of its line. A blank or backslash there would not be: a path may end in `/`."""
    _printable(unit, value)
    return value.replace("%", "%%") + ("/" if value.endswith((" ", "\\")) else "")


def _quoted(unit: Unit, word: str) -> str:
    """One word of several."""
    _printable(unit, word)
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'


def _printable(unit: Unit, value: str) -> None:
    """A line ends at its newline, and what is no UTF-8 is dropped with the whole line. Fixable."""
    shown = value.encode(errors="replace").decode()
    if shown != value or any(ord(char) < 32 or ord(char) == 127 for char in value):
        why = "a line of a unit holds neither control characters nor what is not UTF-8"
        what = f"{unit.agent}: systemd cannot be told {shown!r}"
        raise Fixable("WB-SCHED-14", what, why=why, fix="take it out of the path or of [schedule] env in fleet.toml")
