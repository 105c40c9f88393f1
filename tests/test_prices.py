"""What tokens cost: against figures of the programs that were billed by them, and never too little."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import genai_prices
import pytest
from genai_prices.data import providers
from genai_prices.types import ModelPrice, TieredPrices
from hypothesis import given, settings
from hypothesis import strategies as st

from support.fleet import agent, write_agent
from watchbill import prices
from watchbill.compiled import Price
from watchbill.engines.base import Tokens
from watchbill.engines.bill import Priced
from watchbill.roster import read_roster
from watchbill.roster_errors import RosterErrors

MILLION = 1_000_000
OURS = Price(input=3 * MILLION, output=10 * MILLION, cache_read=MILLION, cache_write=4 * MILLION)


def test_a_long_run_of_short_requests_is_not_charged_as_one_long_request() -> None:
    """gpt-5.5 costs twice as much from 272,000 tokens of context on. Broken once: with the sum priced as one request,
    a run of forty requests of 20,000 tokens cost twice what it was billed."""
    one = prices.price("gpt-5.5", Tokens(20_000, 500, 15_000), {}).micro
    forty = Tokens(800_000, 20_000, 600_000)
    assert prices.price("gpt-5.5", forty._replace(request=128_000), {}) == Priced(40 * one, True)
    assert prices.price("gpt-5.5", forty, {}).micro > 1.5 * 40 * one
    long = prices.price("gpt-5.5", Tokens(300_000, 500, 0), {}).micro
    assert prices.price("gpt-5.5", Tokens(600_000, 1000, 0, 0, 10_000_000), {}).micro == 2 * long


@given(
    st.integers(1, 10**7),
    st.integers(0, 10**5),
    st.floats(0, 1),
    st.sampled_from([20_000, 128_000, 272_000, 10**7]),
)
def test_requests_apart_cost_what_they_cost_together_where_no_length_is_dearer(
    input: int, output: int, cached: float, request: int
) -> None:
    tokens = Tokens(input, output, int(input * cached), 0)
    together, apart = (prices.price("claude-sonnet-5-5", one, {}).micro for one in (tokens, tokens._replace(
        request=request)))  # fmt: skip
    assert together <= apart <= together + max(10, together // 100)


@pytest.mark.parametrize(
    ("model", "tokens", "dollars"),
    [
        # Claude Code 2.1.329 on a run of three requests: "total_cost_usd": 0.0179, "costBasis": "list"
        ("claude-sonnet-5-5", Tokens(1290 + 12200 + 5000, 160, 12200, 5000), 0.0179),
        # Codex 0.169.0 on a run of two: its token counts at OpenAI's list price, $5 in, $0.50 cached, $30 out a million
        ("gpt-5.5", Tokens(4500, 190, 2500, 0), 0.01695),
    ],
)
def test_what_real_engines_were_billed(model: str, tokens: Tokens, dollars: float) -> None:
    assert prices.price(model, tokens, {}) == Priced(round(dollars * MILLION), True)


@pytest.mark.parametrize(
    ("model", "dollars"),
    [
        ("claude-opus-5-5", (4, 20, 0.2, 5)),
        ("claude-sonnet-5-5", (2, 10, 0.1, 2.5)),
        ("claude-haiku-5-5", (0.1, 0.5, 0.01, 0.125)),
        ("claude-fable-5-2", (8, 40, 0.2, 10)),
    ],
)
def test_what_claude_code_charges_for_its_models(model: str, dollars: tuple[float, ...]) -> None:
    """Dollars a million tokens in, out, read from the cache and written to it; probed with 100,000 tokens of each."""
    many = 100_000
    for tokens, rate in zip(
        (Tokens(many), Tokens(0, many), Tokens(many, 0, many), Tokens(many, 0, 0, many)), dollars, strict=True
    ):
        assert prices.price(model, tokens, {}) == Priced(round(rate * many), True)


def test_a_long_context_is_dearer() -> None:
    short, long = (prices.price("gpt-5.5", Tokens(input=count), {}).micro for count in (200_000, 300_000))
    assert (short, long) == (MILLION, 3 * MILLION)


@pytest.mark.parametrize(
    ("model", "micro"),
    [
        ("gpt-5.5", 7),
        ("gpt-5.5-2026-04-01", 7),
        ("gpt-5.5-20260401", 7),
        ("gpt-5.5:free", 7),
        ("gpt-5", 9),
        ("gpt-5-no-such-thing", prices.CEILING.input // MILLION),
        ("gpt", prices.CEILING.input // MILLION),
    ],
)
def test_the_operators_own_price_comes_first(model: str, micro: int) -> None:
    """The name, or the name with a date or a tag. Broken once: whatever begins so; o1-pro at a tenth of its price."""
    table = {name: OURS._replace(input=n * MILLION) for name, n in {"gpt-5.5": 7, "gpt-5": 9}.items()}
    assert prices.price(model, Tokens(input=1), table).micro == micro


def test_every_kind_of_token_at_its_price() -> None:
    assert prices.price("ours", Tokens(100, 10, 20, 30), {"ours": OURS}) == Priced(50 * 3 + 10 * 10 + 20 + 30 * 4, True)


@pytest.mark.parametrize(
    "model", [None, "", "sonnet", "nobody/knows-this", "\0", "x" * 100_000, "*", "whisper-1", "text-embedding-3-small"]
)
def test_a_model_that_nobody_knows(model: str | None) -> None:
    """By the operator's `*`, else dearer than any; and marked."""
    tokens = Tokens(1000, 100, 200, 300)
    assert prices.price(model, tokens, {}) == Priced(500 * 200 + 100 * 800 + 200 * 50 + 300 * 200, False)
    assert prices.price(model, tokens, {"*": OURS}) == Priced(500 * 3 + 100 * 10 + 200 + 300 * 4, False)


@pytest.mark.parametrize("model", ["anthropic/claude-sonnet-4.5", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"])
def test_a_name_that_only_resellers_know(model: str) -> None:
    """It is known, and charged as the dearest of them would."""
    found = prices.price(model, Tokens(1000, 10), {})
    assert found.known
    assert found.micro >= prices.price("claude-sonnet-4-5", Tokens(1000, 10), {}).micro


COUNT = st.integers(-5, 10**9)


@settings(max_examples=60, deadline=None)
@given(
    model=st.none()
    | st.text(max_size=30)
    | st.sampled_from(["claude-opus-5-5", "gpt-5.5", "o1-pro", "ours", "ours-2"]),
    tokens=st.builds(Tokens, COUNT, COUNT, COUNT, COUNT),
    table=st.sampled_from([{}, {"ours": OURS}, {"*": OURS, "ours": Price(0, 0, 0, 0)}]),
)
def test_tokens_never_cost_nothing(model: str | None, tokens: Tokens, table: dict[str, Price]) -> None:
    """Broken on purpose: rounded down, and without `max(1, ...)`, a token at the operator's price of nothing cost 0."""
    found = prices.price(model, tokens, table)
    assert (found.micro > 0) == any(count > 0 for count in tokens[:4])
    more = prices.price(model, tokens._replace(output=max(tokens.output, 0) + 1), table)
    assert more.micro >= found.micro


def rates() -> dict[str, float]:
    """The dearest of genai-prices for each kind of token of text, dollars a million; with every tier and variant."""
    dearest = dict.fromkeys(("input", "output", "cache_read", "cache_write", "cache_write_1h"), 0.0)
    for model in (model for provider in providers for model in provider.models):
        listed = model.prices if isinstance(model.prices, list) else [model.prices]
        sheets = [one if isinstance(one, ModelPrice) else one.prices for one in listed]
        sheets += [variant.prices for variant in model.price_variants or ()]
        for kind in dearest:
            for rate in (getattr(sheet, f"{kind}_mtok") for sheet in sheets):
                steps = [rate.base, *(tier.price for tier in rate.tiers)] if isinstance(rate, TieredPrices) else [rate]
                dearest[kind] = max(dearest[kind], *(float(step or 0) for step in steps))
    return dearest


def test_the_ceiling_is_above_every_price() -> None:
    """Today: 150, 600, 37.50, 50 and 30 dollars a million.

    Broken on purpose: with 500 dollars for output, this failed at the 600 of o1-pro.
    """
    ceiling, dearest = prices.CEILING, rates()
    assert dearest["input"] > 0
    dearest["cache_write"] = max(dearest["cache_write"], dearest.pop("cache_write_1h"))
    for kind, dollars in dearest.items():
        assert getattr(ceiling, kind) > dollars * MILLION, f"{kind}: genai-prices has a dearer one now: raise CEILING"


def test_nobody_is_asked_over_the_network() -> None:
    """And genai-prices is not loaded before something has to be priced by it. `only_loopback` guards every test."""
    assert not genai_prices.data_snapshot.get_snapshot().from_auto_update
    code = (
        "import json, sys; from watchbill import prices; from watchbill.engines.base import Tokens\n"
        "from watchbill.compiled import Price\n"
        "prices.price('ours', Tokens(1, 1), {'ours': Price(1, 1, 1, 1)}); before = 'genai_prices' in sys.modules\n"
        "import socket; socket.socket.connect = None; socket.getaddrinfo = None\n"
        "prices.price('gpt-5.5', Tokens(1, 1), {}); print(json.dumps([before, 'genai_prices' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [False, True]


def test_rounding_is_upwards() -> None:
    assert prices.price("x", Tokens(1, 7), {"x": Price(200_000, 10 * MILLION, 0, 0)}).micro == 71  # of 70.2


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('[prices."gpt"]\ninput = 1\n', "prices.gpt.output: is missing"),
        ('[prices."gpt"]\ninput = -1\noutput = 2\n', "prices.gpt.input: "),
        ('[prices."gpt"]\ninput = "dear"\noutput = 2\n', "prices.gpt.input: "),
        ('[prices."gpt"]\ninput = true\noutput = 2\n', "prices.gpt.input: "),
        ('[prices."gpt"]\ninput = nan\noutput = 2\n', "prices.gpt.input: "),
        ('[prices."gpt"]\ninput = 1\noutput = 2\ncache_reed = 1\n', "unknown key (did you mean 'cache_read'?)"),
        ("[prices]\ninput = 1\n", "prices.input: "),
    ],
)
def test_a_mistake_in_the_operators_table(tmp_path: Path, table: str, said: str) -> None:
    (tmp_path / "agents").mkdir()
    (tmp_path / "fleet.toml").write_text(f'[fleet]\nrepos = ["acme/api"]\n{table}')
    with pytest.raises(RosterErrors) as found:
        read_roster(str(tmp_path))
    assert any(said in problem and problem.startswith("fleet.toml:") for problem in found.value.problems)


def test_the_operators_table_as_it_is_written(tmp_path: Path) -> None:
    """Dollars for a million tokens; cached ones are as dear as others unless it says otherwise; nothing is a price."""
    (tmp_path / "agents").mkdir()
    write_agent(tmp_path, "bosun", agent())
    (tmp_path / "fleet.toml").write_text(
        '[fleet]\nrepos = ["acme/api"]\n[prices."gpt-5.5"]\ninput = 2.5\noutput = 10\ncache_read = 0.25\n'
        '[prices."*"]\ninput = 0\noutput = 0\n'
    )
    assert read_roster(str(tmp_path)).fleet.prices == {
        "gpt-5.5": Price(2_500_000, 10_000_000, 250_000, 2_500_000), "*": Price(0, 0, 0, 0),
    }  # fmt: skip


def test_a_name_that_nobody_knows_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """To ask every provider takes a millisecond, and a run asks often: its beats came too late.

    Broken once: asked anew each time; as many questions again.
    """
    monkeypatch.setattr(prices, "_nobodys", set())
    asked: list[object] = []
    real = genai_prices.calc_price

    def counted(*args: Any, **more: Any) -> Any:
        asked.append(args)
        return real(*args, **more)

    monkeypatch.setattr(genai_prices, "calc_price", counted)
    first = prices.price("nobody-sells-this", Tokens(1, 1), {})
    before = len(asked)
    assert before > len(providers)
    assert prices.price("nobody-sells-this", Tokens(2, 1), {}).micro > first.micro
    assert len(asked) <= before + 1
