"""What an agent may run on: its engine and its fallback, whose quota each draws on, and what one request may cost.

From what was written to values; what is wrong with it `roster_checks` says. Standard library only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from watchbill import engines
from watchbill import roster_values as values
from watchbill.compiled import Fleet, Use

#: Programs that run another: its name says more.
_RUNNERS = re.compile(r"(?:python|node|bun|deno|ruby|perl|php)[0-9.]*|(?:ba|da|z|k)?sh|env|npx|uvx?|pnpm|npm|yarn")


def uses(engine: Mapping[str, Any], model: str | None, fleet: Fleet | None) -> tuple[Use, ...]:
    """The engine of an agent, then its fallback, which has what the fleet says of it and nothing of the agent's map."""
    shared = fleet.engines if fleet else {}
    found = []
    for name, own in ((engine.get("use"), engine), (engine.get("fallback"), {})):
        if name is None:
            continue
        options = {**shared.get(name, {}), **own}
        theirs = options.get("model")
        found.append(
            Use(
                name,
                _account(name, own, shared.get(name, {})),
                (None if model == "inherit" else model) or theirs if own else theirs,
                _valid(values.share_ppm, options.get("max_utilisation")),
                _request_micro(name, options),
            )
        )
    return tuple(found)


def _request_micro(name: str, options: Mapping[str, Any]) -> int | None:
    """What the operator says; else what the engine's module knows, when it is one of ours; else None."""
    said = _valid(values.dollars, options.get("request_usd"))
    return engines.ENGINES[name].headroom_micro if said is None and name in engines.ENGINES else said


def _valid(read: Callable[[object], int], value: object) -> int | None:
    """None for what is not there, or is wrong: `roster_checks` says so."""
    try:
        return None if value is None else read(value)
    except ValueError:
        return None


def _account(name: str, own: Mapping[str, Any], shared: Mapping[str, Any]) -> str:
    """Whose quota it draws on: what one of these hits, all of them have hit. An agent's own word comes first."""
    for options in (own, shared):
        for known in (options.get("account"), options.get("key")):
            if isinstance(known, str) and known:
                return known
    argv = own.get("argv", shared.get("argv"))
    words = [os.path.basename(str(word)) for word in argv] if name == "command" and isinstance(argv, list) else []
    if len(words) > 1 and _RUNNERS.fullmatch(words[0]) and not str(argv[1]).startswith("-"):
        return f"{name}:{words[0]} {words[1]}"
    return f"{name}:{words[0]}" if words else name
