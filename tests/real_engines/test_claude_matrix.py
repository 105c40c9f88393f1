"""The real `claude` program against scripted models: every way a run can go, and what each costs.

Costs are worked out from what the script says was used and the price that Anthropic publishes, not by our code.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import pytest

from support import real
from support.models import Models, anthropic, refused, says, uses
from support.real import (
    BIG,
    KEY,
    MODEL,
    SLEEP,
    calls,
    logged,
    run_real,
    shim,
    writes,
)
from watchbill.engines.base import Tokens

pytestmark = [pytest.mark.needs("claude", "bwrap")]

CLAUDE = "claude"
cost = partial(real.cost, CLAUDE)
TOKEN = "sk-ant-oat01-nobody-0000"
CACHED = Tokens(input=5_000, output=300, cache_read=4_000, cache_write=500)
LATER = 3_600  # seconds from now that a limit ends, where a case has one


def soon() -> int:
    return int(time.time()) + LATER


def test_a_run_that_writes_a_file_and_runs_a_command(tmp_path: Path, models: Models) -> None:
    """Broken once: what its messages say of tokens along the way counted too: three more than there were, one each."""
    script = models.script(writes(CLAUDE, tmp_path, "made", "by the agent"), calls(CLAUDE, "cat made > copied", CACHED),
                           says("All done.", Tokens(800, 20)))  # fmt: skip
    done = run_real(tmp_path, CLAUDE, script, cost_micro=1_000_000, turns=10)
    assert (done.verdict, done.limit, done.exit_status, done.stopped_by) == ("ok", None, 0, None)
    assert (tmp_path / "work" / "copied").read_text() == "by the agent"
    assert (done.cost_micro, done.basis) == (cost(BIG, CACHED, Tokens(800, 20)), "engine")
    assert (done.usage.input_tokens, done.usage.output_tokens) == (25_800, 1_320)
    assert done.message == "All done."
    assert done.isolation == "bwrap"
    assert [one["type"] for one in logged(done)][-1] == "result"
    assert script.unused == 0
    assert {seen.credential for seen in script.turns} == {KEY[CLAUDE]}
    assert {seen.model for seen in script.turns} == {MODEL[CLAUDE]}
    assert "Do what is to be done." in script.turns[0].text


ENDS = {
    "rate limited once, then served": (
        [refused(429, {"retry-after": "1"}), says("done", BIG)], {}, "ok", cost(BIG), False),
    "rate limited for ever": ([refused(429, {"retry-after": "1"}, times=None)], {}, "rate_limited", 0, False),
    "rate limited for an hour": ([refused(429, {"retry-after": "3600"})], {}, "rate_limited", 0, False),
    "the subscription's window is full": (
        [lambda _: refused(429, anthropic.windows("rejected", soon(), 1.0), times=None)], {"key": TOKEN},
        "rate_limited", 0, True),
    "the window fills up in the middle of a run": (
        [calls(CLAUDE, "true", BIG), lambda _: refused(429, anthropic.windows("rejected", soon(), 1.0))],
        {"key": TOKEN}, "rate_limited", cost(BIG), True),
    "the key is refused": ([refused(401, times=None)], {}, "auth", 0, False),
    "the key may not": ([refused(403, times=None)], {}, "auth", 0, False),
    "the key is refused in the middle of a run": (
        [calls(CLAUDE, "true", BIG), refused(401, times=None)], {}, "auth", cost(BIG), False),
    "out of credit": ([anthropic.out_of_credit()], {}, "billing", 0, False),
    "payment is required": ([refused(402, times=None)], {}, "billing", 0, False),
    "overloaded once, then served": ([refused(529), says("done", BIG)], {}, "ok", cost(BIG), False),
    "overloaded for ever": ([refused(529, times=None)], {}, "overloaded", 0, False),
    "a server error, then served": ([refused(500), says("done", BIG)], {}, "ok", cost(BIG), False),
    "server errors for ever": ([refused(503, times=None)], {}, "overloaded", 0, False),
    "the prompt is too long": ([anthropic.too_long()], {}, "context", 0, False),
    "a request that makes no sense": ([refused(400, times=None)], {}, "crash", 0, False),
    "a model that is not there": ([refused(404, times=None)], {}, "crash", 0, False),
    "a stream that is always cut": (  # its input was counted when it began; the second try is not streamed at all
        [says("lost", BIG, stream="drops", times=None)], {}, "crash", cost(Tokens(20_000, 1)), False),
    "an answer that is always cut short": (
        [says("No e", BIG, stop="max_tokens", times=None)], {}, "crash", 4 * cost(BIG), False),
}  # fmt: skip


@pytest.mark.parametrize("case", ENDS)
def test_ends(tmp_path: Path, models: Models, case: str) -> None:
    """Each by its verdict, the reset time where the provider named one, and what it cost until then.

    Nothing of it takes long: a refused key would be tried for minutes by default. Broken once: with its own ten
    tries, and without our look at the first, that ended by the wall time; without the reset time of a window, and
    without the subscription's flag (basis `engine`, not `notional`), the cases with one failed.
    """
    steps, task, verdict, micro, resets = ENDS[case]
    began = time.time()
    done = run_real(tmp_path, CLAUDE, models.script(*steps), cost_micro=1_000_000, **task)
    assert (done.verdict, done.limit, done.stopped_by) == (verdict, None, None)
    assert done.cost_micro == micro
    # Ended by us between two requests, it may not get to say what it spent: then its own file does.
    assert done.basis in ({"engine", "priced"} if verdict == "auth" else {"notional" if task else "engine"})
    assert (done.until is not None and abs(done.until - began - LATER) < 60) if resets else done.until is None
    assert done.duration_s < (5 if verdict == "auth" else 20)
    assert logged(done)


def test_a_stream_that_is_cut_is_asked_for_again(tmp_path: Path, models: Models) -> None:
    """What had come of it is charged: all that went in, and the one token that was told by then."""
    script = models.script(says("lost", BIG, stream="drops"), says("done", BIG))
    done = run_real(tmp_path, CLAUDE, script)
    assert (done.verdict, done.basis) == ("ok", "engine")
    assert done.cost_micro == cost(BIG, Tokens(20_000, 1))
    assert script.unused == 0


def test_a_refusal(tmp_path: Path, models: Models) -> None:
    """It asks once more by itself."""
    script = models.script(says("No.", BIG, stop="refusal", times=None))
    done = run_real(tmp_path, CLAUDE, script)
    assert (done.verdict, done.basis) == ("refused", "engine")
    assert done.cost_micro == len(script.turns) * cost(BIG)


def test_the_subscription_says_how_full_its_windows_are(tmp_path: Path, models: Models) -> None:
    """Before it is full: so that a fleet can hold itself back."""
    reset = soon()
    script = models.script(says("done", BIG, headers=anthropic.windows("allowed_warning", reset, 0.93)))
    done = run_real(tmp_path, CLAUDE, script, key=TOKEN)
    assert (done.verdict, done.cost_micro, done.basis, done.until) == ("ok", cost(BIG), "notional", None)
    windows = {window.name: (window.used_ppm, window.resets_at) for window in done.windows}
    assert windows["five_hour"] == (930_000, reset)
    assert windows["seven_day"] == (400_000, reset + 86_400)
    assert {seen.credential for seen in script.turns} == {TOKEN}
    assert {seen.headers["authorization"] for seen in script.turns} == {f"Bearer {TOKEN}"}


def test_a_model_that_nobody_knows_is_charged_above_every_price(tmp_path: Path, models: Models) -> None:
    done = run_real(tmp_path, CLAUDE, models.script(says("done", BIG)), model="claude-nobody-9")
    assert (done.verdict, done.basis) == ("ok", "ceiling")
    assert done.cost_micro == 20_000 * 200 + 1_000 * 800


def test_a_line_of_two_megabytes(tmp_path: Path, models: Models) -> None:
    done = run_real(
        tmp_path, CLAUDE, models.script(writes(CLAUDE, tmp_path, "big", "x" * 2_000_000), says("done", BIG))
    )
    assert (done.verdict, done.cost_micro) == ("ok", cost(BIG, BIG))
    assert (tmp_path / "work" / "big").stat().st_size == 2_000_000
    assert max(map(len, Path(done.log).read_bytes().splitlines())) > 2_000_000


def test_noise_on_stdout_is_passed_over(tmp_path: Path, models: Models) -> None:
    noisy = shim(tmp_path, CLAUDE, "echo 'npm warn old'", r"printf '\377\376{\n{\"type\": 7}\n[]\n'")
    done = run_real(tmp_path, CLAUDE, models.script(says("done", BIG)), options={"program": noisy})
    assert (done.verdict, done.cost_micro, done.basis) == ("ok", cost(BIG), "engine")


def test_a_long_brief_that_begins_like_an_option(tmp_path: Path, models: Models) -> None:
    script = models.script(says("done", BIG))
    done = run_real(tmp_path, CLAUDE, script, brief="--help me " + "x" * 200_000 + " the end")
    assert done.verdict == "ok"
    assert "--help me xxx" in script.turns[0].text
    assert "xxx the end" in script.turns[0].text


def test_tools_that_the_agent_may_not_use(tmp_path: Path, models: Models) -> None:
    script = models.script(calls(CLAUDE, "touch made"), says("done", BIG))
    done = run_real(tmp_path, CLAUDE, script, tools=("Read",))
    assert done.verdict == "ok"
    assert set(script.turns[0].tools) - {"DeferredToolPlaceholder"} == {"Read"}
    assert not (tmp_path / "work" / "made").exists()


def test_nothing_is_begun_in_the_background(tmp_path: Path, models: Models) -> None:
    """The tool then has no such parameter: the model is told so, and there is one result.

    Broken once: without CLAUDE_CODE_DISABLE_BACKGROUND_TASKS it went on after its result, and asked a third time.
    """
    words = {"command": "touch made", "description": "x", "run_in_background": True}
    script = models.script(uses("Bash", words, BIG), says("done", BIG))
    done = run_real(tmp_path, CLAUDE, script)
    assert (done.verdict, done.cost_micro, done.strays) == ("ok", cost(BIG, BIG), 0)
    assert "run_in_background" in script.turns[1].last
    assert not (tmp_path / "work" / "made").exists()
    assert [one["type"] for one in logged(done)].count("result") == 1


IN_BACKGROUND = "unset CLAUDE_CODE_DISABLE_BACKGROUND_TASKS"


def test_two_results_are_both_charged(tmp_path: Path, models: Models) -> None:
    """A program that tells its cost twice, the second time with the first in it.

    Broken once: with the total of each result added up, the first was charged twice, $0.205650 for $0.105650.
    """
    words = {"command": "python3 -c 'import time; time.sleep(1)'", "description": "x", "run_in_background": True}
    script = models.script(uses("Bash", words, BIG), says("begun", BIG), says("done", CACHED))
    done = run_real(tmp_path, CLAUDE, script, options={"program": shim(tmp_path, CLAUDE, IN_BACKGROUND)})
    assert [one["type"] for one in logged(done)].count("result") == 2
    assert (done.verdict, done.cost_micro, done.basis) == ("ok", cost(BIG, BIG, CACHED), "engine")
    assert done.usage.tokens == 2 * 21_000 + 5_300


def test_lingering_after_its_result(tmp_path: Path, models: Models) -> None:
    words = {"command": SLEEP, "description": "x", "run_in_background": True}
    script = models.script(uses("Bash", words, BIG), says("begun", BIG), says("never asked for"))
    task = {"options": {"program": shim(tmp_path, CLAUDE, IN_BACKGROUND)}, "lingering_s": 1.0}
    done = run_real(tmp_path, CLAUDE, script, **task)
    assert (done.verdict, done.limit) == ("timeout", "lingering")
    assert (done.cost_micro, done.basis) == (cost(BIG, BIG), "engine")
    assert done.duration_s < 20
