"""What tokens cost: by the operator's own table, else by genai-prices' data, else by a ceiling above every price.

Too dear is safe and too cheap is not: everything is rounded up, tokens never cost nothing, and a model that nobody
knows costs more than any that somebody does. The sole importer of genai-prices, and only when something has to be
priced: it takes 0.2 s. Its updates over the network are never asked for; newer prices come with a newer package, or
from the operator's `[prices]`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import ROUND_CEILING, Decimal
from typing import Any

from watchbill.compiled import Price
from watchbill.engines.base import Tokens
from watchbill.engines.bill import Priced

_MICRO = 1_000_000
#: Above the dearest text model of genai-prices 0.2.3: o1-pro, $150 for a million tokens in and $600 for a million out;
#: a cached token $37.50 at most (gpt-4.5-preview), one written to a cache $50 (gpt-6-astra, fast). Micro-dollars.
CEILING = Price(input=200 * _MICRO, output=800 * _MICRO, cache_read=50 * _MICRO, cache_write=200 * _MICRO)
#: The entry of the operator's table for models that nobody knows.
_OTHERS = "*"
_LONGEST_NAME = 200
#: Names that nobody sells a model by: to ask every provider takes a millisecond, and a run asks often.
_nobodys: set[str] = set()
_MOST_NOBODYS = 100
#: What may stand behind a model's name and make it no other model: a date or a tag.
_VERSION = re.compile(r"|[-@](?:\d{6,8}|\d{4}-\d\d-\d\d|latest|preview)|[:@].*")


def price(model: str | None, tokens: Tokens, table: Mapping[str, Price]) -> Priced:
    """What these tokens of a model cost; `known` is False where a price for any model had to do. Never raises.

    Sums over several requests are charged as one, unless it is known how long the longest of them was: where a model
    is dearer from some length of its context on, that is at least what they cost.
    """
    sound = _sound(tokens)
    if not (sound.input or sound.output):
        return Priced(0, True)
    own = _own(model, table)
    if own is not None:
        return Priced(_at(own, sound), True)
    published = _of_requests(model, sound) if model and len(model) <= _LONGEST_NAME else None
    if published is not None:
        return Priced(_rounded(published), True)
    return Priced(_at(table.get(_OTHERS, CEILING), sound), False)


def _sound(tokens: Tokens) -> Tokens:
    """Nothing below zero, and no more of it cached than there is: what an engine says is not always so."""
    given = Tokens(*(max(0, count) for count in tokens))
    return given._replace(input=max(given.input, given.cache_read + given.cache_write))


def _own(model: str | None, table: Mapping[str, Price]) -> Price | None:
    """The operator's entry: the name itself, or the name with a date or a tag behind it.

    Not whatever begins so: `o1-pro` is no `o1`, and ten times as dear.
    """
    dated = [name for name in table if name != _OTHERS and _VERSION.fullmatch((model or "").removeprefix(name))
             and (model or "").startswith(name)]  # fmt: skip
    return table[max(dated, key=len)] if dated else None


def _at(rates: Price, tokens: Tokens) -> int:
    plain = tokens.input - tokens.cache_read - tokens.cache_write
    millionths = (
        plain * rates.input
        + tokens.output * rates.output
        + tokens.cache_read * rates.cache_read
        + tokens.cache_write * rates.cache_write
    )
    return max(1, -(-millionths // _MICRO))


def _rounded(dollars: Decimal) -> int:
    return max(1, int((dollars * _MICRO).to_integral_value(ROUND_CEILING)))


def _of_requests(model: str, tokens: Tokens) -> Decimal | None:
    """As many requests as there must have been at least, of one length, none longer than the longest."""
    parts = -(-tokens.input // tokens.request) if tokens.request else 1
    if parts <= 1:
        return _published(model, tokens)
    if tokens.input - tokens.input // parts * (parts - 1) > tokens.request:  # what does not divide, on the last of them
        parts += 1
    each = Tokens(*(count // parts for count in tokens[:4]))
    last = _sound(Tokens(*(count - part * (parts - 1) for count, part in zip(tokens[:4], each[:4], strict=True))))
    found = (_published(model, each), _published(model, last))
    return None if found[0] is None or found[1] is None else found[0] * (parts - 1) + found[1]


def _published(model: str, tokens: Tokens) -> Decimal | None:
    """In dollars, by genai-prices: as the model's maker sells it, else as the dearest of those who sell it."""
    import genai_prices
    from genai_prices.data import providers

    usage = genai_prices.Usage(
        input_tokens=tokens.input,
        output_tokens=tokens.output,
        cache_read_tokens=tokens.cache_read,
        cache_write_tokens=tokens.cache_write,
    )
    makers = _calculated(genai_prices.calc_price, usage, model, None)
    if makers is not None:
        return makers
    if model in _nobodys:
        return None
    sold = [_calculated(genai_prices.calc_price, usage, model, provider.id) for provider in providers]
    dearest = max((dollars for dollars in sold if dollars is not None), default=None)
    if dearest is None and len(_nobodys) < _MOST_NOBODYS:
        _nobodys.add(model)
    return dearest


def _calculated(calculate: Callable[..., Any], usage: Any, model: str, provider: str | None) -> Decimal | None:
    """None where the model is not known, or no price of its text is: one for speech, say."""
    try:
        found = calculate(usage, model, provider_id=provider)
    except (LookupError, ValueError):
        return None
    rates = found.model_price
    if (usage.input_tokens and rates.input_mtok is None) or (usage.output_tokens and rates.output_mtok is None):
        return None
    return Decimal(found.total_price)
