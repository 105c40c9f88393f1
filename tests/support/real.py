"""Running the real engine programs against scripted models, the way a firing runs them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from support.engines import FIRING, a_jail, left
from support.models import Script, Seen, Step, anthropic, openai, says, uses
from watchbill import engines, isolation, prices, process
from watchbill.clock import SystemClock
from watchbill.engines import bill, supervise
from watchbill.engines.base import Limits, Result, Session, Task, Tokens
from watchbill.engines.bill import Tariff
from watchbill.engines.supervise import Heard
from watchbill.isolation.base import Isolation

__all__ = [
    "BIG", "DEAF", "FIRING", "KEY", "LOOK", "MODEL", "SLEEP", "STRAY", "a_real_task", "calls", "cost", "earlier",
    "killed", "left", "logged", "once_there", "program", "run_real", "shim", "tariff", "writes"]  # fmt: skip

#: Where npm puts the programs themselves, below `node_modules`; the last one is its script, which needs node.
_PLACES = {
    "claude": ("@anthropic-ai/claude-code-*/claude", ".bin/claude"),
    "codex": ("@openai/codex-*/vendor/*/bin/codex", ".bin/codex"),
}
#: What makes an engine talk to another server.
_ELSEWHERE = {"claude": "ANTHROPIC_BASE_URL", "codex": "OPENAI_BASE_URL"}
KEY = {"claude": anthropic.KEY, "codex": openai.KEY}
MODEL = {"claude": "claude-sonnet-5-5", "codex": "gpt-5.5"}
#: Dollars for a million tokens, as their makers publish them: in, out, from a cache, into a cache; of gpt-5.5 below
#: its long context. The tests' own copy, so that nothing of ours that prices is asked what is right.
_RATES = {"claude": (2.0, 10.0, 0.1, 2.5), "codex": (5.0, 30.0, 0.5, 0.0)}
BIG = Tokens(20_000, 1_000)
SLEEP = "python3 -c 'import time; time.sleep(60)'"  # claude declines a plain `sleep`
DEAF = "python3 -c 'import signal, time; [signal.signal(s, signal.SIG_IGN) for s in (1, 2, 15)]; time.sleep(60)'"
STRAY = "(setsid nohup python3 -c 'import time; time.sleep(300)' >/dev/null 2>&1 &)"
LOOK = "env >own; (cat own /proc/[0-9]*/environ /proc/[0-9]*/cmdline) >seen 2>/dev/null; true"
#: Enough for a program to say what it spent, on a host that is busy with other tests.
_LADDER = (6.0, 4.0)


def program(name: str) -> str | None:
    """The path of a real engine's program: below WATCHBILL_ENGINES (a directory with `node_modules`), else on PATH."""
    if name in _PLACES and (root := os.environ.get("WATCHBILL_ENGINES")):
        for place in _PLACES[name]:
            found = sorted(path for path in Path(root, "node_modules").glob(place) if os.access(path, os.X_OK))
            if found:
                return str(found[0].resolve())
    return shutil.which(name)


def shim(root: Path, name: str, *lines: str) -> str:
    """A program that does these lines of shell, and is the real one from then on."""
    path = root / f"{name}-shim"
    path.write_text("\n".join(["#!/bin/sh", *lines, f'exec "{program(name)}" "$@"', ""]))
    path.chmod(0o755)
    return str(path)


def calls(engine: str, command: str, used: Tokens | None = None, *, timeout_s: float = 60, **more: Any) -> Step:
    """The model wants this shell command run, in the words of the engine's own tool, and waits so long for it."""
    given = {} if used is None else {"used": used}
    if engine == "claude":
        words = {"command": command, "description": "as scripted", "timeout": int(timeout_s * 1000)}
        return uses("Bash", words, **given, **more)
    return uses("exec_command", {"cmd": command, "yield_time_ms": int(timeout_s * 1000)}, **given, **more)


def writes(engine: str, root: Path, name: str, content: str, used: Tokens = BIG) -> Step:
    """The model wants this line in a file of root/work, by the engine's own tool for that."""
    if engine == "claude":
        return uses("Write", {"file_path": str(root / "work" / name), "content": content}, used)
    return uses("apply_patch", f"*** Begin Patch\n*** Add File: {name}\n+{content}\n*** End Patch", used)


def cost(engine: str, *used: Tokens) -> int:
    """Micro-dollars for the engine's usual model."""
    per_in, per_out, read, written = _RATES[engine]
    total = sum(per_in * (t.input - t.cache_read - t.cache_write) + per_out * t.output + read * t.cache_read
                + written * t.cache_write for t in used)  # fmt: skip
    assert total == int(total), "choose figures that make whole micro-dollars"
    return int(total)


def logged(result: Result) -> list[dict[str, Any]]:
    """What the raw log holds."""
    return [json.loads(line) for line in Path(result.log).read_bytes().splitlines() if line.startswith(b"{")]


def once_there(path: Path, reason: str) -> Callable[[Heard], str | None]:
    """A beat that asks to stop as soon as a tool has made a file."""
    return lambda _heard: reason if path.exists() else None


def killed(engine: str) -> Callable[[Seen], Step]:
    """A step at which the engine is killed, some time after it has written what it had by then."""

    def now(_: Seen) -> Step:
        time.sleep(0.5)  # claude writes a tenth of a second late
        for pid in process.find_marked(supervise.MARKER, FIRING):
            if Path(f"/proc/{pid}/comm").read_text().strip() == engine:
                os.kill(pid, signal.SIGKILL)
        return says("into the void")

    return now


def earlier(engine: str, root: Path) -> Session:
    """The conversation of the run before, as the next firing finds it."""
    adapter, home = engines.named(engine), str(root / "home")
    found = adapter.session(home)
    assert found is not None
    return Session(found.id, bill.read_whole(adapter.transcript(home)))


def a_real_task(
    root: Path,
    engine: str,
    script: Script | None,
    *,
    brief: str = "Do what is to be done.",
    firing: str = FIRING,
    key: str | None = "",
    model: str | None = "",
    env: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
    layer: Isolation | None = None,
    tools: tuple[str, ...] = (),
    guidance: str = "",
    session: Session | None = None,
    sandbox: bool = False,
    **limits: Any,
) -> Task:
    """A task for the real program in the git repository root/work. "": the usual key, the usual model. Its script then
    expects the key that it is given.

    `limits`: what differs from `base.Limits`; the engine's own patience with silence counts unless one is given.
    """
    layer = layer or isolation.choose("auto")
    work = root / "work"
    if not work.exists():
        work.mkdir(parents=True)
        subprocess.run(["git", "init", "-q", str(work)], check=True)
    where = {"claude": script.anthropic_url, "codex": script.openai_url} if script else {}
    path = program(engine)
    assert path is not None
    if script is not None and key:
        script.key = key
    return Task(
        firing=firing,
        workdir=str(work),
        brief=brief,
        home=str(root / "home"),
        tmp=str(root / "tmp"),
        log=str(root / "engine.log"),
        model=MODEL[engine] if model == "" else model,
        options={"program": path, **(options or {})},
        env={**({_ELSEWHERE[engine]: where[engine]} if where else {}), **(env or {})},
        limits=Limits(**{"wall_s": 45.0, "silence_s": engines.named(engine).silence_s, **limits}),
        key=KEY[engine] if key == "" else key,
        tools=tools,
        guidance=guidance,
        session=session,
        layer=layer.name,
        sandbox=sandbox,
    )


def run_real(
    root: Path,
    engine: str,
    script: Script | None,
    *,
    beat: Callable[[Heard], str | None] = lambda _heard: None,
    layer: Isolation | None = None,
    ladder: tuple[float, float] = _LADDER,
    request_micro: int = 0,
    **task: Any,
) -> Result:
    """One run under the supervisor, in the strongest layer that works here unless one is named.

    `request_micro`: what a run that is cut short is charged more. The rest is for `a_real_task`.
    """
    layer = layer or isolation.choose("auto")
    made = a_real_task(root, engine, script, layer=layer, **task)
    charges = tariff(made, request_micro)
    adapter, jail = engines.named(engine), a_jail(made, (os.path.expanduser("~"),))
    return supervise.run(adapter, made, layer, jail, SystemClock(), beat, charges, ladder=ladder)


def tariff(task: Task, request_micro: int = 0) -> Tariff:
    """Published prices, and a reservation of the run's cap."""
    most = task.limits.cost_micro
    return Tariff(
        price=lambda model, tokens: prices.price(model, tokens, {}),
        model=task.model,
        request_micro=request_micro,
        reserved_micro=most or 0,
        capped=most is not None,
        unmeasured="charge-reservation",
    )
