"""The credential of an engine: what the operator names, else the engine's own login on this host."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from watchbill import secrets
from watchbill.engines import command
from watchbill.engines.base import Engine
from watchbill.errors import Fixable

#: What a pipe takes at once wherever we run.
MOST_BYTES = 16 << 10


def of(engine: Engine, options: Mapping[str, Any], environ: Mapping[str, str]) -> str | None:
    """None where there is none. Fixable (unauthorized) when one is named, or lies there, and cannot be had."""
    named = options.get("key")
    if named is not None:
        return _sound(str(named), secrets.resolve(str(named), environ))
    for login in engine.logins:
        try:
            found = secrets.resolve(login, environ)
        except secrets.Missing:
            continue
        if not command.as_object(found.encode("utf-8", "replace")):  # and never sent to anybody as it stands
            raise _unfit(login, "that is no login: it is no JSON object", f"log in to {engine.name} anew")
        return _sound(login, found)
    return None


def _sound(reference: str, found: str) -> str:
    """One that a pipe and a header can hold. A login's white space is between its parts."""
    if len(found.encode("utf-8", "replace")) > MOST_BYTES:
        raise _unfit(reference, f"what lies there is longer than {MOST_BYTES} bytes", "name the credential alone")
    if not found.startswith("{") and re.search(r"[\s\x00-\x1f\x7f]", found):
        raise _unfit(reference, "what lies there is more than one word", "leave nothing but the credential there")
    return found


def _unfit(reference: str, what: str, fix: str) -> Fixable:
    return Fixable("WB-SECRET-05", f"{reference}: {what}", fix=fix, outcome="unauthorized")
