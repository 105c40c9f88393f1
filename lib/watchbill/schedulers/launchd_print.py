"""What `launchctl print` and `print-disabled` say, read with care: Apple calls neither an interface. Pure.

A unit's own fields stand behind one tab, those of what it holds behind two and more (the same names occur there), so
only what stands where we expect it is read; what is missing is unknown, and never a difference. Formats as macOS 10.15
to 26 print them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

_FIELD = re.compile(r"\t([a-z][a-z /()]*?) = (.*)")
_PAIR = re.compile(r"\t\t(\S.*?) =>(?: (.*))?")
_TIME = re.compile(r'\s*"(Minute|Hour|Day|Weekday|Month)" => (-?[0-9]+)')
_NUMBER = re.compile(r"(-?[0-9]+)(?:: .*)?")
_DISABLED = re.compile(r'\s*"(.*)" => (disabled|enabled|true|false)')
_CALENDAR = "com.apple.launchd.calendarinterval"

Times = frozenset[tuple[str, int]]


class Printed(NamedTuple):
    """A unit as launchd has it loaded. None: it does not say."""

    state: str | None  # running, not running, waiting, spawn scheduled, ...
    pid: int | None
    runs: int | None  # since it was loaded
    exit: int | None  # of its last run
    signal: str | None  # what ended its last run: "Killed: 9"
    path: str | None  # the file that it was loaded from
    program: str | None
    arguments: tuple[str, ...] | None
    directory: str | None
    stdout: str | None
    environment: Mapping[str, str] | None
    interval_s: int | None
    calendar: frozenset[Times] | None  # each dictionary of StartCalendarInterval

    @property
    def running(self) -> bool:
        """Something of it is at work, or is about to be; while launchd ends it, too."""
        return self.pid is not None or self.state in ("running", "spawn scheduled", "spawning", "teardown", "exiting")


def unit(text: str) -> Printed:
    """The answer to `launchctl print DOMAIN/LABEL`."""
    fields: dict[str, str] = {}
    blocks: dict[str, list[str]] = {}
    for name, value, lines in _fields(text):
        fields.setdefault(name, value)
        if value == "{":
            blocks.setdefault(name, lines)
    arguments = blocks.get("arguments")
    environment = blocks.get("environment")
    return Printed(
        state=fields.get("state"),
        pid=_number(fields.get("pid")),
        runs=_number(fields.get("runs")),
        exit=_number(fields.get("last exit code")),
        signal=fields.get("last terminating signal"),
        path=fields.get("path"),
        program=fields.get("program"),
        arguments=None if arguments is None else tuple(line.removeprefix("\t\t") for line in arguments),
        directory=fields.get("working directory"),
        stdout=fields.get("stdout path"),
        environment=None if environment is None else dict(_pairs(environment)),
        interval_s=_number((fields.get("run interval") or "").removesuffix(" seconds")),
        calendar=_calendar(blocks.get("event triggers")),
    )


def disabled(text: str) -> dict[str, bool]:
    """The answer to `launchctl print-disabled DOMAIN`: label -> whether it is disabled; old and new words."""
    found = (_DISABLED.fullmatch(line.rstrip()) for line in text.splitlines())
    return {match[1]: match[2] in ("disabled", "true") for match in found if match}


def differs(plist: Mapping[str, Any], path: str, printed: Printed) -> str | None:
    """What launchd has loaded otherwise than this file says, in words; None: nothing, as far as it tells.

    `plist`: the parsed property list.
    """
    wanted: dict[str, tuple[object, object]] = {
        "path": (path, printed.path),
        "arguments": (plist.get("ProgramArguments"), None if printed.arguments is None else list(printed.arguments)),
        "working directory": (plist.get("WorkingDirectory"), printed.directory),
        "stdout path": (plist.get("StandardOutPath"), printed.stdout),
        "calendar": (_wanted_times(plist), printed.calendar),
    }
    if printed.environment is not None:
        ours = plist.get("EnvironmentVariables", {})
        there = {name: value for name, value in printed.environment.items() if isinstance(ours, dict) and name in ours}
        wanted["environment"] = (ours, there)  # launchd adds its own
    for what, (file, loaded) in wanted.items():
        if loaded is not None and file != loaded:
            return f"{what} is {_shown(loaded)} there, and {_shown(file)} in the file"
    if plist.get("StartInterval") != printed.interval_s:
        return f"run interval is {printed.interval_s} there, and {plist.get('StartInterval')} in the file"
    if _wanted_times(plist) and printed.calendar is None:
        return "it has no calendar there"
    return None


def _fields(text: str) -> Iterator[tuple[str, str, list[str]]]:
    """Fields behind one tab: name, value, and for a block the lines in it."""
    lines = iter(text.splitlines())
    for line in lines:
        if not (match := _FIELD.fullmatch(line)):
            continue
        inside: list[str] = []
        if match[2] == "{":
            for line in lines:
                if line == "\t}":
                    break
                inside.append(line)
        yield match[1], match[2], inside


def _pairs(lines: list[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        if match := _PAIR.fullmatch(line):
            yield match[1], match[2] or ""


def _calendar(lines: list[str] | None) -> frozenset[Times] | None:
    """Dictionaries of the triggers that are calendar times: each trigger is a block behind two tabs.

    None: there is no such block. Triggers of other kinds are none of ours.
    """
    if lines is None:
        return None
    found: set[Times] = set()
    times: set[tuple[str, int]] = set()
    ours = False
    for line in lines:
        if match := _TIME.fullmatch(line):
            times.add((match[1], int(match[2])))
        elif line.strip() == f"stream = {_CALENDAR}":
            ours = True
        elif line == "\t\t}":
            if ours and times:
                found.add(frozenset(times))
            times, ours = set(), False
    return frozenset(found)


def _wanted_times(plist: Mapping[str, Any]) -> frozenset[Times]:
    """As the file has them: an array, or the one dictionary that somebody wrote by hand."""
    said = plist.get("StartCalendarInterval", ())
    every = [said] if isinstance(said, dict) else said if isinstance(said, list) else ()
    return frozenset(
        frozenset((key, value) for key, value in times.items() if isinstance(value, int))
        for times in every
        if isinstance(times, dict)
    )


def _number(text: str | None) -> int | None:
    """`1`, `78: EX_CONFIG`; None for `(never exited)` and for nothing."""
    match = _NUMBER.fullmatch(text or "")
    return int(match[1]) if match else None


def _shown(value: object) -> str:
    """Short: an environment or a calendar may be long."""
    if isinstance(value, frozenset):
        return f"{len(value)} times"
    text = str(value)
    return text if len(text) <= 200 else text[:200] + "..."
