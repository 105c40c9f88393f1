"""What `launchctl print` says is read with care: Apple calls it no interface."""

from __future__ import annotations

import plistlib
from datetime import UTC
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchbill.schedulers import launchd_plist, launchd_print
from watchbill.schedulers.base import Unit
from watchbill.schedulers.schedule import check

#: As macOS 13 prints an agent, with blocks in which our fields' names stand for other things.
PAGE = """\
gui/501/watchbill-bosun = {
\tactive count = 1
\tcopy count = 0
\tpath = /Users/ada/Library/LaunchAgents/watchbill-bosun.plist
\ttype = LaunchAgent
\tmanaged_by = com.apple.xpc.ServiceManagement
\tstate = running

\tprogram = /Users/ada/wb/bin/python
\targuments = {
\t\t/Users/ada/wb/bin/python
\t\t-I
\t\t}
\t\ttwo words => and = signs
\t}

\tworking directory = /Users/ada/.watchbill

\tstdout path = /Users/ada/.watchbill/logs/bosun.log
\tstderr path = /Users/ada/.watchbill/logs/bosun.log
\tinherited environment = {
\t\tSSH_AUTH_SOCK => /private/tmp/com.apple.launchd.abc/Listeners
\t}

\tdefault environment = {
\t\tPATH => /usr/bin:/bin:/usr/sbin:/sbin
\t}

\tenvironment = {
\t\tPATH => /opt/homebrew/bin:/usr/bin:/bin
\t\tXPC_SERVICE_NAME => watchbill-bosun
\t}

\tdomain = gui/501 [100012]
\tasid = 100012
\tminimum runtime = 10
\texit timeout = 20
\truns = 3
\tpid = 4711
\timmediate reason = calendar interval
\tlast exit code = 75: EX_TEMPFAIL

\tevent triggers = {
\t\twatchbill-bosun.268435472 => {
\t\t\tkeepalive = 0
\t\t\tservice = watchbill-bosun
\t\t\tstream = com.apple.launchd.calendarinterval
\t\t\tmonitor = com.apple.UserEventAgent-Aqua
\t\t\tdescriptor = {
\t\t\t\t"Minute" => 30
\t\t\t\t"Hour" => 7
\t\t\t}
\t\t}
\t\twatchbill-bosun.268435473 => {
\t\t\tkeepalive = 0
\t\t\tstream = com.apple.iokit.matching
\t\t\tdescriptor = {
\t\t\t\t"Minute" => 5
\t\t\t}
\t\t}
\t}

\tresource coalition = {
\t\tID = 1234
\t\ttype = resource
\t\tstate = active
\t\tactive count = 1
\t\truns = 99
\t}

\tspawn type = daemon (3)
\tjetsam priority = 40

\tproperties = inferred program
}
"""
_PATH = "/Users/ada/Library/LaunchAgents/watchbill-bosun.plist"
_PLIST: dict[str, Any] = {
    "Label": "watchbill-bosun",
    "ProgramArguments": ["/Users/ada/wb/bin/python", "-I", "}", "two words => and = signs"],
    "WorkingDirectory": "/Users/ada/.watchbill",
    "EnvironmentVariables": {"PATH": "/opt/homebrew/bin:/usr/bin:/bin"},
    "StandardOutPath": "/Users/ada/.watchbill/logs/bosun.log",
    "StartCalendarInterval": [{"Hour": 7, "Minute": 30}],
}


def test_reads_a_page() -> None:
    """Broken once: with lines read flat, at any depth, and the last one kept: runs 99, state active."""
    seen = launchd_print.unit(PAGE)
    assert (seen.state, seen.pid, seen.runs, seen.exit, seen.signal) == ("running", 4711, 3, 75, None)
    assert seen.running
    assert seen.arguments == tuple(_PLIST["ProgramArguments"])
    assert seen.environment == {"PATH": "/opt/homebrew/bin:/usr/bin:/bin", "XPC_SERVICE_NAME": "watchbill-bosun"}
    assert seen.calendar == frozenset({frozenset({("Hour", 7), ("Minute", 30)})})
    assert seen.interval_s is None
    assert launchd_print.differs(_PLIST, _PATH, seen) is None


@pytest.mark.parametrize(
    ("line", "instead", "seen"),
    [
        ("\tstate = running", "\tstate = not running", {"state": "not running"}),
        ("\tpid = 4711\n", "", {"pid": None}),
        ("last exit code = 75: EX_TEMPFAIL", "last exit code = (never exited)", {"exit": None}),
        ("last exit code = 75: EX_TEMPFAIL", "last exit code = 1", {"exit": 1}),
        (
            "last exit code = 75: EX_TEMPFAIL",
            "last terminating signal = Killed: 9",
            {"exit": None, "signal": "Killed: 9"},
        ),
        ("\truns = 3\n", "", {"runs": None}),
        ("\tasid = 100012", "\trun interval = 5400 seconds", {"interval_s": 5400}),
    ],
)
def test_reads_what_else_is_seen(line: str, instead: str, seen: dict[str, Any]) -> None:
    found = launchd_print.unit(PAGE.replace(line, instead))
    assert {name: getattr(found, name) for name in seen} == seen


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"ProgramArguments": ["/Users/ada/wb/bin/python"]}, "arguments"),
        ({"WorkingDirectory": "/"}, "working directory"),
        ({"StandardOutPath": "/x"}, "stdout path"),
        ({"EnvironmentVariables": {"PATH": "/bin"}}, "environment"),
        ({"EnvironmentVariables": {"A": "b"}}, "environment"),
        ({"StartCalendarInterval": [{"Hour": 7, "Minute": 31}]}, "calendar"),
        ({"StartCalendarInterval": []}, "calendar"),
        ({"StartInterval": 60}, "run interval"),
    ],
)
def test_tells_what_is_loaded_otherwise(changed: dict[str, Any], says: str) -> None:
    assert says in (launchd_print.differs({**_PLIST, **changed}, _PATH, launchd_print.unit(PAGE)) or "")
    assert "path" in (launchd_print.differs(_PLIST, "/elsewhere", launchd_print.unit(PAGE)) or "")


def test_what_it_does_not_say_is_no_difference() -> None:
    """But for the calendar, which is what it is all about."""
    lines = [line for line in PAGE.splitlines() if not line.startswith(("\tworking", "\tstdout", "\tpath"))]
    assert launchd_print.differs(_PLIST, _PATH, launchd_print.unit("\n".join(lines))) is None
    assert launchd_print.differs(_PLIST, _PATH, launchd_print.unit("")) == "it has no calendar there"


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ('\tdisabled services = {\n\t\t"a.b" => disabled\n\t\t"c" => enabled\n\t}\n', {"a.b": True, "c": False}),
        ('disabled services = {\n\t"a.b" => true\n\t"c" => false\n}\n', {"a.b": True, "c": False}),
        ("", {}),
        ('\t\t"a" => perhaps\n', {}),
    ],
)
def test_reads_who_is_disabled(text: str, seen: dict[str, bool]) -> None:
    assert launchd_print.disabled(text) == seen


@given(st.text(alphabet='\t={}> "\nab:1', max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_answer_is_read(text: str) -> None:
    launchd_print.disabled(text)
    launchd_print.differs(_PLIST, _PATH, launchd_print.unit("gui/501/x = {\n" + text))


@pytest.mark.parametrize("value", [{"Hour": 7}, {"Hour": []}, "x", 5, [1, {"Hour": 7}, {"Hour": {}}], None, [[]]])
@pytest.mark.parametrize("key", ["StartCalendarInterval", "EnvironmentVariables", "ProgramArguments", "StartInterval"])
def test_any_file_is_compared(key: str, value: object) -> None:
    """A person wrote it."""
    assert launchd_print.differs({**_PLIST, key: value}, _PATH, launchd_print.unit(PAGE)) or value is None
    assert launchd_print.differs({}, _PATH, launchd_print.unit(PAGE))


def test_a_plist_of_ours_is_what_it_is_compared_as() -> None:
    unit = Unit("a", "watchbill-a", "d", "/h", ("/bin/x", "y"), "/h", (("A", "b"),), "/h/l", 60, (), check("hourly"), 0)
    plist = plistlib.loads(launchd_plist.content(unit, UTC))
    assert launchd_print.differs(plist, "/p", launchd_print.unit("")) == "it has no calendar there"
