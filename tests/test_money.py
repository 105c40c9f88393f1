"""Money, days and months: pure."""

from __future__ import annotations

import datetime
import os
import random
import time
import zoneinfo
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchbill import money
from watchbill.compiled import Cap


def at(zone: str, *local: int, fold: int = 0) -> int:
    """UTC epoch seconds of what a wall clock in `zone` shows."""
    year, month, day, *rest = local
    moment = datetime.datetime(year, month, day, *rest, tzinfo=zoneinfo.ZoneInfo(zone), fold=fold)  # type: ignore[misc]
    return int(moment.timestamp())


def shown(zone: str, moment: int) -> str:
    return datetime.datetime.fromtimestamp(moment, zoneinfo.ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M:%S")


@contextmanager
def host_zone(zone: str) -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = zone
    time.tzset()
    try:
        yield
    finally:
        os.environ.pop("TZ")
        if before is not None:
            os.environ["TZ"] = before
        time.tzset()


def holds(scope: str, zone: str, now: int, step_s: int) -> None:
    """The end is the first moment of another period, by zoneinfo's own account."""
    name = "%Y-%m" if scope == "fleet_month" else "%Y-%m-%d"
    tz = zoneinfo.ZoneInfo(zone)

    def called(moment: int) -> str:
        return datetime.datetime.fromtimestamp(moment, tz).strftime(name)

    end = money.period_end(scope, now, zone)
    assert end is not None
    assert now < end
    assert called(now) == called(end - 1) != called(end), (zone, now, end)
    assert all(called(moment) == called(now) for moment in range(now, end, step_s)), (zone, now, end)


@pytest.mark.parametrize(
    ("zone", "now", "hours", "shows"),
    [
        ("UTC", (2026, 11, 21), 24, "2026-11-22 00:00:00"),
        ("Europe/Berlin", (2026, 3, 29), 23, "2026-03-30 00:00:00"),
        ("Europe/Berlin", (2026, 10, 25), 25, "2026-10-26 00:00:00"),
        ("America/Sao_Paulo", (2018, 11, 3), 24, "2018-11-04 01:00:00"),  # that day had no midnight
        ("America/Sao_Paulo", (2018, 2, 17), 25, "2018-02-18 00:00:00"),  # 23:00 came twice
        ("Pacific/Apia", (2011, 12, 29), 24, "2011-12-31 00:00:00"),  # there was no 30th
        ("America/St_Johns", (2006, 10, 28), 24, "2006-10-29 00:00:00"),  # for a minute, then the 28th once more
        ("Australia/Lord_Howe", (2026, 4, 5), 24.5, "2026-04-06 00:00:00"),
    ],
)
def test_a_day_ends_when_the_wall_clock_says_so(zone: str, now: tuple[int, ...], hours: float, shows: str) -> None:
    began = at(zone, *now)
    end = money.period_end("day", began, zone)
    assert end == began + hours * 3600
    assert shown(zone, end) == shows
    assert money.period_end("day", end - 1, zone) == end
    with host_zone(zone):
        assert money.period_end("fleet_day", began + 0.5, "") == end


def test_months_end_and_lifetimes_do_not() -> None:
    zone = "Pacific/Apia"
    assert money.period_end("fleet_month", at(zone, 2011, 12, 1), zone) == at(zone, 2012, 1, 1)
    assert money.period_end("fleet_month", at("UTC", 2024, 2, 1), "UTC") == at("UTC", 2024, 3, 1)
    assert money.period_end("issue", 0, "UTC") is None
    assert money.period_end("firing", 0, "UTC") is None


def test_in_every_zone_a_period_ends_where_zoneinfo_says() -> None:
    """Broken on purpose: with an end of `now` + 24 hours cut to midnight UTC the first zone but UTC fails."""
    chance = random.Random(4)
    for zone in sorted(zoneinfo.available_timezones()):
        now = chance.randrange(0, 2**31 - 10**7)
        holds("day", zone, now, 1801)
        holds("fleet_month", zone, now, 12 * 3607)


def test_where_clocks_change_near_midnight_a_day_ends_at_the_first() -> None:
    """Broken on purpose: without the look at the hours before, St John's second midnight was answered."""
    for zone in (
        "America/St_Johns",
        "America/Goose_Bay",
        "America/Toronto",
        "America/Havana",
        "Asia/Amman",
        "Asia/Gaza",
    ):
        tz = zoneinfo.ZoneInfo(zone)
        offset, changes = None, []
        for hour in range(1_500_000_000 // 3600):
            found = hour * 3600
            if hour % 12 == 0:
                now = tz.utcoffset(datetime.datetime.fromtimestamp(found, tz))
                if offset is not None and now != offset:
                    changes.append(found)
                offset = now
        for change in changes[-20:]:
            holds("day", zone, change - 12 * 3600 - 1, 20)


def test_a_clock_set_back_across_midnight_is_in_the_day_before_once_more() -> None:
    """What stands against a cap stands under the day's name, so that the spent day is spent still."""
    zone = "America/St_Johns"
    midnight = at(zone, 2006, 10, 29, 0, 0)
    days = [money.period("day", midnight + second, zone) for second in (-1, 0, 59, 60, 3599, 3600)]
    assert days == ["2006-10-28", "2006-10-29", "2006-10-29", "2006-10-28", "2006-10-28", "2006-10-29"]


@given(limit=st.integers(0, 10**12), hosts=st.integers(1, 500))
def test_the_hosts_parts_never_exceed_the_whole(limit: int, hosts: int) -> None:
    part = money.share(limit, hosts)
    assert part * hosts <= limit < (part + 1) * hosts


@given(
    limit=st.integers(0, 10**9),
    settled=st.integers(0, 10**9),
    reserved=st.integers(0, 10**9),
    worst=st.integers(0, 10**9),
)
def test_a_firing_fits_exactly_when_its_worst_case_does(limit: int, settled: int, reserved: int, worst: int) -> None:
    standing = money.Standing(Cap("day", "tokens", limit), "bosun", "d", settled, reserved)
    assert money.above(standing, {"tokens": worst}) == (settled + reserved + worst > limit)


def test_the_worst_case_is_the_firings_cap_and_one_request() -> None:
    caps = (Cap("firing", "usd", 1_500_000), Cap("firing", "tokens", 9000), Cap("day", "usd", 10_000_000))
    assert money.worst_case(caps, 200_000) == {"usd": 1_700_000, "tokens": 9000, "firings": 1}
