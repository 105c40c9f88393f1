"""The gate `capped`: the last firing that fits, the first that does not, and windows of a subscription."""

from __future__ import annotations

import pytest

from support.gates import CLAUDE, CODEX, NOW, a_hold, an_agent, seen
from watchbill.compiled import Cap
from watchbill.gates import capped
from watchbill.ledger.windows import Window
from watchbill.money import Standing

FIRING = {"usd": 1_000_000, "tokens": 1000, "turns": 10, "firings": 1}


def day(unit: str, limit: int, settled: int, reserved: int, scope: str = "day") -> Standing:
    return Standing(Cap(scope, unit, limit), "bosun", "2026-11-21", settled, reserved)


@pytest.mark.parametrize("unit", FIRING)
@pytest.mark.parametrize("scope", ["day", "fleet_day", "fleet_month"])
def test_exactly_what_fits(unit: str, scope: str) -> None:
    agent = an_agent(caps=tuple(Cap("firing", unit, most) for unit, most in FIRING.items() if unit != "firings"))
    most = FIRING[unit]
    assert capped.refuse(agent, seen(caps=(day(unit, 5 * most, 3 * most, most, scope),))) is None
    refusal = capped.refuse(agent, seen(caps=(day(unit, 5 * most, 3 * most, most + 1, scope),)))
    assert refusal is not None
    assert (refusal.outcome, refusal.reason_id) == ("capped", f"capped-{scope.replace('_', '-')}-{unit}")
    assert (refusal.numbers["settled"], refusal.numbers["reserved"]) == (3 * most, most + 1)
    assert refusal.until is not None
    assert refusal.until > NOW


def test_what_one_request_more_can_cost_is_part_of_it() -> None:
    tight = seen(caps=(day("usd", 2_000_000, 1_000_000, 0),))
    assert capped.refuse(an_agent("bosun", CLAUDE._replace(request_micro=0)), tight) is None
    assert capped.refuse(an_agent("bosun", CLAUDE._replace(request_micro=1)), tight) is not None


def test_a_role_without_an_engine_spends_nothing() -> None:
    assert capped.refuse(an_agent(role="sweep"), seen(caps=(day("usd", 1, 1, 0),))) is None


def window(account: str, used_ppm: int, resets_at: int = NOW + 60, name: str = "five_hour") -> Window:
    return Window(account, name, used_ppm, resets_at, NOW - 60)


def test_a_window_as_full_as_the_operator_lets_it_be() -> None:
    agent = an_agent("bosun", CLAUDE._replace(most_used_ppm=800_000))
    assert capped.refuse(agent, seen(windows=(window("team", 799_999),))) is None
    refusal = capped.refuse(agent, seen(windows=(window("team", 800_000), window("team", 900_000, NOW + 90, "week"))))
    assert refusal is not None
    assert (refusal.reason_id, refusal.until, refusal.numbers["window"]) == ("capped-window", NOW + 90, "week")
    assert capped.refuse(agent, seen(windows=(window("team", 999_999, NOW),))) is None  # reset meanwhile
    assert capped.refuse(agent, seen(windows=(window("another", 999_999),))) is None
    assert capped.refuse(an_agent(), seen(windows=(window("team", 1_000_000),))) is None  # nobody set a limit


def test_a_full_window_leaves_the_fallback_unless_that_is_held_or_full() -> None:
    uses = (CLAUDE._replace(most_used_ppm=800_000), CODEX._replace(most_used_ppm=500_000))
    agent, full = an_agent("bosun", *uses), window("team", 900_000)
    assert capped.refuse(agent, seen(windows=(full,))) is None
    assert capped.usable(agent, seen(windows=(full,))) == uses[1]
    assert capped.refuse(agent, seen(windows=(full, window("other", 500_000)))) is not None
    refusal = capped.refuse(agent, seen(a_hold("engine", "codex"), windows=(full,)))
    assert refusal is not None
    assert refusal.numbers["account"] == "team"
