"""What a run is charged, also when nobody saw it end."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.engines import OUTSIDER, TARIFF
from watchbill.engines import bill, command, scripted
from watchbill.engines.base import Tokens, Usage
from watchbill.engines.bill import Bill, Priced

A_REQUEST = TARIFF._replace(request_micro=1_000, reserved_micro=900_000)


def log(root: Path, *lines: object, end: str = "\n") -> str:
    path = root / "engine.log"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + end)
    return str(path)


def usage(**figures: object) -> dict[str, object]:
    return {"type": "usage", **figures}


def test_a_killed_run_is_billed_by_its_stream_and_one_request_more(tmp_path: Path) -> None:
    path = log(tmp_path, usage(cost_usd=0.2), "noise", usage(input_tokens=50), '{"type": "usage", "cost_us', end="")
    found, heard = bill.of_the_dead(command, path, str(tmp_path), None, A_REQUEST)
    assert found == Bill(200_000 + 50 + 1_000, "stream")
    assert heard.turns == 2


def test_a_killed_run_is_billed_by_its_transcript_when_that_says_more(tmp_path: Path) -> None:
    (tmp_path / "transcript").write_text("300000\n300000\n30")  # killed while it wrote
    path = log(tmp_path, usage(cost_usd=0.2))
    found, heard = bill.of_the_dead(OUTSIDER, path, str(tmp_path), None, A_REQUEST)
    assert found == Bill(600_030 + 1_000, "transcript")
    assert heard.tokens == 600_030


def test_a_transcript_that_makes_no_sense_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "transcript").write_text("30x\n")
    path = log(tmp_path, usage(cost_usd=0.2))
    assert bill.of_the_dead(OUTSIDER, path, str(tmp_path), None, A_REQUEST)[0] == Bill(201_000, "stream")


def test_what_the_ledger_knew_counts_when_the_log_is_gone(tmp_path: Path) -> None:
    found, _ = bill.of_the_dead(command, str(tmp_path / "gone"), str(tmp_path), Bill(70, "engine"), A_REQUEST)
    assert found == Bill(1_070, "stream")


def test_nothing_measured_is_nothing_said(tmp_path: Path) -> None:
    """The caller then charges all that was reserved."""
    assert bill.of_the_dead(command, log(tmp_path, "hello"), str(tmp_path), None, A_REQUEST) == (None, Usage())
    assert bill.of_the_dead(scripted, str(tmp_path / "gone"), str(tmp_path), None, A_REQUEST) == (None, Usage())


def test_one_unknown_model_marks_the_whole(tmp_path: Path) -> None:  # noqa: ARG001
    used = Usage(30, 0, 2, None, (("known", Tokens(10)), ("unknown", Tokens(20))))
    tariff = TARIFF._replace(price=lambda model, tokens: Priced(tokens.input, model == "known"))
    assert bill.so_far(used, tariff) == Bill(30, "ceiling")
    assert bill.so_far(Usage(0, 0, 1, None), tariff) is None


@given(
    cost=st.none() | st.integers(0, 10**12),
    tokens=st.integers(0, 10**9),
    reserved=st.integers(0, 10**12),
    policy=st.sampled_from(["deny", "charge-reservation", "allow-and-alert"]),
    cut_short=st.booleans(),
)
def test_no_run_is_free_because_it_could_not_be_measured(
    cost: int | None, tokens: int, reserved: int, policy: str, cut_short: bool
) -> None:
    """Whatever it said: at least that much; having said nothing, all that was reserved, unless the operator says so."""
    used = Usage(tokens, 0, 1, cost, ((None, Tokens(tokens)),) if tokens else ())
    tariff = TARIFF._replace(reserved_micro=reserved, unmeasured=policy)
    charged = bill.final(command, bill.so_far(used, tariff), tariff, cut_short=cut_short)
    if used.measured:
        assert charged.micro >= (cost or 0) + tokens
    elif policy != "allow-and-alert":
        assert charged.micro == reserved
    else:
        assert charged == Bill(0, "unmeasured")


@pytest.mark.parametrize("wild", ["x" * 300, 7, None, ["a"]])
def test_a_program_that_names_models_without_end_has_sixteen(wild: object) -> None:
    sums: tuple[tuple[str | None, Tokens], ...] = ()
    for n in range(100):
        sums = command.with_tokens(sums, f"m{n}", Tokens(1, 2, 3, 4))
    sums = command.with_tokens(sums, wild, Tokens(1))
    assert len(sums) <= 17
    assert sum(tokens.input for _, tokens in sums) == 101


def test_what_only_files_say_is_believed_up_to_twice_what_was_reserved(tmp_path: Path) -> None:
    """A tool can write into them: one line of it would use up the fleet's month. The engine's own word is its own.

    Broken once: believed as they stand, a killed run with a reservation of $0.90 was charged $12,000.
    """
    (tmp_path / "transcript").write_text("12000000000\n")
    found, _ = bill.of_the_dead(OUTSIDER, str(tmp_path / "no.log"), str(tmp_path), None, A_REQUEST)
    assert found == Bill(2 * 900_000 + 1_000, "transcript")
    written = Usage(200_000, 10, 2, None, ((None, Tokens(200_000, 10)),))
    price = functools.partial(bill.so_far, tariff=TARIFF)
    assert bill.fuller(Usage(cost_micro=5), written, price, working=False).cost_micro == 5
    assert bill.fuller(Usage(cost_micro=5), written, price, working=True) == written


def test_what_was_under_way_may_cost_more_than_all_before_it(tmp_path: Path) -> None:
    """Six requests that came from the cache, and a seventh that has to write all of it anew: a long tool is enough.

    Broken once: twice the average of its requests, $0.088 was charged of the $0.317 that the provider billed.
    """
    tariff = TARIFF._replace(request_micro=500_000, reserved_micro=10**6)
    path = log(tmp_path, *(usage(cost_usd=0.01) for _ in range(6)))
    assert bill.of_the_dead(command, path, str(tmp_path), None, tariff)[0] == Bill(60_000 + 500_000, "stream")
    heard = bill.so_far(bill.replayed(command, path), tariff)
    assert bill.final(command, heard, tariff, cut_short=True) == Bill(60_000 + 500_000, "stream")


def test_what_files_missed_of_the_whole_sum_is_priced_apart() -> None:
    """The stream's last word is one sum of all requests: priced as if it were one, it is a long context's, and dearer.

    Broken once: as soon as files missed a token, the sum took their place; $10.045 of $5.03.
    """

    def dear(_: str | None, tokens: Tokens) -> Priced:
        """Twice as dear for who may have had more than 272,000 tokens in one request."""
        long = (tokens.request or tokens.input) > 272_000
        return Priced(tokens.input * (2 if long else 1), True)

    price = functools.partial(bill.so_far, tariff=TARIFF._replace(price=dear))
    said = Usage(1_000_000, 0, 1, None, ((None, Tokens(1_000_000)),))
    written = Usage(900_000, 0, 9, None, (("m", Tokens(900_000, request=128_000)),))
    used = bill.fuller(said, written, price, working=False)
    assert (price(used), used.tokens) == (Bill(1_000_000, "priced"), 1_000_000)
    assert bill.fuller(written, written, price, working=False) == written
