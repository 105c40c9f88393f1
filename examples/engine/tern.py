"""An engine of one's own: the adapter for `tern`, a program that does not exist. Copy it, and put yours in its place.

tern reads its task from stdin, its key from the file descriptor that TERN_KEY_FD names, and prints a JSON object a
line:

    {"event": "step", "model": "tern-2", "input": 1200, "output": 80, "usd": 0.004}
    {"event": "say", "text": "Renamed the flag."}
    {"event": "refused", "status": 429, "retry_at": 1795247361}
    {"event": "end", "ok": true}

Every step counts by itself. It keeps nothing on disk, so nothing can be gone on with. A fleet finds this file when its
folder is on PYTHONPATH, and uses it as `engine: {use: examples.engine.tern}`: the name is its dotted path.
"""

from __future__ import annotations

from typing import Any

from watchbill.engines.base import Conversation, Event, Launch, Program, Silent, Task, Tokens, Transcript, Usage
from watchbill.engines.command import as_bytes, as_object, find_program, number, with_tokens
from watchbill.errors import Fixable

name = "examples.engine.tern"
has_budget = False
#: 200,000 tokens in at $2 a million and 16,000 out at $10: the dearest request that its model takes.
headroom_micro = 560_000
unmetered_basis = "ceiling"
silence_s: float | None = 600.0
logins: tuple[str, ...] = ()
guides: tuple[str, ...] = ("AGENTS.md",)
variables: tuple[str, ...] = ("TERN_KEY",)
endpoint: str | None = None

_TROUBLE = {401: "auth", 402: "billing", 429: "rate_limited", 529: "overloaded"}
_MOST_TOKENS, _MOST_EPOCH, _MOST_USD = 10**10, 10**11, 10**5


def launch(task: Task) -> Launch:
    """Its key goes through a pipe, because its tools see its environment; nothing on argv, which everybody sees."""
    if not (task.key or "").strip():
        raise Fixable(
            "WB-TERN-01",
            "engine tern: there is no key",
            why="nothing names one",
            fix='[engines."examples.engine.tern"] key = "file:~/.config/tern/key"',
            outcome="unauthorized",
        )
    words = [_program(task), "--json", "--no-project-config"]
    words += ["--model", task.model] if task.model else []
    brief = f"{task.guidance}\n\n{task.brief}" if task.guidance else task.brief
    given = as_bytes(brief)
    return Launch(tuple(words), {}, given, pipes={"TERN_KEY_FD": str(task.key).encode()}, sealed=True)


def program(task: Task) -> Program | None:
    return Program(_program(task), ("--version",), (2, 0), (3,))


def read(line: bytes, so_far: Usage) -> Event | None:
    said = as_object(line)
    match said.get("event"):
        case "step":
            return Event("usage", usage=_added(so_far, said))
        case "say":
            text = said.get("text")
            return Event("message", text=text) if isinstance(text, str) else None
        case "refused":
            status, until = said.get("status"), number(said.get("retry_at"), _MOST_EPOCH)
            trouble = _TROUBLE.get(status) if isinstance(status, int) else None
            return None if trouble is None else Event(trouble, until=None if until is None else int(until))
        case "end":
            return Event("final", ok=said.get("ok") is True)
    return None


def succeeded(exit_status: int, final: Event | None) -> bool:
    return exit_status == 0 and final is not None and final.ok is True


def transcript(home: str) -> Transcript:  # noqa: ARG001 - it keeps none
    return Silent()


def session(home: str) -> Conversation | None:  # noqa: ARG001
    return None


def _program(task: Task) -> str:
    return find_program(str(task.options.get("program") or "tern"), task)


def _added(so_far: Usage, said: dict[str, Any]) -> Usage:
    """One step more. Dollars that it does not tell are left to the prices of its tokens."""
    step = Tokens(*(int(number(said.get(which), _MOST_TOKENS) or 0) for which in ("input", "output")))
    usd = number(said.get("usd"), _MOST_USD)
    return so_far._replace(
        input_tokens=so_far.input_tokens + step.input,
        output_tokens=so_far.output_tokens + step.output,
        turns=so_far.turns + 1,
        cost_micro=so_far.cost_micro if usd is None else (so_far.cost_micro or 0) + round(usd * 1_000_000),
        unpriced=with_tokens(so_far.unpriced, said.get("model"), step) if usd is None else so_far.unpriced,
    )
