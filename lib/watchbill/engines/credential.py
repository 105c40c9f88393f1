"""The credential of an engine: what the operator names, else the engine's own login on this host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from watchbill import secrets
from watchbill.engines.base import Engine


def of(engine: Engine, options: Mapping[str, Any], environ: Mapping[str, str]) -> str | None:
    """None where there is none. Fixable (unauthorized) when one is named, or lies there, and cannot be had."""
    named = options.get("key")
    if named is not None:
        return secrets.resolve(str(named), environ)
    for login in engine.logins:
        try:
            return secrets.resolve(login, environ)
        except secrets.Missing:
            continue
    return None
