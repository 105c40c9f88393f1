"""What a gate is asked about: an agent and a snapshot, made by hand; nothing is read."""

from __future__ import annotations

import itertools
from typing import Any

from watchbill.compiled import Agent, Cap, Host, Use
from watchbill.fitness import Condition
from watchbill.gates.snapshot import Snapshot
from watchbill.ledger.holds import Hold

NOW = 1_000_000
ME = "h1"
_ids = itertools.count(1)

CLAUDE = Use("claude", "team", "sonnet", None, None)
CODEX = Use("codex", "other", None, None, None)


def an_agent(name: str = "bosun", *uses: Use, **more: Any) -> Agent:
    """`uses`: claude when there is none; a role that runs no engine: role="sweep"."""
    role = more.pop("role", "implement")
    used = () if role == "sweep" else uses or (CLAUDE,)
    engine = {"use": used[0].engine} if used else {}
    fields: dict[str, Any] = {
        "name": name, "description": "", "role": role, "schedule": "manual", "slots": (), "engine": engine,
        "uses": used, "model": None, "tools": (), "timeout_s": 60, "caps": (Cap("firing", "usd", 1_000_000),),
        "isolation": "none", "takes": "x",
        "repos": ("acme/api", "acme/web"), "prompt": "", "extra": {}, **more,
    }  # fmt: skip
    return Agent(**fields)


def a_hold(scope: str = "fleet", subject: str = "", kind: str = "pause", **more: Any) -> Hold:
    fields: dict[str, Any] = {
        "id": next(_ids), "scope": scope, "subject": subject, "kind": kind, "reason": "because", "author": "octocat",
        "since": NOW - 10, "until": None, **more,
    }  # fmt: skip
    return Hold(**fields)


def a_limit(until: int, **more: Any) -> Hold:
    """One that heals."""
    return a_hold("account", "team", "rate_limit", until=until, heals=1, author="firing f1", **more)


def seen(*holds: Hold, now: int = NOW, **more: Any) -> Snapshot:
    fields: dict[str, Any] = {
        "now": now, "host": ME, "timezone": "UTC", "holds": holds, "lock_held": False, "live": None, "caps": (),
        "windows": (), "limits": Host(), "condition": Condition(), **more,
    }  # fmt: skip
    return Snapshot(**fields)
