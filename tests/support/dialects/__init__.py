"""How the contract's suite speaks with each adapter: its programs are the same, the words they say it in are not.

A program of the suite is Python text that uses these verbs; a dialect defines them in the words of the adapter's real
program, on stdout or in files below its HOME:

    said(text)                        a message of the agent
    used(input, output, usd=None)     a request was answered; without `usd` it cost a micro-dollar a token, as in TARIFF
    window(utilization, resets_at)    how full the account's window `five_hour` is
    turned_away(kind)                 the provider refused a request, and it tries again
    limited(until)                    the provider said when it may be tried again, UTC epoch seconds
    gave_up(kind)                     its last word: it failed, for this reason; the program says its exit status itself
    done()                            its last word: it has finished
    interrupted()                     its last word when SIGINT has ended it
    END                               what ends a line on stdout

An adapter from outside this repository is put through the suite by WATCHBILL_DIALECTS, dotted paths of modules that
each have a DIALECT.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.engines import FIRING, run
from watchbill import engines
from watchbill.engines.base import Engine, Limits, Result, Task


@dataclass(frozen=True)
class Dialect:
    """An adapter, its verbs, and what it can tell and cannot: that decides what is asserted."""

    engine: Engine
    verbs: str
    #: the options that make it run an executable file
    runs: Callable[[Path], dict[str, Any]]
    #: options with which there is nothing to run
    missing: Mapping[str, Any]
    #: a credential that it takes; None: it needs none
    key: str | None = None
    #: it says itself what its requests cost: as it goes or, at the latest, in its last word
    dollars: bool = False
    #: it says that it has finished; without that word, zero is no success
    finishes: bool = True
    #: interrupted, it says what all of it cost, and that nothing more is under way
    accounts: bool = False
    #: it keeps a conversation that it can go on with
    resumes: bool = True
    #: it tells how full the account's windows are
    windows: bool = True
    #: why a run of it can have failed
    ends: tuple[str, ...] = ("rate_limited", "auth", "billing", "overloaded")

    def task(self, root: Path, text: str, brief: str = "the brief", **limits: Any) -> Task:
        """A task whose engine runs this text after the verbs, in a worktree below `root`."""
        work = root / "work"
        work.mkdir(exist_ok=True)
        file = work / "program"
        # -I, -S: nothing of the host's Python, and quick.
        file.write_text(f"#!{sys.executable} -IS\n{self.verbs}\n\n{text}\n")
        file.chmod(0o755)
        return Task(
            firing=FIRING, workdir=str(work), brief=brief, home=str(root / "home"), tmp=str(root / "tmp"),
            log=str(root / "engine.log"), model=None, options=self.runs(file), env={},
            limits=Limits(**{"wall_s": 20.0, **limits}), key=self.key)  # fmt: skip

    def run(self, root: Path, text: str, **limits: Any) -> Result:
        return self.again(self.task(root, text, **limits))

    def again(self, task: Task, **more: Any) -> Result:
        """`more`: what `support.engines.run` takes."""
        return run(task, self.engine.name, engine=self.engine, **more)


def _verbs(name: str) -> str:
    return (Path(__file__).parent / f"{name}.py").read_text()


DIALECTS = {
    "claude": Dialect(
        engine=engines.ENGINES["claude"], verbs=_verbs("claude"), runs=lambda file: {"program": str(file)},
        missing={"program": "/nowhere/claude"}, key="sk-ant-api03-of-the-test", dollars=True, accounts=True,
        ends=("rate_limited", "auth", "billing", "overloaded", "context", "refused", "max_turns", "budget"),
    ),
    "codex": Dialect(
        engine=engines.ENGINES["codex"], verbs=_verbs("codex"), runs=lambda file: {"program": str(file)},
        missing={"program": "/nowhere/codex"}, key="sk-proj-of-the-test",
        ends=("rate_limited", "auth", "billing", "overloaded", "context", "refused", "budget"),
    ),
    "command": Dialect(
        engine=engines.ENGINES["command"], verbs=_verbs("command"), runs=lambda file: {"argv": [str(file)]},
        missing={"argv": ["/nowhere/program"]}, dollars=True, finishes=False, resumes=False,
    ),
    "scripted": Dialect(
        engine=engines.ENGINES["scripted"], verbs=_verbs("command"),
        runs=lambda file: {"steps": [{"run": f"exec {file}"}]}, missing={"script": "/nowhere/script.json"},
        dollars=True, finishes=False, resumes=False,
    ),
}  # fmt: skip
#: The example of an engine of one's own goes through it where there is time for everything.
_OTHERS = "examples.engine.dialect" if os.environ.get("WATCHBILL_REQUIRE") else ""
for _name in os.environ.get("WATCHBILL_DIALECTS", _OTHERS).split():
    DIALECTS[_name] = importlib.import_module(_name).DIALECT
