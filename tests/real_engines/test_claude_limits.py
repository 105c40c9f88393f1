"""The real `claude` program against scripted models: limits, stops, kills and what an earlier run had used.

Costs are worked out from what the script says was used and the price that Anthropic publishes, not by our code.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from support import real
from support.models import Call, Models, Step, says
from support.real import (
    BIG,
    DEAF,
    SLEEP,
    a_real_task,
    calls,
    killed,
    logged,
    once_there,
    run_real,
    shim,
    tariff,
)
from watchbill.engines import bill, claude
from watchbill.engines.base import Session, Tokens
from watchbill.isolation import bwrap, landlock, none
from watchbill.isolation.base import Isolation

pytestmark = [pytest.mark.needs("claude", "bwrap")]

CLAUDE = "claude"
cost = partial(real.cost, CLAUDE)
earlier = partial(real.earlier, CLAUDE)
CACHED = Tokens(input=5_000, output=300, cache_read=4_000, cache_write=500)


# --- limits ---------------------------------------------------------------------------------------------------------


def test_turns(tmp_path: Path, models: Models) -> None:
    script = models.script(calls(CLAUDE, "true", BIG, times=None))
    done = run_real(tmp_path, CLAUDE, script, turns=2)
    assert done.verdict == "max_turns"
    assert 2 <= len(script.turns) <= 3
    assert (done.cost_micro, done.basis) == (len(script.turns) * cost(BIG), "engine")


def test_its_own_budget(tmp_path: Path, models: Models) -> None:
    script = models.script(calls(CLAUDE, "true", BIG, times=None))
    done = run_real(tmp_path, CLAUDE, script, cost_micro=120_000)
    assert done.verdict == "budget"
    assert 120_000 <= done.cost_micro <= 120_000 + cost(BIG)
    assert (done.cost_micro, done.basis) == (len(script.turns) * cost(BIG), "engine")


WITHOUT_BUDGET = """
for word; do
    shift
    [ "$last" = --max-budget-usd ] || [ "$word" = --max-budget-usd ] || set -- "$@" "$word"
    last=$word
done"""


@pytest.mark.parametrize(
    ("limit", "most"), [({"tokens": 50_000}, 3), ({"cost_micro": 120_000}, 5)], ids=["tokens", "dollars"]
)
def test_our_meter_stops_it(tmp_path: Path, models: Models, limit: dict[str, int], most: int) -> None:
    """It says nothing of its tokens before its end; its own file does. What counts is what the server has served.

    Tokens within one request of the cap. Dollars it counts itself (above); here it was never told of its budget, and
    our meter stops it at two requests more. Broken once: without a look at the transcript it ran until its wall time;
    with one a second, five were served for the tokens of two.
    """
    script = models.script(calls(CLAUDE, "true", BIG, times=None, delay_s=0.5))
    task = {"options": {"program": shim(tmp_path, CLAUDE, WITHOUT_BUDGET)}, **limit}
    done = run_real(tmp_path, CLAUDE, script, request_micro=50_000, **task)
    assert (done.verdict, done.limit, done.stopped_by) == ("budget", None, None)
    assert 2 <= len(script.turns) <= most  # of 21,000 tokens and $0.05 each
    assert done.cost_micro >= cost(BIG, BIG)


@pytest.mark.parametrize("layer", [bwrap, landlock], ids=["bwrap", "landlock"])
def test_who_takes_its_files_away_is_stopped(tmp_path: Path, models: Models, layer: Isolation) -> None:
    """By them its tokens are metered, and a full disk does the same. Its dollars it counts itself.

    Stopped in the middle of an answer it sometimes says no last word; what nobody saw is charged by the request then.
    Broken once: of the 50,000 tokens of its cap it used 21,000 after 21,000 until its time was over.
    """
    if layer.unavailable():
        pytest.skip(f"{layer.name}: {layer.unavailable()}")
    gone = "rm -rf $CLAUDE_CONFIG_DIR/projects; touch $CLAUDE_CONFIG_DIR/projects"
    script = models.script(calls(CLAUDE, gone, BIG), calls(CLAUDE, "true", BIG, delay_s=1.0, times=None))
    done = run_real(tmp_path, CLAUDE, script, layer=layer, request_micro=cost(BIG), tokens=50_000, cost_micro=5_000_000)
    assert (done.verdict, done.limit) == ("budget", None)
    assert len(script.turns) < 15
    assert done.cost_micro >= cost(BIG) * (len(script.turns) - 1)


def test_an_answer_with_many_tools_that_takes_its_time(tmp_path: Path, models: Models) -> None:
    """The other side of it: what is at work is not stopped, however little of it is told."""
    words = [{"command": f"touch made-{n}", "description": "as scripted"} for n in range(6)]
    many = Step(calls=tuple(Call("Bash", said) for said in words), used=BIG, pause_s=1.5)
    script = models.script(many, says("done", BIG))
    done = run_real(tmp_path, CLAUDE, script, tokens=500_000, request_micro=1_000_000)
    assert (done.verdict, done.cost_micro) == ("ok", cost(BIG, BIG))
    assert len(list((tmp_path / "work").glob("made-*"))) == 6


def test_a_stream_that_stalls(tmp_path: Path, models: Models) -> None:
    script = models.script(calls(CLAUDE, "true", BIG), says("never told", CACHED, stream="stalls"))
    done = run_real(tmp_path, CLAUDE, script, silence_s=3.0, request_micro=7)
    assert (done.verdict, done.limit) == ("timeout", "silence")
    assert cost(BIG) <= done.cost_micro <= cost(BIG, CACHED) + 7
    assert done.duration_s < 20


def test_its_time_is_over_in_a_tool_that_ignores_signals(tmp_path: Path, models: Models) -> None:
    done = run_real(tmp_path, CLAUDE, models.script(calls(CLAUDE, DEAF, BIG)), wall_s=4.0)
    assert (done.verdict, done.limit) == ("timeout", "wall")
    assert done.cost_micro == cost(BIG)
    assert 4 <= done.duration_s < 20


# --- stopped, killed ------------------------------------------------------------------------------------------------


def test_stopped_in_a_tool_it_still_says_what_it_spent(tmp_path: Path, models: Models) -> None:
    script = models.script(calls(CLAUDE, "true", CACHED), calls(CLAUDE, f"touch begun; {SLEEP}", BIG))
    done = run_real(tmp_path, CLAUDE, script, beat=once_there(tmp_path / "work" / "begun", "held"), request_micro=7)
    assert (done.verdict, done.limit, done.stopped_by) == ("interrupted", None, "held")
    assert (done.cost_micro, done.basis) == (cost(CACHED, BIG), "engine")
    assert logged(done)[-1]["type"] == "result"
    assert done.duration_s < 20


@pytest.mark.parametrize("layer", [bwrap, none], ids=["bwrap", "none"])
def test_killed_it_is_charged_by_its_transcript(tmp_path: Path, models: Models, layer: Isolation) -> None:
    """Also where nobody saw it end: the same files say the same, and one request more is charged.

    Broken once: a message of two parts, which is written twice, was charged twice; without the transcript, nothing.
    """
    script = models.script(calls(CLAUDE, "true", CACHED, text="First,"), calls(CLAUDE, "true", BIG), killed(CLAUDE))
    done = run_real(tmp_path, CLAUDE, script, layer=layer)
    assert (done.verdict, done.exit_status in (-9, 137)) == ("crash", True)
    assert done.cost_micro == cost(CACHED, BIG)
    made = a_real_task(tmp_path, CLAUDE, script)
    found, usage = bill.of_the_dead(claude, done.log, made.home, None, tariff(made, 7))
    assert found is not None
    assert (found.micro, found.basis) == (cost(CACHED, BIG) + 7, "transcript")
    assert (usage.input_tokens, usage.output_tokens) == (25_000, 1_300)


# --- going on with an earlier run -----------------------------------------------------------------------------------


def test_gone_on_with_it_is_charged_what_came_since(tmp_path: Path, models: Models) -> None:
    """Three runs of one conversation; the last is killed, and its files hold all three.

    Broken once: without taking off what was used before, the killed run cost $0.155650 for $0.05.
    """
    run_real(tmp_path, CLAUDE, models.script(calls(CLAUDE, "true", BIG), says("The first word.", BIG)))
    script = models.script(says("The second word.", CACHED))
    second = run_real(tmp_path, CLAUDE, script, session=earlier(tmp_path), cost_micro=1_000_000)
    assert (second.verdict, second.cost_micro, second.basis) == ("ok", cost(CACHED), "engine")
    assert second.usage.tokens == 5_300
    assert "The first word." in script.turns[0].text
    third = run_real(
        tmp_path, CLAUDE, models.script(calls(CLAUDE, "true", BIG), killed(CLAUDE)), session=earlier(tmp_path)
    )
    assert (third.verdict, third.cost_micro, third.usage.tokens) == ("crash", cost(BIG), 21_000)


def test_a_conversation_that_is_not_there_costs_nothing(tmp_path: Path, models: Models) -> None:
    nowhere = Session("00000000-0000-4000-8000-000000000000", bill.UNUSED)
    script = models.script()
    done = run_real(tmp_path, CLAUDE, script, session=nowhere)
    assert (done.verdict, done.cost_micro, done.usage.tokens) == ("crash", 0, 0)
    assert script.turns == []
