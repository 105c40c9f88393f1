"""Every engine: what it used is known and charged however it ended, and what it was turned away for is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.dialects import Dialect
from support.engines import TARIFF
from watchbill.engines import bill
from watchbill.engines.base import Session
from watchbill.engines.bill import Bill


def test_usage_adds_up(tmp_path: Path, adapter: Dialect) -> None:
    done = adapter.run(tmp_path, "for _ in range(3): used(1000, 200, usd=0.1)\ndone()")
    assert (done.usage.input_tokens, done.usage.output_tokens, done.usage.turns) == (3000, 600, 3)
    assert Bill(done.cost_micro, done.basis) == (Bill(300_000, "engine") if adapter.dollars else Bill(3600, "priced"))


def test_several_last_words_are_one_account(tmp_path: Path, adapter: Dialect) -> None:
    """One process can take several turns.

    Broken once: with the last word of claude taken for the whole of it, 11 of these 33 tokens were counted.
    """
    done = adapter.run(tmp_path, "for _ in range(3): used(10, 1); done()")
    assert (done.verdict, done.usage.input_tokens, done.usage.output_tokens) == ("ok", 30, 3)
    assert (done.usage.turns, done.cost_micro) == (3, 33)


def test_what_it_used_before_it_was_killed_is_charged(tmp_path: Path, adapter: Dialect) -> None:
    """And the same when nobody saw it end: then with the request that may have been under way.

    Broken once: with an adapter of codex that has no transcript both cost nothing.
    """
    task = adapter.task(tmp_path, "used(1000, 200); os.kill(os.getpid(), 9)")
    done = adapter.again(task)
    assert (done.verdict, done.usage.tokens, done.cost_micro) == ("crash", 1200, 1200)
    tariff = TARIFF._replace(request_micro=50)
    charged, usage = bill.of_the_dead(adapter.engine, task.log, task.home, None, tariff)
    assert charged is not None
    assert (charged.micro, usage.tokens) == (1250, 1200)


SPENDS = "while True: used(100, 50); time.sleep(0.1)"


@pytest.mark.parametrize(
    ("limit", "at", "verdict"),
    [({"cost_micro": 450}, 3, "budget"), ({"tokens": 400}, 3, "budget"), ({"turns": 2}, 3, "max_turns")],
    ids=["dollars", "tokens", "turns"],
)
def test_a_cap_is_met_while_it_runs(
    tmp_path: Path, adapter: Dialect, limit: dict[str, int], at: int, verdict: str
) -> None:
    """All are met at the third of these requests, which are 150 tokens each, and as many millionths of a dollar.

    Broken once: with the meter read only at the end, it went on to the wall limit.
    """
    done = adapter.run(tmp_path, SPENDS, **limit)
    assert done.verdict == verdict
    assert at <= done.usage.turns <= 2 * at + 6  # 0.1 s a request; the rest is a busy machine
    assert done.cost_micro == done.usage.turns * 150


def test_stopped_by_the_beat_after_it_said_its_cost(tmp_path: Path, adapter: Dialect) -> None:
    """SIGINT first: what an interrupted run cost is asked for, and heard. Who gives no account of all of it then has
    one more request under way.

    Broken once: with SIGTERM for SIGINT the last request was in nobody's figures.
    """
    text = """
def last_words(*_):
    used(30, 4)
    interrupted()
    os._exit(0)
signal.signal(signal.SIGINT, last_words)
used(1000, 100)
open("ready", "w").close()
time.sleep(60)
"""
    ready = tmp_path / "work" / "ready"
    task = adapter.task(tmp_path, text)
    held = "held until noon"
    done = adapter.again(task, beat=lambda: held if ready.exists() else None, ladder=(5, 0.4), request_micro=7)
    assert (done.verdict, done.stopped_by, done.limit) == ("interrupted", held, None)
    assert done.usage.tokens == 1134
    assert Bill(done.cost_micro, done.basis) == (Bill(1134, "engine") if adapter.accounts else Bill(1141, "stream"))


def test_a_run_pays_for_its_own_part_of_a_conversation(tmp_path: Path, adapter: Dialect) -> None:
    """Said or only written, seen to end or not.

    Broken once: with codex's total as it stands, the second run paid for the first again; with the whole transcript
    taken for this run's, the third did.
    """
    engine = adapter.engine
    first = adapter.task(tmp_path, "used(1000, 100); used(200, 50); done()")
    assert adapter.again(first).usage.tokens == 1350
    talk = engine.session(first.home)
    assert (talk is not None) == adapter.resumes
    if talk is None:
        return
    path = Path(first.home, talk.path)
    assert path.is_file()
    assert os.path.realpath(path).startswith(os.path.realpath(first.home) + os.sep)
    for text, verdict in (("used(8, 1); done(); used(2, 4); done()", "ok"),
                          ("used(8, 1); used(2, 4); os.kill(os.getpid(), 9)", "crash")):  # fmt: skip
        before = bill.read_whole(engine.transcript(first.home))
        task = adapter.task(tmp_path, text)._replace(session=Session(talk.id, before))
        done = adapter.again(task)
        assert (done.verdict, done.usage.input_tokens, done.usage.output_tokens) == (verdict, 10, 5)
        assert (done.usage.turns, done.cost_micro) == (2, 15)
        charged, usage = bill.of_the_dead(engine, task.log, task.home, None, TARIFF, before)
        assert charged is not None
        assert (charged.micro, usage.tokens) == (15, 15)
        assert engine.session(first.home) == talk


# --- trouble ----------------------------------------------------------------------------------------------------------


def test_why_it_gave_up(tmp_path: Path, adapter: Dialect) -> None:
    """Broken once: with claude's `success` believed without its `is_error`, one that was turned away was a crash."""
    for kind in adapter.ends:
        (tmp_path / kind).mkdir()
        assert adapter.run(tmp_path / kind, f"gave_up({kind!r}); sys.exit(1)").verdict == kind


def test_who_gave_up_has_not_finished_whatever_it_ends_with(tmp_path: Path, adapter: Dialect) -> None:
    """Claude calls it a `success`, too."""
    done = adapter.run(tmp_path, 'gave_up("overloaded"); sys.exit(0)')
    assert (done.verdict, done.exit_status) == ("overloaded", 0)


def test_a_refused_key_is_not_retried(tmp_path: Path, adapter: Dialect) -> None:
    done = adapter.run(tmp_path, 'turned_away("auth"); time.sleep(60)')
    assert done.verdict == "auth"
    assert done.duration_s < 10


def test_rate_limited_until(tmp_path: Path, adapter: Dialect) -> None:
    done = adapter.run(tmp_path, "limited(1790000500); sys.exit(1)")
    assert (done.verdict, done.until) == ("rate_limited", 1790000500)


def test_who_is_limited_and_waits_is_limited(tmp_path: Path, adapter: Dialect) -> None:
    """Broken once: a time-out, which counted as a try, and nobody else was told of the limit."""
    done = adapter.run(tmp_path, 'turned_away("rate_limited"); time.sleep(60)', wall_s=0.4)
    assert (done.verdict, done.limit) == ("rate_limited", "wall")


def test_who_was_answered_since_is_not_limited(tmp_path: Path, adapter: Dialect) -> None:
    """The pause, because what an engine says and what it writes are read in turns."""
    text = 'turned_away("rate_limited"); time.sleep(0.3); used(5, 0)\n'
    done = adapter.run(tmp_path, text + "time.sleep(60)", wall_s=0.8)
    assert (done.verdict, done.limit) == ("timeout", "wall")
    assert adapter.run(tmp_path, text + "done()").verdict == "ok"


def test_who_is_limited_for_longer_than_it_may_run_is_not_waited_for(tmp_path: Path, adapter: Dialect) -> None:
    done = adapter.run(tmp_path, "limited(int(time.time()) + 3600); time.sleep(60)", wall_s=15)
    assert done.verdict == "rate_limited"
    assert done.until is not None
    assert done.duration_s < 10
