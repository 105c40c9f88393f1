"""kill -9 at random instants of firings under random faults of the forge; `make crash` runs more of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from crash.chance import line_of, trials

#: Those that `make test` (ten) and .ci/run (twenty) run, ten a fleet. A failure is repeated by
#: `python tests/crash/chance.py --seed 7 --only N`.
SEED = 7


@pytest.mark.parametrize("first", [0, pytest.param(10, marks=pytest.mark.thorough)])
def test_killed_at_random(tmp_path: Path, first: int) -> None:
    """After at most two further firings for each that died, and one sweep, nothing is wrong."""
    found = trials(tmp_path, SEED, list(range(first, first + 10)))
    assert not found[-1]["wrong"], line_of(found[-1])
    assert any(death["killed"] for one in found for death in one["deaths"])
