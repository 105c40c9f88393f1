"""The real `codex` program against scripted models: limits, stops, kills and what an earlier run had used.

Costs are worked out from what the script says was used and the price that OpenAI publishes, not by our code.
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
    once_there,
    run_real,
    tariff,
)
from watchbill.engines import bill, codex
from watchbill.engines.base import Session, Tokens
from watchbill.isolation import bwrap, landlock, none
from watchbill.isolation.base import Isolation

pytestmark = [pytest.mark.needs("codex", "bwrap")]

CODEX = "codex"
cost = partial(real.cost, CODEX)
earlier = partial(real.earlier, CODEX)
CACHED = Tokens(input=5_000, output=300, cache_read=4_000)


# --- limits ---------------------------------------------------------------------------------------------------------


def test_turns(tmp_path: Path, models: Models) -> None:
    """It has no such limit of its own; its file is read while it runs."""
    pause = "python3 -c 'import time; time.sleep(0.7)'"
    script = models.script(calls(CODEX, pause, BIG, times=None))
    done = run_real(tmp_path, CODEX, script, turns=2)
    assert done.verdict == "max_turns"
    assert 3 <= len(script.turns) <= 5
    assert cost(BIG) * 3 <= done.cost_micro <= cost(BIG) * len(script.turns)


@pytest.mark.parametrize("limit", [{"tokens": 50_000}, {"cost_micro": 300_000}], ids=["tokens", "dollars"])
def test_our_meter_stops_it_within_a_request(tmp_path: Path, models: Models, limit: dict[str, int]) -> None:
    """Its stream says nothing of its cost before its end; its own file does. What counts is what the server served.

    Broken once: without a look at the file it ran until its wall time; with one a second, four were served.
    """
    script = models.script(calls(CODEX, "true", BIG, times=None, delay_s=0.5))
    done = run_real(tmp_path, CODEX, script, request_micro=cost(BIG), **limit)
    assert (done.verdict, done.limit, done.stopped_by) == ("budget", None, None)
    assert 2 <= len(script.turns) <= 3  # of 21,000 tokens and $0.13 each
    assert done.cost_micro >= cost(BIG, BIG)


def test_who_takes_its_files_away_is_stopped(tmp_path: Path, models: Models) -> None:
    """Where its own sandbox is not to be had, its tools can; and a full disk does the same. Then nobody sees what it
    spends. Broken once: of the two requests that its cap allows it made one after the other until its time was over."""
    gone = "mv $HOME/.codex/sessions $HOME/was; touch $HOME/.codex/sessions"
    script = models.script(calls(CODEX, gone, BIG), calls(CODEX, "true", BIG, delay_s=1.0, times=None))
    done = run_real(tmp_path, CODEX, script, layer=landlock, cost_micro=300_000, request_micro=150_000)
    assert (done.verdict, done.limit) == ("budget", None)
    assert len(script.turns) < 15
    assert done.cost_micro >= 300_000


def test_an_answer_with_many_tools_that_takes_its_time(tmp_path: Path, models: Models) -> None:
    """It starts each of them while the others are still being told, and knows what it used when the answer is whole.

    Broken once: taken for requests that its files do not tell of, and stopped; $6.008 for $0.008.
    """
    many = Step(calls=tuple(Call("exec_command", {"cmd": f"touch made-{n}"}) for n in range(6)), used=BIG, pause_s=1.5)
    script = models.script(many, says("done", BIG))
    done = run_real(tmp_path, CODEX, script, cost_micro=5_000_000, request_micro=1_000_000)
    assert (done.verdict, done.cost_micro, done.basis) == ("ok", cost(BIG, BIG), "priced")
    assert len(list((tmp_path / "work").glob("made-*"))) == 6


def test_a_stream_that_stalls(tmp_path: Path, models: Models) -> None:
    script = models.script(calls(CODEX, "true", BIG), says("never told", CACHED, stream="stalls"))
    done = run_real(tmp_path, CODEX, script, silence_s=3.0, request_micro=7)
    assert (done.verdict, done.limit) == ("timeout", "silence")
    assert (done.cost_micro, done.basis) == (cost(BIG) + 7, "stream")
    assert done.duration_s < 20


def test_its_time_is_over_in_a_tool_that_ignores_signals(tmp_path: Path, models: Models) -> None:
    done = run_real(tmp_path, CODEX, models.script(calls(CODEX, DEAF, BIG)), wall_s=4.0, request_micro=7)
    assert (done.verdict, done.limit) == ("timeout", "wall")
    assert (done.cost_micro, done.basis) == (cost(BIG) + 7, "stream")
    assert 4 <= done.duration_s < 20


# --- stopped, killed ------------------------------------------------------------------------------------------------


def test_stopped_in_a_tool_its_file_says_what_it_spent(tmp_path: Path, models: Models) -> None:
    """Broken once: without a look at the file nothing was known of its cost."""
    script = models.script(calls(CODEX, "true", CACHED), calls(CODEX, f"touch begun; {SLEEP}", BIG))
    done = run_real(tmp_path, CODEX, script, beat=once_there(tmp_path / "work" / "begun", "held"), request_micro=7)
    assert (done.verdict, done.limit, done.stopped_by) == ("interrupted", None, "held")
    assert (done.cost_micro, done.basis) == (cost(CACHED, BIG) + 7, "stream")
    assert done.duration_s < 20


@pytest.mark.parametrize("layer", [bwrap, none], ids=["bwrap", "none"])
def test_killed_it_is_charged_by_its_transcript(tmp_path: Path, models: Models, layer: Isolation) -> None:
    """Also where nobody saw it end: the same files say the same, and one request more is charged."""
    script = models.script(calls(CODEX, "true", CACHED, text="First,"), calls(CODEX, "true", BIG), killed(CODEX))
    done = run_real(tmp_path, CODEX, script, layer=layer)
    assert (done.verdict, done.exit_status in (-9, 137)) == ("crash", True)
    assert done.cost_micro == cost(CACHED, BIG)
    made = a_real_task(tmp_path, CODEX, script)
    found, usage = bill.of_the_dead(codex, done.log, made.home, None, tariff(made, 7))
    assert found is not None
    assert (found.micro, found.basis) == (cost(CACHED, BIG) + 7, "transcript")
    assert (usage.input_tokens, usage.output_tokens) == (25_000, 1_300)


# --- going on with an earlier run -----------------------------------------------------------------------------------


def test_gone_on_with_it_is_charged_what_came_since(tmp_path: Path, models: Models) -> None:
    """Three runs of one conversation; the last is killed, and its files hold all three.

    Broken once: without taking off what was used before, from what it says or from what it writes, the second cost
    $0.276 for $0.016.
    """
    run_real(tmp_path, CODEX, models.script(calls(CODEX, "true", BIG), says("The first word.", BIG)))
    script = models.script(says("The second word.", CACHED))
    second = run_real(tmp_path, CODEX, script, session=earlier(tmp_path), cost_micro=1_000_000)
    assert (second.verdict, second.cost_micro, second.basis) == ("ok", cost(CACHED), "priced")
    assert second.usage.tokens == 5_300
    assert "The first word." in script.turns[0].text
    third = run_real(
        tmp_path, CODEX, models.script(calls(CODEX, "true", BIG), killed(CODEX)), session=earlier(tmp_path)
    )
    assert (third.verdict, third.cost_micro, third.usage.tokens) == ("crash", cost(BIG), 21_000)


def test_a_conversation_that_is_not_there_costs_nothing(tmp_path: Path, models: Models) -> None:
    nowhere = Session("01a1fcb0-fb3e-7652-87b2-81f3d009cf43", bill.UNUSED)
    script = models.script()
    done = run_real(tmp_path, CODEX, script, session=nowhere)
    assert (done.verdict, done.cost_micro, done.usage.tokens) == ("crash", 0, 0)
    assert script.turns == []
