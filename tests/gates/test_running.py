"""The gate `running`."""

from __future__ import annotations

from support.gates import NOW, an_agent, seen
from support.ledgers import firing
from watchbill.gates import running


def test_one_firing_of_an_agent_at_a_time() -> None:
    assert running.refuse(an_agent(), seen()) is None
    refusal = running.refuse(an_agent(), seen(lock_held=True, live=firing(id="f1", pid=42, started=NOW - 90)))
    assert refusal is not None
    assert (refusal.outcome, refusal.reason_id, refusal.until) == ("running", "running", None)
    assert refusal.reason == "firing f1 of bosun has been running for 90 s (pid 42)"


def test_one_that_has_no_row_yet_runs_as_well() -> None:
    refusal = running.refuse(an_agent(), seen(lock_held=True))
    assert refusal is not None
    assert "starting or ending" in refusal.reason


def test_a_row_without_the_lock_is_of_a_firing_that_died() -> None:
    assert running.refuse(an_agent(), seen(live=firing())) is None
