"""The slot a firing is for, against the same schedule read forwards."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.fleet import agent, fleet
from watchbill.schedulers import slots, spread
from watchbill.schedulers.schedule import Schedule, check, next_fires

TEXTS = ["every 1m", "every 20m", "every 6h", "every 1d", "hourly", "hourly :17", "daily 02:30", "daily 9:00,17:30",
         "weekdays 09:00", "mon,thu 14:00", "0 9-17/2 * * 1-5", "30 4 1,15 * 5", "0 0 */16 * 1", "59 23 31 * *",
         "*/7 1-3 * * *"]  # fmt: skip
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/Havana"]


@contextmanager
def host_in(zone: str) -> Iterator[ZoneInfo]:
    """The C library's local time is this zone's meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        yield ZoneInfo(zone)
    time.tzset()


def forwards(schedule: Schedule, now: int, zone: ZoneInfo) -> int | None:
    """The same by `next_fires`: from so far back that there is one."""
    for hours, most in ((3, 181), (72, 100), (300, 100), (6000, 100)):
        start = datetime.fromtimestamp(now, UTC).astimezone(zone) - timedelta(hours=hours)
        found = [int(fire.timestamp()) for fire in next_fires(schedule, start, most) if fire.timestamp() <= now]
        if found:
            return found[-1]
    return None


@given(st.sampled_from(TEXTS), st.sampled_from(ZONES), st.integers(-5 * 86_400, 5 * 86_400), st.sampled_from([
    "2026-03-29", "2026-10-25", "2026-11-01", "2026-04-05", "2026-12-31", "2026-03-08"]))  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_it_is_the_last_of_those_that_fire(text: str, zone: str, aside_s: int, day: str) -> None:
    """Broken once: without `_REPEATED_S`, a slot of the hour that comes twice was passed over in its second half."""
    now = int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) + aside_s
    own = spread.shifted(check(text), "bosun")
    with host_in(zone) as there:
        assert slots.due(spread.slots(check(text), "bosun"), now) == forwards(own, now, there)


def test_the_hour_that_comes_twice() -> None:
    masks = spread.slots(check("daily 02:30"), "bosun")
    with host_in("Europe/Berlin"):
        first = int(datetime(2026, 10, 25, 0, 30, tzinfo=UTC).timestamp())
        assert slots.due(masks, first) == first
        assert slots.due(masks, first + 40 * 60) == first  # the wall shows 02:10 once more
        assert slots.due(masks, first + 60 * 60) == first  # 02:30 once more


def test_the_hour_that_never_comes() -> None:
    masks = spread.slots(check("daily 02:30"), "bosun")
    with host_in("Europe/Berlin"):
        before = int(datetime(2026, 3, 28, 1, 30, tzinfo=UTC).timestamp())
        assert slots.due(masks, before + 86_400) == before


@pytest.mark.parametrize("text", ["manual", "every 90m"])
def test_no_calendar_no_slot(text: str) -> None:
    assert slots.due(spread.slots(check(text), "bosun"), time.time()) is None


def test_rare_days_are_found() -> None:
    now = int(datetime(2027, 6, 1, tzinfo=UTC).timestamp())
    with host_in("UTC"):
        for text, slot in (("0 0 29 feb *", "2024-02-29"), ("0 0 29 2 */7", "2004-02-29")):
            due = slots.due(spread.slots(check(text), "bosun"), now)
            assert due == datetime.fromisoformat(slot).replace(tzinfo=UTC).timestamp(), text


def test_every_scheduled_firing_records_its_slot_a_refused_one_too(tmp_path: Path) -> None:
    with fleet(tmp_path, {"bosun": {**agent(), "every": "20m"}}) as it:
        it.run("pause", "bosun")
        before = int(time.time())
        for flags in (["--scheduled"], []):
            assert it.fire("bosun", *flags).outcome == "held"
        (scheduled, by_hand) = [row[0] for row in it.rows("SELECT due FROM firings ORDER BY id")]
        masks = spread.slots(check("every 20m"), "bosun")
        assert scheduled in {slots.due(masks, at) for at in (before, time.time())}
        assert by_hand is None
