"""Running engines in tests: three adapters that run the same Python text, and a look at what is left of a firing.

What goes through all adapters is in `support.dialects`; here a program speaks the protocol of `command`, which
`scripted` and the outsider understand as well.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from watchbill import engines, process
from watchbill.clock import SystemClock
from watchbill.engines import command, supervise
from watchbill.engines.base import (
    Conversation,
    Engine,
    Event,
    Launch,
    Limits,
    Program,
    Result,
    Task,
    Tokens,
    Transcript,
    Usage,
)
from watchbill.engines.bill import Priced, Tariff
from watchbill.engines.supervise import Heard
from watchbill.isolation import none
from watchbill.isolation.base import Isolation, Jail

#: Of this test run alone: another one may be going on beside it.
FIRING = os.environ.get("FIRING_OF_THE_TEST", f"test-{os.getpid()}")
SHORT = (0.25, 0.25)

#: At the top of every program: `say` prints one JSON line.
PRELUDE = """
import json, os, signal, sys, time
def say(type, **more):
    print(json.dumps({"type": type, **more}), flush=True)
"""


class Counts:
    """Token counts, a line each request, in an engine's HOME."""

    def __init__(self, home: str) -> None:
        self._path = os.path.join(home, "transcript")
        self._known = -1

    def look(self) -> tuple[Event, ...]:
        try:
            with open(self._path, encoding="ascii") as file:
                counts = [int(line) for line in file.read().split()]
        except FileNotFoundError:
            return ()
        if self._known == (known := len(counts)):
            return ()
        self._known = known
        tokens = Tokens(input=sum(counts))
        return (Event("usage", Usage(sum(counts), 0, len(counts), None, ((None, tokens),))),)


class Outsider:
    """An adapter of somebody else's: it has a final event and says why it failed."""

    name = "outsider"
    has_budget = False
    headroom_micro = 0
    unmetered_basis = "ceiling"
    silence_s = None
    logins = ()
    guides = ()
    variables = ()
    endpoint = None

    def launch(self, task: Task) -> Launch:
        return Launch(tuple(task.options["argv"]), {"OUTSIDER": "1"}, task.brief.encode())

    def read(self, line: bytes, so_far: Usage) -> Event | None:
        said = command.as_object(line)
        if said.get("type") == "final":
            return Event("final", ok=said.get("ok"), text="done")
        if said.get("type") in ("auth", "billing", "context"):
            return Event(said["type"])
        return command.read(line, so_far)

    def program(self, task: Task) -> Program | None:  # noqa: ARG002
        return None

    def session(self, home: str) -> Conversation | None:
        return Conversation("the-talk", "transcript") if os.path.exists(os.path.join(home, "transcript")) else None

    def transcript(self, home: str) -> Transcript:
        return Counts(home)

    def succeeded(self, exit_status: int, final: Event | None) -> bool:
        return exit_status == 0 and final is not None and final.ok is True


OUTSIDER = Outsider()


def options(adapter: str, file: Path) -> dict[str, Any]:
    """What makes an adapter run a Python file."""
    argv = [sys.executable, "-I", "-S", str(file)]
    if adapter == "scripted":
        return {"steps": [{"run": "exec " + " ".join(argv)}]}
    return {"argv": argv}


def a_task(root: Path, adapter: str, text: str, brief: str = "the brief", **limits: Any) -> Task:
    """A task whose engine runs this Python text, in a worktree below `root`."""
    work = root / "work"
    work.mkdir(exist_ok=True)
    file = work / "engine.py"
    file.write_text(PRELUDE + text)
    return Task(
        firing=FIRING, workdir=str(work), brief=brief, home=str(root / "home"), tmp=str(root / "tmp"),
        log=str(root / "engine.log"), model=None, options=options(adapter, file), env={},
        limits=Limits(**{"wall_s": 20.0, **limits}))  # fmt: skip


#: Every token is a millionth of a dollar, whatever the model.
TARIFF = Tariff(
    price=lambda _model, tokens: Priced(tokens.input + tokens.output, True),
    model="a-model",
    request_micro=0,
    reserved_micro=0,
    capped=True,
    unmeasured="charge-reservation",
)


def a_jail(task: Task, hidden: tuple[str, ...] = ()) -> Jail:
    return Jail(task.workdir, (task.workdir, task.home, task.tmp), (), hidden)


def run(
    task: Task,
    adapter: str,
    *,
    isolation: Isolation = none,
    beat: Callable[[], str | None] = lambda: None,
    listen: Callable[[Heard], None] = lambda _heard: None,
    ladder: tuple[float, float] = SHORT,
    engine: Engine | None = None,
    **tariff: Any,
) -> Result:
    """`listen` is told what each beat is told; `tariff`: what differs from TARIFF."""

    def asked(heard: Heard) -> str | None:
        listen(heard)
        return beat()

    most = task.limits.cost_micro
    charged = TARIFF._replace(**{"reserved_micro": most or 0, "capped": most is not None, **tariff})
    engine = engine or engines.ENGINES.get(adapter, OUTSIDER)
    return supervise.run(engine, task, isolation, a_jail(task), SystemClock(), asked, charged, ladder=ladder)


def left(firing: str = FIRING) -> list[int]:
    """What still carries the marker of the firing."""
    return process.find_marked(supervise.MARKER, firing)


def wait_for(what: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Until it is true; the test fails when it never is."""
    until = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)
    return value


def lines(path: str) -> list[Any]:
    """The JSON lines of a log."""
    return [json.loads(line) for line in Path(path).read_text().splitlines() if line.startswith("{")]
