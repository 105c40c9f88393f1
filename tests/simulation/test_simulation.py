"""The simulation, short: some hundred schedules hold, and each ingredient that is taken away is missed.

`make simulate N=100000` is the same at full length. Broken on purpose, beyond the ablations: a model of git that
compares old values when a push reads the refs, and not when it is executed (`server.Server.update`): "superseded"; a
crash that can be caught (`world.Crashed` an Exception): "bug" in every second schedule; a watch that is not told of
claims (`watch._claim`): "superseded" nearly everywhere.
"""

from __future__ import annotations

from collections import Counter

import pytest

from simulation import __main__ as simulate
from simulation import fleet, schedule, shrink
from simulation.ablations import ABLATIONS
from simulation.schedule import Outcome

#: An ablation is found within so many schedules that need what is missing; `make simulate ABLATE=name` draws any.
WITHIN = 8


def outcomes(depth: str, begin: int, count: int) -> list[Outcome]:
    return [schedule.run(schedule.draw(seed, depth)) for seed in range(begin, begin + count)]


def broken(found: list[Outcome]) -> list[str]:
    return [f"seed {o.plan.seed}: {v.kind} #{v.number} {v.text}" for o in found for v in o.violations]


@pytest.mark.parametrize("begin", [0, *(pytest.param(seed, marks=pytest.mark.thorough) for seed in (1000, 2000))])
def test_claims_hold(begin: int) -> None:
    with fleet.shipped("claims"):
        found = outcomes("claims", begin, 50)
    assert broken(found) == []
    seen: Counter[str] = sum((o.counts for o in found), start=Counter())
    # A harness in which nothing goes wrong would show nothing.
    assert min(seen[what] for what in ("pulls", "runs", "crashes", "freezes")) > 5


def test_whole_firings_hold() -> None:
    with fleet.shipped("whole"):
        assert broken(outcomes("whole", 0, 25)) == []


#: Seeds that a long run found, with what was wrong then.
FOUND = {
    15541: "frozen before a second publishing push, which did not ask again whether the issue was wanted",
    33048: "the publishing push went through late, between two steps of the release: an illegal move",
}


@pytest.mark.parametrize("seed", FOUND)
def test_what_a_long_run_found(seed: int) -> None:
    with fleet.shipped("claims"):
        assert broken(outcomes("claims", seed, 1)) == []


def test_equal_seeds_make_equal_schedules() -> None:
    with fleet.shipped("claims"):
        plan = schedule.draw(5)
        first, second = schedule.run(plan, trace=True), schedule.run(plan, trace=True)
        played_back = schedule.run(plan, replay=first.faults, trace=True)
    assert first.trace == second.trace
    assert first.trace == played_back.trace
    assert first.trace


@pytest.mark.parametrize("name", ABLATIONS)
def test_what_is_taken_away_is_missed(name: str) -> None:
    ablation = ABLATIONS[name]
    for seed in range(WITHIN):
        plan = ablation.need(schedule.draw(seed))
        with fleet.shipped("claims"):
            assert broken([schedule.run(plan)]) == []
        with fleet.shipped("claims", ablation.patches):
            found = {violation.kind for violation in schedule.run(plan).violations}
        if found & set(ablation.finds):
            return
    pytest.fail(f"{ablation.what}: not found in {WITHIN} schedules")


def test_a_failing_schedule_shrinks_to_a_readable_trace() -> None:
    ablation = ABLATIONS["pr-floor"]
    with fleet.shipped("claims", ablation.patches):
        plan = ablation.need(schedule.draw(0))
        outcome = shrink.shrink(plan, "wrong pull", lambda _: None)
    assert [act.what for act in outcome.plan.acts] == ["label", "close pull", "label"]
    assert "VIOLATION   wrong pull" in simulate.told(outcome, everything=False).replace("    ", "   ")
