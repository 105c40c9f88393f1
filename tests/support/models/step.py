"""One answer of a scripted model, in words that both protocols can be written from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from watchbill.engines.base import Tokens

#: What a step uses that does not say.
A_LITTLE = Tokens(input=1000, output=100)


class Call(NamedTuple):
    """A tool that the model wants to have run. `input` as text: a custom tool, which takes no JSON."""

    name: str
    input: Mapping[str, Any] | str


@dataclass(frozen=True)
class Step:
    """One answer."""

    text: str = ""
    calls: tuple[Call, ...] = ()
    used: Tokens = A_LITTLE  # `input` is all of it, cached or not
    reasoning: int = 0  # tokens of `used.output` that nobody sees
    stop: str | None = None  # why it stopped, in the protocol's word; None: as the content has it
    status: int = 200
    error: Mapping[str, Any] = field(default_factory=dict)  # what the error object holds
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0  # before the first byte
    pause_s: float = 0.0  # after each word and each tool of the stream
    #: whole | stalls (begins, and no byte more) | drops (begins, and is cut) | fails (begins, and tells an `error`)
    stream: str = "whole"
    times: int | None = 1  # how many requests in a row get it; None: all that come


def says(text: str, used: Tokens = A_LITTLE, **more: Any) -> Step:
    """Words, and its turn is over."""
    return Step(text=text, used=used, **more)


def uses(name: str, input: Mapping[str, Any] | str, used: Tokens = A_LITTLE, **more: Any) -> Step:
    """One tool."""
    return Step(calls=(Call(name, input),), used=used, **more)


def refused(status: int, headers: Mapping[str, str] | None = None, *, times: int | None = 1, **error: Any) -> Step:
    """An HTTP error; `error`: what its object holds (`type`, `message`, `code`, `resets_at`, ...)."""
    return Step(status=status, headers=headers or {}, times=times, error=error)


def fails(*, times: int | None = 1, **error: Any) -> Step:
    """Status 200, and an error in the stream."""
    return Step(stream="fails", times=times, error=error)
