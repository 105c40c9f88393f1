"""What a run costs: by what the engine said, else by its tokens' prices, else by what was reserved. Never nothing,
because it could not be measured; and every figure says how it came about.

Bases: `engine` (its own figure), `notional` (the same from an engine that draws on a subscription: a list price that
nobody pays, counted all the same, because caps are how an operator rations it), `priced` (tokens by a known price),
`ceiling` (tokens of a model that nobody knows, at a price above all), `stream` and `transcript` (what a run that was
cut short had said so far, or its files say, and one request more), `reservation` (nothing was said: all that was
reserved), `unmeasured` (the same, where the operator allows that, or nothing is capped), `free` (an engine that can
spend nothing).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

from watchbill.compiled import Use
from watchbill.engines.base import Engine, Tokens, Transcript, Usage
from watchbill.engines.stream import Lines

_CHUNK = 1 << 20
#: A thousand million dollars: who says more has said nothing, and sums of it still fit where they are kept.
MOST_MICRO = 10**15
NOTHING = Tokens()
UNUSED = Usage()
#: Looks at one transcript, each bounded: what is longer than all of them is no transcript.
_MOST_LOOKS = 64


class Priced(NamedTuple):
    """What tokens cost."""

    micro: int  # micro-dollars
    known: bool  # False: the model is not, and the ceiling was taken


#: What the tokens of a model cost.
Price = Callable[[str | None, Tokens], Priced]


class Tariff(NamedTuple):
    """By what a run is charged."""

    price: Price
    model: str | None  # of tokens that name none
    request_micro: int  # the most that one request can cost: what may have been under way when a run was cut short
    reserved_micro: int  # what was set aside for the run
    capped: bool  # in any unit
    unmeasured: str  # deny | charge-reservation | allow-and-alert


class Bill(NamedTuple):
    """An amount, and how it came about."""

    micro: int
    basis: str


def request_micro(use: Use | None, engine: Engine) -> int:
    """What one more request can cost beyond a cap: what the operator says, else what the engine's module knows."""
    return engine.headroom_micro if use is None or use.request_micro is None else use.request_micro


def so_far(usage: Usage, tariff: Tariff) -> Bill | None:
    """What was measured; None when nothing was."""
    if not usage.measured:
        return None
    micro, basis = usage.cost_micro or 0, "engine"
    for model, tokens in usage.unpriced:
        priced = tariff.price(model or tariff.model, tokens)
        micro += priced.micro
        basis = "ceiling" if not priced.known or basis == "ceiling" else "priced"
    return Bill(min(micro, MOST_MICRO), basis)


def fuller(said: Usage, written: Usage, price: Callable[[Usage], Bill | None], *, working: bool) -> Usage:
    """Which account of a run counts: what it `said` on its stream, or what it had `written` into its files.

    Who has `working` over said its last word; a figure in dollars in that word is the engine's own and whole account.
    Before that, and when a run is cut short, the dearer of the two: a stream tells late.
    """
    if not written.measured or (said.cost_micro is not None and not working):
        return said
    if not working:  # a last word without dollars is one sum of all requests, whatever model they went to
        return _completed(written, total(said).less(total(written)))
    bills = [found.micro if (found := price(usage)) else 0 for usage in (said, written)]
    return said if (bills[0], said.tokens) > (bills[1], written.tokens) else written


def _completed(written: Usage, rest: Tokens) -> Usage:
    """What files have, and what they missed of the sum."""
    if not (rest.input or rest.output):
        return written
    return written._replace(
        input_tokens=written.input_tokens + rest.input,
        output_tokens=written.output_tokens + rest.output,
        unpriced=(*written.unpriced, (None, rest)),
    )


def believed(charged: Bill, tariff: Tariff) -> Bill:
    """What only files say, which are in the reach of whatever the engine runs: no more than twice what was reserved.

    That is more than a run that is stopped at its cap can have spent; a line that a tool wrote could claim any sum, and
    use up the fleet's month.
    """
    most = 2 * tariff.reserved_micro if tariff.capped and tariff.reserved_micro else charged.micro
    return charged._replace(micro=min(charged.micro, most))


def less(usage: Usage, before: Usage) -> Usage:
    """The usage of a conversation without what it had used `before` this run."""
    known = {(model, tokens.request): tokens for model, tokens in before.unpriced}
    rest = [(model, tokens.less(known.get((model, tokens.request), NOTHING))) for model, tokens in usage.unpriced]
    return usage._replace(
        input_tokens=max(0, usage.input_tokens - before.input_tokens),
        output_tokens=max(0, usage.output_tokens - before.output_tokens),
        turns=max(0, usage.turns - before.turns),
        unpriced=tuple((model, tokens) for model, tokens in rest if tokens.input or tokens.output),
    )


def total(usage: Usage) -> Tokens:
    """All tokens of a usage, whatever their model."""
    return functools.reduce(Tokens.plus, (tokens for _, tokens in usage.unpriced), NOTHING)


def final(
    engine: Engine,
    measured: Bill | None,
    tariff: Tariff,
    *,
    cut_short: bool,
    unseen: int = 0,
    plan: bool = False,
    unanswered: bool = False,
) -> Bill:
    """What a run is charged that we saw end. `unseen`: requests that its files do not tell of. `plan`: it draws on a
    subscription. `unanswered`: it was turned away, and its files, request by request, know of no answer."""
    if measured is None and unanswered:
        return Bill(0, "priced")
    if measured is None:
        if engine.unmetered_basis == "free":
            return Bill(0, "free")
        if tariff.unmeasured == "allow-and-alert" or not tariff.capped:
            return Bill(0, "unmeasured")
        return Bill(tariff.reserved_micro, "reservation")
    if cut_short and tariff.request_micro:
        return Bill(measured.micro + (1 + unseen) * tariff.request_micro, "stream")
    return measured._replace(basis="notional") if plan and measured.basis in ("engine", "priced") else measured


def of_the_dead(
    engine: Engine, log: str, home: str, known: Bill | None, tariff: Tariff, before: Usage = UNUSED
) -> tuple[Bill | None, Usage]:
    """What a run is charged that nobody saw end: by its raw log, by its transcript, by what was last `known`; the
    largest, and one request more. None when nothing was measured. `before`: see Session."""
    heard = replayed(engine, log, before)
    written = _transcript(engine, home, before)
    found = [(bill, "stream")] if (bill := so_far(heard, tariff)) is not None else []
    if written is not None and (bill := so_far(written, tariff)) is not None:
        found.append((believed(bill, tariff), "transcript"))
    if known is not None:
        found.append((known, "stream"))
    usage = max((heard, written or Usage()), key=lambda one: one.tokens)
    if not found:
        return None, usage
    bill, basis = max(found, key=lambda pair: pair[0].micro)
    return Bill(bill.micro + tariff.request_micro, basis), usage


def replayed(engine: Engine, log: str, before: Usage = UNUSED) -> Usage:
    """What a run said, by its raw log; nothing when there is none."""
    usage, lines = Usage(before=total(before)), Lines()
    try:
        with open(log, "rb") as file:
            while chunk := file.read(_CHUNK):
                for line in lines.feed(chunk):
                    usage = _after(engine, line, usage)
            for line in lines.rest():
                usage = _after(engine, line, usage)
    except OSError:
        pass
    return usage


def _after(engine: Engine, line: bytes, usage: Usage) -> Usage:
    event = engine.read(line, usage)
    return event.usage if event is not None and event.usage is not None else usage


def read_whole(transcript: Transcript) -> Usage:
    """All that a transcript says was used. Raises OSError or ValueError where it cannot be read."""
    usage = UNUSED
    for _ in range(_MOST_LOOKS):
        events = transcript.look()
        if not events:
            break
        usage = next((event.usage for event in reversed(events) if event.usage is not None), usage)
    return usage


def _transcript(engine: Engine, home: str, before: Usage) -> Usage | None:
    try:
        written = less(read_whole(engine.transcript(home)), before)
    except (OSError, ValueError):  # half-written, as a killed program leaves it
        return None
    return written if written.measured else None
