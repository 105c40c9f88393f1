"""The real `codex` program against scripted models: every way a run can go, and what each costs.

Costs are worked out from what the script says was used and the price that OpenAI publishes, not by our code.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import pytest

from support import real
from support.models import Models, fails, openai, refused, says
from support.real import (
    BIG,
    KEY,
    MODEL,
    calls,
    logged,
    run_real,
    shim,
    writes,
)
from watchbill.engines.base import Tokens

pytestmark = [pytest.mark.needs("codex", "bwrap")]

CODEX = "codex"
cost = partial(real.cost, CODEX)
CACHED = Tokens(input=5_000, output=300, cache_read=4_000)
RESERVED = 1_000_000  # micro-dollars, for a run whose cost nobody can say
LATER = 3_600  # seconds from now that a limit ends, where a case has one


def soon() -> int:
    return int(time.time()) + LATER


def test_a_run_that_writes_a_file_and_runs_a_command(tmp_path: Path, models: Models) -> None:
    script = models.script(writes(CODEX, tmp_path, "made", "by the agent"), calls(CODEX, "cat made > copied", CACHED),
                           says("All done.", Tokens(800, 20), reasoning=5))  # fmt: skip
    done = run_real(tmp_path, CODEX, script, cost_micro=1_000_000, turns=10)
    assert (done.verdict, done.limit, done.exit_status, done.stopped_by) == ("ok", None, 0, None)
    assert (tmp_path / "work" / "copied").read_text() == "by the agent\n"
    assert (done.cost_micro, done.basis) == (cost(BIG, CACHED, Tokens(800, 20)), "priced")
    assert (done.usage.input_tokens, done.usage.output_tokens, done.usage.turns) == (25_800, 1_320, 3)
    assert done.message == "All done."
    assert done.isolation == "bwrap"
    assert logged(done)[-1]["type"] == "turn.completed"
    assert script.unused == 0
    assert {seen.credential for seen in script.turns} == {KEY[CODEX]}
    assert {seen.model for seen in script.turns} == {MODEL[CODEX]}
    assert "Do what is to be done." in script.turns[0].text


ENDS = {
    "rate limited once, then served": (
        [refused(429, {"retry-after": "1"}), says("done", BIG)], "ok", cost(BIG), False),
    "rate limited for ever": ([refused(429, {"retry-after": "1"}, times=None)], "rate_limited", 0, False),
    "rate limited, and no word of when to come again": ([refused(429, times=None)], "rate_limited", 0, False),
    "the subscription's window is full": ([lambda _: openai.limit_reached(soon())], "rate_limited", 0, True),
    "the window fills up in the middle of a run": (
        [calls(CODEX, "true", BIG), lambda _: openai.limit_reached(soon())], "rate_limited", cost(BIG), True),
    "the key is refused": ([refused(401, times=None)], "auth", 0, False),
    "the key may not": ([refused(403, times=None)], "auth", 0, False),
    "the key is refused in the middle of a run": (
        [calls(CODEX, "true", BIG), refused(401, times=None)], "auth", cost(BIG), False),
    "out of credit": ([openai.out_of_credit()], "billing", 0, False),
    "payment is required": ([refused(402, times=None)], "billing", 0, False),
    "overloaded once, then served": ([refused(503), says("done", BIG)], "ok", cost(BIG), False),
    "overloaded for ever": (
        [refused(503, times=None, code="server_is_overloaded", message="x")], "overloaded", 0, False),
    "overloaded, as its stream says": (
        [fails(times=None, code="server_is_overloaded", message="x")], "overloaded", 0, False),
    "a server error, then served": ([refused(500), says("done", BIG)], "ok", cost(BIG), False),
    "server errors for ever": ([refused(500, times=None)], "overloaded", 0, False),
    "the prompt is too long": ([openai.too_long()], "context", 0, False),
    "too long in the middle of a run": ([calls(CODEX, "true", BIG), openai.too_long()], "context", cost(BIG), False),
    "a prompt that breaks rules": (
        [fails(code="invalid_prompt", message="Invalid prompt")], "refused", RESERVED, False),
    "an answer that breaks rules": (
        [says("No.", BIG, stop="content_filter", times=None)], "refused", RESERVED, False),
    "a request that makes no sense": ([refused(400, times=None)], "crash", RESERVED, False),
    "a model that is not there": ([refused(404, times=None)], "crash", RESERVED, False),
    "a stream that is cut, then whole": ([says("lost", stream="drops"), says("done", BIG)], "ok", cost(BIG), False),
    "a stream that is always cut": ([says("lost", BIG, stream="drops", times=None)], "crash", RESERVED, False),
}  # fmt: skip


@pytest.mark.parametrize("case", ENDS)
def test_ends(tmp_path: Path, models: Models, case: str) -> None:
    """Each by its verdict, the reset time where the provider named one, and what it cost until then.

    Who is turned away has spent nothing, though the program says no figure then: no reservation is charged. Who ends
    in another way without a figure may have spent something, and is. Broken once: without `unanswered`, a refused key
    cost the reservation; with more tries of its own and without our look at the first refusal, it took all its time.
    """
    steps, verdict, micro, resets = ENDS[case]
    began = time.time()
    done = run_real(tmp_path, CODEX, models.script(*steps), cost_micro=RESERVED)
    assert (done.verdict, done.limit, done.stopped_by) == (verdict, None, None)
    assert done.cost_micro == micro
    assert done.basis == ("reservation" if micro == RESERVED else "priced") or not micro
    assert (done.until is not None and abs(done.until - began - LATER) < 90) if resets else done.until is None
    assert done.duration_s < (5 if verdict == "auth" else 20)
    assert logged(done)


def test_waiting_for_a_limit_that_ends_in_an_hour(tmp_path: Path, models: Models) -> None:
    """It would wait in silence."""
    script = models.script(refused(429, {"retry-after": "3600"}, times=None))
    done = run_real(tmp_path, CODEX, script, silence_s=2.0, cost_micro=1_000_000)
    assert (done.verdict, done.limit, done.cost_micro) == ("rate_limited", "silence", 0)
    assert done.duration_s < 20


def test_the_subscription_says_how_full_its_windows_are(tmp_path: Path, models: Models) -> None:
    reset = soon()
    done = run_real(tmp_path, CODEX, models.script(says("done", BIG, headers=openai.windows(93.0, reset))))
    assert (done.verdict, done.cost_micro, done.until) == ("ok", cost(BIG), None)
    windows = {window.name: (window.used_ppm, window.resets_at) for window in done.windows}
    assert windows["five_hour"] == (930_000, reset)
    assert windows["seven_day"] == (400_000, reset + 86_400)


def test_a_model_that_nobody_knows_is_charged_above_every_price(tmp_path: Path, models: Models) -> None:
    done = run_real(tmp_path, CODEX, models.script(says("done", BIG)), model="gpt-nobody-9")
    assert (done.verdict, done.basis) == ("ok", "ceiling")
    assert done.cost_micro == 20_000 * 200 + 1_000 * 800


def test_many_requests_are_not_charged_as_one_long_one(tmp_path: Path, models: Models) -> None:
    """Beyond 272,000 tokens in, a request costs twice as much; three of 100,000 do not.

    Broken once: without the length of each request beside the sums, they cost $3.0135 for $1.509.
    """
    wide = Tokens(100_000, 100)
    done = run_real(tmp_path, CODEX, models.script(calls(CODEX, "true", wide), calls(CODEX, "true", wide),
                                                   says("done", wide)))  # fmt: skip
    assert (done.verdict, done.cost_micro, done.basis) == ("ok", cost(wide, wide, wide), "priced")


def test_output_of_a_megabyte(tmp_path: Path, models: Models) -> None:
    """It comes in one line."""
    script = models.script(calls(CODEX, "python3 -c 'print(\"x\" * 3_000_000)'", BIG), says("done", BIG))
    done = run_real(tmp_path, CODEX, script)
    assert (done.verdict, done.cost_micro) == ("ok", cost(BIG, BIG))
    assert max(map(len, Path(done.log).read_bytes().splitlines())) > 1_000_000


def test_noise_on_stdout_is_passed_over(tmp_path: Path, models: Models) -> None:
    noisy = shim(tmp_path, CODEX, "echo 'npm warn old'", r"printf '\377\376{\n{\"type\": 7}\n[]\n'")
    done = run_real(tmp_path, CODEX, models.script(says("done", BIG)), options={"program": noisy})
    assert (done.verdict, done.cost_micro, done.basis) == ("ok", cost(BIG), "priced")


def test_a_long_brief_that_begins_like_an_option(tmp_path: Path, models: Models) -> None:
    script = models.script(says("done", BIG))
    done = run_real(tmp_path, CODEX, script, brief="--help me " + "x" * 200_000 + " the end")
    assert done.verdict == "ok"
    assert "--help me xxx" in script.turns[0].text
    assert "xxx the end" in script.turns[0].text
