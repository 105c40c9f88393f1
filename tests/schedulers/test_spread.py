"""Each agent's own minutes: the same grid, moved, and shared out evenly."""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchbill.schedulers import spread
from watchbill.schedulers.schedule import check, next_fires

NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,30}", fullmatch=True)
GRIDS = [f"every {n}m" for n in (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60)] + [f"every {n}h" for n in (2, 6, 12, 24)]
START = datetime(2026, 6, 1, 12, 34, tzinfo=UTC)


@given(NAMES, st.sampled_from(GRIDS))
@settings(max_examples=120, deadline=None)
def test_a_shifted_grid_keeps_its_period(name: str, text: str) -> None:
    """Broken once: shifted by up to an hour whatever its period, `every 20m` had minutes beyond 59."""
    written = check(text)
    shifted = spread.shifted(written, name)
    assert shifted == spread.shifted(written, name)
    assert shifted._replace(entries=written.entries) == written
    fires = next_fires(shifted, START, 6)
    assert {later - fire for fire, later in itertools.pairwise(fires)} == {timedelta(seconds=written.interval_s or 0)}
    behind = (fires[0] - next_fires(written, START - timedelta(days=1), 1)[0]).total_seconds() / 60
    assert behind % (written.interval_s or 0) // 60 < min((written.interval_s or 0) // 60, 60)


@pytest.mark.parametrize("text", ["every 90m", "every 36h", "hourly :17", "daily 07:30", "*/20 * * * *", "manual"])
def test_clock_times_and_intervals_stay(text: str) -> None:
    assert spread.shifted(check(text), "bosun") == check(text)


def test_an_hour_is_shifted_by_its_minute_alone() -> None:
    shifted = spread.shifted(check("every 6h"), "bosun")
    assert [entry.hour for entry in shifted.entries] == [frozenset({0, 6, 12, 18})]
    fires = next_fires(shifted, datetime(2026, 3, 28, 20, tzinfo=ZoneInfo("Europe/Berlin")), 6)
    assert [fire.hour for fire in fires] == [0, 6, 12, 18, 0, 6]
    assert len({fire.minute for fire in fires}) == 1


@pytest.mark.parametrize(("text", "minutes"), [("hourly", 60), ("every 20m", 20), ("every 6h", 60)])
def test_five_hundred_agents_are_shared_out(text: str, minutes: int) -> None:
    """Evenly as chance has it: no minute has more than twice its share and six.

    Broken once: with the length of the name for its hash, three minutes had all of them.
    """
    names = [f"agent-{n}" for n in range(500)]
    first = [min(spread.shifted(check(text), name).entries[0].minute or ()) for name in names]
    found = Counter(first)
    assert len(found) == minutes
    assert max(found.values()) <= 2 * 500 / minutes + 6
