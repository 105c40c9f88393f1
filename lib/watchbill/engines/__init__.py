"""The engines by the name that an agent's `engine: {use: NAME}` gives."""

from __future__ import annotations

import importlib

from watchbill.engines import claude, codex, command, scripted
from watchbill.engines.base import Engine
from watchbill.errors import Fixable

ENGINES: dict[str, Engine] = {"claude": claude, "codex": codex, "command": command, "scripted": scripted}

_MEMBERS = (
    "name", "has_budget", "headroom_micro", "unmetered_basis", "silence_s", "logins", "guides", "variables", "endpoint",
    "launch", "program", "transcript", "session", "read", "succeeded")  # fmt: skip


def named(name: str) -> Engine:
    """The engine of this name; with a dot in it, somebody else's module (`acme.engines.aider`).

    Fixable WB-ENGINE-02 when there is none.
    """
    if name in ENGINES:
        return ENGINES[name]
    known = ", ".join(sorted(ENGINES))
    fix = f"engine: {{use: ...}} is one of {known}, or the dotted path of a module of yours"
    if "." not in name:
        raise Fixable("WB-ENGINE-02", f"there is no engine {name!r}", fix=fix)
    try:
        module: Engine = importlib.import_module(name)
    except ImportError as error:
        raise Fixable("WB-ENGINE-02", f"engine {name!r} cannot be imported", why=str(error), fix=fix) from None
    missing = [member for member in _MEMBERS if not hasattr(module, member)]
    if missing:
        raise Fixable("WB-ENGINE-02", f"{name} is no engine", why=f"it lacks {', '.join(missing)}",
                      fix="see watchbill.engines.base.Engine for what an engine has")  # fmt: skip
    return module
