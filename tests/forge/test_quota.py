"""`quota.Kept`, which stands before every request: on a real ledger, with a clock moved by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.gates import NOW, a_hold
from support.ledgers import new_ledger
from watchbill import holds, pill, quota
from watchbill.forge.base import UNLIMITED, Answer, Limits, RateLimited
from watchbill.ledger import holds as rows
from watchbill.ledger.db import Ledger

READ = Answer(writes=False, counted=True, remaining=4000, limit=5000, resets_at=NOW + 3600)
WRITE = READ._replace(writes=True)
UNCHANGED = READ._replace(counted=False)
#: What GitHub answers to a conditional request above the quota: 304 costs nothing.
UNCHANGED_ABOVE = UNCHANGED._replace(remaining=0)


class Clock:
    at = float(NOW)

    def now(self) -> float:
        return self.at

    def elapsed(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        raise AssertionError(f"slept {seconds} s")


class Host:
    """A ledger, a clock, and firings at work."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.clock = ledger, Clock()

    def firing(self, id: str, agent: str = "bosun") -> quota.Kept:
        return quota.Kept(self.ledger, self.clock, agent, id)

    def hold(self, kind: str = quota.PRIMARY) -> rows.Hold | None:
        return rows.healing(self.ledger, quota.SCOPE, "", kind)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    ledger = new_ledger(tmp_path)
    yield Host(ledger)
    ledger.close()


def hit(until: int | None = NOW + 600, *, secondary: bool = False) -> RateLimited:
    return RateLimited("POST /x: 403 You have exceeded", 403, until=until, secondary=secondary)


def may_ask(one: Limits) -> bool:
    try:
        one.before()
    except RateLimited as error:
        return error.status != 0  # 0: nothing was asked
    return True


def test_of_two_at_work_one_asks_at_the_end_of_a_limit(host: Host) -> None:
    """They passed their gates long ago. Broken on purpose: with `_may_try` always true after the end both asked."""
    first, second = host.firing("f1"), host.firing("f2", "mate")
    assert may_ask(first)
    assert may_ask(second)
    first.limited(hit())
    assert not may_ask(first)
    assert not may_ask(second)
    host.clock.at = NOW + 599
    assert not may_ask(second)
    host.clock.at = NOW + 600
    assert may_ask(second)
    assert not may_ask(first)
    assert may_ask(second)  # and goes on asking
    second.answered(READ)
    assert host.hold() is None
    assert may_ask(first)  # who is at work waits for no turn
    assert may_ask(second)
    (healed,) = rows.standing(host.ledger, NOW + 601)
    assert (healed.lifted_at, healed.eases_until) == (NOW + 600, NOW + 600 + holds.EASE_S)


@pytest.mark.parametrize(
    ("secondary", "answer", "heals"),
    [
        (False, READ, True),
        (False, WRITE, True),
        (False, UNCHANGED, True),
        (False, UNCHANGED_ABOVE, False),
        (False, UNCHANGED._replace(remaining=None), False),
        (True, READ, False),
        (True, UNCHANGED, False),
        (True, WRITE, True),
    ],
)
def test_what_proves_that_a_limit_is_over(host: Host, secondary: bool, answer: Answer, heals: bool) -> None:
    one = host.firing("f1")
    one.limited(hit(secondary=secondary))
    host.clock.at = NOW + 600
    assert may_ask(one)
    one.answered(answer)
    assert (host.hold(quota.SECONDARY if secondary else quota.PRIMARY) is None) is heals


def test_both_limits_at_once(host: Host) -> None:
    one = host.firing("f1")
    one.limited(hit())
    one.limited(hit(NOW + 60, secondary=True))
    host.clock.at = NOW + 60
    assert not may_ask(one)  # the secondary is over, the primary is not
    host.clock.at = NOW + 600
    assert may_ask(one)
    one.answered(READ)
    assert (host.hold(), host.hold(quota.SECONDARY) is None) == (None, False)
    assert may_ask(one)
    one.answered(WRITE)
    assert host.hold(quota.SECONDARY) is None


def test_limited_again_it_waits_longer_and_nobody_is_the_canary(host: Host) -> None:
    one = host.firing("f1")
    one.limited(hit(None, secondary=True))
    waits = []
    for _ in range(5):
        hold = host.hold(quota.SECONDARY)
        assert hold is not None
        assert hold.until is not None
        waits.append(hold.until - int(host.clock.at))
        host.clock.at = hold.until
        assert may_ask(one)
        one.limited(hit(None, secondary=True))
        assert not may_ask(one)
    assert waits == [60, 120, 240, 480, 960]


def test_an_answer_to_what_was_asked_before_the_limit_proves_nothing(host: Host) -> None:
    """Another firing hit it while our request was on its way."""
    one, other = host.firing("f1"), host.firing("f2")
    assert may_ask(one)
    other.limited(hit())
    one.answered(WRITE)
    assert host.hold() is not None
    host.clock.at = NOW + 600
    assert may_ask(one)
    other.limited(hit(NOW + 1200))  # it too had a request on its way
    one.answered(WRITE)
    hold = host.hold()
    assert hold is not None
    assert not may_ask(one)


def test_a_silent_canary_is_replaced(host: Host) -> None:
    one, other = host.firing("f1"), host.firing("f2")
    one.limited(hit())
    host.clock.at = NOW + 600
    assert may_ask(one)
    host.clock.at += pill.CANARY_S
    assert may_ask(other)
    one.answered(WRITE)
    assert host.hold() is not None
    other.answered(READ)
    assert host.hold() is None


def test_a_persons_hold_is_for_gates_and_effects(host: Host) -> None:
    """What a firing has to give back it may still give back; and nothing lifts it."""
    with host.ledger.transaction(durable=True):
        rows.add(host.ledger, a_hold("github", "", "pause"))
        rows.add(host.ledger, a_hold("account", "team", "rate_limit"))
    one = host.firing("f1")
    assert may_ask(one)
    one.answered(WRITE)
    assert len(rows.standing(host.ledger, NOW)) == 2


def test_a_person_is_told_once_and_asks_all_the_same(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.firing("f1").limited(hit())
    person = quota.Told(host.ledger, host.clock, "octocat")
    person.before()
    person.before()
    said = capsys.readouterr().err
    assert said.count("note: github is held (github_primary by bosun") == 1
    host.clock.at = NOW + 600
    person.answered(WRITE)
    assert host.hold() is not None
    person.limited(hit(NOW + 5000))
    hold = host.hold()
    assert hold is not None
    assert hold.until == NOW + 5000


def test_a_low_quota_is_put_on_record_and_holds_nobody(host: Host) -> None:
    one = host.firing("f1")
    for remaining, limit, low in ((4000, 5000, False), (250, 5000, False), (249, 5000, True), (49, 60, True)):
        fresh = host.firing("f1")
        with host.ledger.transaction():
            host.ledger.write("poll_give_back_all", by="f1")
        fresh.answered(READ._replace(remaining=remaining, limit=limit))
        found = quota.low(host.ledger, NOW)
        assert (found is not None and found["remaining"] == remaining) is low
    assert quota.low(host.ledger, NOW + 3600) is None  # reset meanwhile
    assert may_ask(one)
    one.answered(READ._replace(remaining=None, limit=None, resets_at=None))


def test_nobody_keeps_them_unless_somebody_does() -> None:
    UNLIMITED.before()
    UNLIMITED.limited(hit())
    UNLIMITED.answered(READ)
