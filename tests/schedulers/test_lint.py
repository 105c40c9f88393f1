"""What is allowed and will surprise somebody."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from watchbill.schedulers.schedule import check, crowds, lint

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 22, tzinfo=UTC)
SPRING, AUTUMN = "Sunday, 2027-03-28", "Sunday, 2027-10-31"


@pytest.mark.parametrize(
    ("text", "zone", "says"),
    [
        ("daily 02:30", BERLIN, [f"02:30 in Europe/Berlin does not exist on {SPRING}", f"comes twice on {AUTUMN}"]),
        ("sun 02:00", BERLIN, [f"02:00 in Europe/Berlin does not exist on {SPRING}", f"comes twice on {AUTUMN}"]),
        ("daily 03:00", BERLIN, []),
        ("daily 01:59", BERLIN, []),
        ("weekdays 02:30", BERLIN, []),
        ("0 2 * mar *", BERLIN, [f"does not exist on {SPRING}"]),
        ("*/30 1-4 * * *", BERLIN, [SPRING, AUTUMN]),
        ("0 * * * *", BERLIN, []),
        ("hourly", BERLIN, []),
        ("every 20m", BERLIN, []),
        ("daily 02:30", ZoneInfo("UTC"), []),
        ("daily 02:30", ZoneInfo("Asia/Kolkata"), []),
        ("daily 00:30", ZoneInfo("America/Havana"), ["00:30", "00:30"]),
        ("daily 01:45", ZoneInfo("Australia/Lord_Howe"), ["comes twice on Sunday, 2027-04-04"]),
        ("daily 02:15", ZoneInfo("Australia/Lord_Howe"), ["does not exist on Sunday, 2027-10-03"]),
    ],
)
def test_changes_of_the_clock(text: str, zone: ZoneInfo, says: list[str]) -> None:
    """Broken once: with `at <= change.last` daily 03:00 was warned of, which every system fires."""
    found = lint(check(text), zone, NOW)
    assert len(found) == len(says), found
    for sentence, part in zip(found, says, strict=True):
        assert part in sentence


@pytest.mark.parametrize(
    ("text", "nearest"),
    [("every 90m", "'every 2h'"), ("every 7m", "'every 6m'"), ("every 36h", "'every 24h'"), ("every 5h", "'every 6h'"),
     ("every 45m", "'every 1h'"), ("every 2d", "'0 9 */2 * *'"), ("every 7d", "'mon 09:00'"),
     ("every 28d", "'0 9 1 * *'")],
)  # fmt: skip
def test_an_interval_is_not_caught_up(text: str, nearest: str) -> None:
    (said,) = lint(check(text), BERLIN, NOW)
    assert "not caught up" in said
    assert nearest in said
    check(nearest.strip("'"))


def test_manual_surprises_nobody() -> None:
    assert lint(check("manual"), BERLIN, NOW) == []
    assert lint(check("daily 02:30"), BERLIN) != []


def test_many_agents_of_one_minute() -> None:
    many = {f"agent-{n:02}": check("daily 09:00") for n in range(11)}
    (said,) = crowds({**many, "other": check("daily 9:30"), **{f"g{n}": check("every 20m") for n in range(30)}})
    assert said.startswith("11 agents (agent-00, agent-01, agent-02, ...) fire in the same minute, by 'daily 09:00'")
    assert crowds(dict(list(many.items())[:10])) == []
