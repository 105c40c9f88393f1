"""What is written for systemd: the same meaning as the schedule's own, and no value can become another line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import manager
from watchbill.errors import Fixable
from watchbill.schedulers import header, systemd, systemd_ask, systemd_text
from watchbill.schedulers.base import Unit
from watchbill.schedulers.schedule import Schedule, check, next_fires

BERLIN = ZoneInfo("Europe/Berlin")
#: The day before each change of the clock, and a day without one, each late in the evening.
BASES = (
    datetime(2026, 3, 28, 21, 40, tzinfo=UTC),
    datetime(2026, 10, 24, 21, 40, tzinfo=UTC),
    datetime(2028, 2, 28, 23, 58, tzinfo=UTC),
)
#: Every case of the grammar.
GRAMMAR = (
    "every 1m", "every 20m", "every 30m", "every 1h", "every 6h", "every 24h", "every 1d", "hourly", "hourly :17",
    "daily 07:30", "daily 9:00,17:30", "daily 02:30", "weekdays 09:00", "weekends 10:00", "mon,thu 14:00",
    "mon-fri 08:00", "fri-mon 08:00", "sunday 02:30,03:00", "* * * * *", "*/30 9-17 * * mon-fri", "30 2 * * *",
    "30 4 1,15 * 5", "0 0 */2 * 1", "0 0 1-31 * 1", "15 1-3 * * *", "0 12 29 2 *", "0 9 31 * *", "5,35 0-23/2 * 1-3 7",
)  # fmt: skip


def unit(agent: str = "bosun", text: str = "every 20m", home: str = "/h/.watchbill", **changed: object) -> Unit:
    plain = Unit(
        agent=agent,
        name=f"watchbill-{agent}",
        description=f"Watchbill: {agent} (implement), {text}",
        home=home,
        argv=("/usr/bin/true",),
        directory=home,
        environment=(("PATH", "/usr/bin"),),
        log=f"{home}/logs/{agent}.log",
        deadline_s=100,
        gates=(f"{home}/held/all", f"{home}/held/agent-{agent}"),
        schedule=check(text),
        delay_s=0,
    )
    return plain._replace(**changed)  # type: ignore[arg-type]


def systemd_fires(lines: list[str], base: datetime, count: int, zone: str) -> list[datetime]:
    """What systemd says of all these lines together: its own next `count` instants."""
    ended = subprocess.run(
        ["systemd-analyze", "calendar", f"--iterations={count}", f"--base-time=@{base.timestamp():.0f}", *lines],
        env={**os.environ, "TZ": zone, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    # In its own zone and, where that is another, once more in UTC; a line that is in UTC already says it but once.
    found = set()
    for line in ended.stdout.splitlines():
        match = re.search(r"(?:Next elapse|Iter. #[0-9]+|\(in UTC\)): \w{3} (\S+ \S+) (\S+)", line)
        if match:
            found.add((match[1], match[2]))
    utc = {datetime.strptime(at, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC) for at, name in found if name == "UTC"}
    return sorted(utc)[:count]


def same(schedule: Schedule, base: datetime, zone: str, count: int = 12) -> None:
    lines = systemd_text.calendars(schedule)
    ours = [at.astimezone(UTC) for at in next_fires(schedule, base.astimezone(ZoneInfo(zone)), count)]
    assert ours
    # ours end after 41 years
    assert systemd_fires(lines, base, count, zone)[: len(ours)] == ours, (schedule.text, lines, zone)


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
@pytest.mark.parametrize("text", GRAMMAR)
def test_systemd_fires_when_the_schedule_says(text: str, zone: str) -> None:
    """Broken once: without " UTC" after a grid, `every 20m` came at 02:00 UTC, not at 01:00, when summer ended."""
    for base in BASES[: 3 if zone == "UTC" else 2]:
        same(check(text), base, zone)


_numbers = lambda low, high: st.sets(st.integers(low, high), min_size=1, max_size=4)  # noqa: E731
_field = lambda low, high: st.one_of(  # noqa: E731
    st.just("*"), _numbers(low, high).map(lambda found: ",".join(map(str, sorted(found))))
)


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Whatever the grammar can say."""
    time = st.builds("{:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59))
    days = st.sampled_from(["daily", "weekdays", "weekends", "mon,thu", "sat-tue", "sun"])
    cron = st.tuples(_field(0, 59), _field(0, 23), _field(1, 28), _field(1, 12), _field(0, 7)).map(" ".join)
    every = st.sampled_from([1, 2, 5, 10, 20, 30, 60, 120, 180, 720]).map(lambda minutes: f"every {minutes}m")
    at = st.builds("{} {}".format, days, st.lists(time, min_size=1, max_size=3).map(",".join))
    return draw(st.one_of(cron, every, at, st.integers(0, 59).map(lambda minute: f"hourly :{minute:02}")))


@pytest.mark.needs("systemd-analyze")
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts(), st.integers(0, 366 * 24 * 60), st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]))
def test_any_schedule_means_the_same_to_systemd(text: str, minutes: int, zone: str) -> None:
    same(check(text), datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes), zone, count=6)


def test_times_of_several_days_are_lines_of_their_own() -> None:
    assert systemd_text.calendars(check("30 4 1,15 * 5")) == ["*-*-01,15 04:30:00", "Fri *-*-* 04:30:00"]
    assert systemd_text.calendars(check("every 20m")) == ["*-*-* *:00,20,40:00 UTC"]
    assert systemd_text.calendars(check("weekends 10:00")) == ["Sat,Sun *-*-* 10:00:00"]
    assert systemd_text.calendars(check("every 90m")) == []


def test_the_same_unit_is_the_same_bytes_and_says_whose_it_is() -> None:
    one, other = systemd_text.files(unit(), "/c"), systemd_text.files(unit(), "/c")
    assert one == other
    assert [file.path for file in one] == ["/c/watchbill-bosun.service", "/c/watchbill-bosun.timer"]
    for file in one:
        assert header.read(file.content) == ("/h/.watchbill", "bosun", False)
        assert header.read(file.content + b"# mine\n") == ("/h/.watchbill", "bosun", True)


def test_what_fires_by_hand_only_has_no_timer() -> None:
    assert [file.path for file in systemd_text.files(unit(text="manual"), "/c")] == ["/c/watchbill-bosun.service"]


def test_lateness_and_intervals() -> None:
    (_, plain), (_, late) = systemd_text.files(unit(), "/c"), systemd_text.files(unit(delay_s=55), "/c")
    assert b"RandomizedDelaySec" not in plain.content
    assert b"RandomizedDelaySec=55\nFixedRandomDelay=true" in late.content
    (_, interval) = systemd_text.files(unit(text="every 90m"), "/c")
    assert b"OnActiveSec=5400\nOnUnitActiveSec=5400\n" in interval.content
    assert b"OnCalendar" not in interval.content
    assert b"Persistent" not in interval.content


@pytest.mark.parametrize("bad", ["a\nExecStart=/bin/evil", "a\rb", "tab\tbed", "nul\0", "del\x7f", "\udce4"])
@pytest.mark.parametrize("place", ["argv", "directory", "environment", "log", "gates", "description"])
def test_a_value_cannot_become_a_line(place: str, bad: str) -> None:
    value: object = {"argv": ("/x", bad), "environment": (("A", bad),), "gates": (bad,)}.get(place, f"/{bad}")
    with pytest.raises(Fixable) as told:
        systemd_text.files(unit(**{place: value}), "/c")
    assert told.value.id == "WB-SCHED-14"
    assert "bosun" in told.value.what


#: What systemd would read as something else, were it not written as it must be.
HOSTILE = "a b  c\"d'e\\f%h%%g$HOME${PATH};# ;\\x41 ~é-"


@pytest.mark.needs("systemctl", "unshare", "nsenter", "setsid")
def test_every_value_arrives_as_it_was_given(tmp_path: Path) -> None:
    """By systemd itself: the words, the folder, the environment, the log and the gate, all with hostile names.

    Broken once: without doubling `%` the manager put its own home for `%h`; without `:` it put a value for $HOME.
    """
    where = tmp_path / HOSTILE
    where.mkdir()
    tells = "import json, os, sys; print(json.dumps([sys.argv[1:], os.getcwd(), os.environ['V'], os.environ['PATH']]))"
    words = (HOSTILE, "", ";", "-", "trailing\\", "$$")
    hostile = unit(
        home=str(where),
        directory=str(where) + "\\",
        argv=(sys.executable, "-I", "-c", tells, *words),
        environment=(("PATH", "/usr/bin:" + HOSTILE), ("V", HOSTILE)),
        log=str(where / f"{HOSTILE}.log"),
        gates=(str(where / "gate"),),
        text="manual",
    )
    Path(hostile.directory).mkdir()
    with manager.private(tmp_path) as it:
        assert it.call(systemd.once, hostile, 20) == 0
        (line,) = Path(hostile.log).read_text().splitlines()
        assert json.loads(line) == [list(words), hostile.directory, HOSTILE, "/usr/bin:" + HOSTILE]
        (where / "gate").touch()
        it.call(systemd.once, hostile, 20)
        assert len(Path(hostile.log).read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("", None),
        ("n/a", None),
        ("0", None),
        ("infinity", None),
        ("Sun 2026-11-22 00:40:39 UTC", 1795308039),
        ("2026-11-22 00:40:39.123456 UTC", 1795308039),
        ("@1795308039", 1795308039),
        ("Sun 2026-11-22 01:40:39 CET", None),
    ],
)
def test_moments_as_systemd_words_them(said: str, meant: int | None) -> None:
    assert systemd_ask.epoch(said) == meant


def test_spans_count_from_boot() -> None:
    boot = systemd_ask.epoch_of_span("1min")
    assert boot is not None
    for said, seconds in (
        ("1min 30s", 30),
        ("11h 25min 6.410918s", 41046),
        ("1d 1min", 86_400),
        ("1w 1min 2s", 604_802),
    ):
        found = systemd_ask.epoch_of_span(said)
        assert found is not None
        assert abs(found - boot - seconds) <= 1, said
    for never in ("", "infinity", "0", "soon"):
        assert systemd_ask.epoch_of_span(never) is None
