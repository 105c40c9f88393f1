"""Where a firing may be cut: every boundary it crosses, found by watching it; and the cut itself.

Inside the process of a firing: `Probe(spec)` wraps the doors that every firing goes through. What it crosses is named
`STEP: WHAT`, or `STEP (EFFECT): WHAT`:

    before STEP, after STEP                            a step of the story
    gates passed, row written                          wake
    effect: before intent, after intent, after act, after receipt
    commit FUNCTION                                    any transaction of the ledger
    push: before, executed, answered                   `executed`: the remote has it, we have not heard
    METHOD PATH: before, after                         a write of the forge's API: also between the two of a label edit
    running, ended                                     the engine; `checking`, `checked`: one of the checks

Between two boundaries without a commit, push or write between them nothing durable happened: they share an `epoch`,
and a cut at the last of them is a cut at each. spec: {"log": file of crossings, "at": name or absent, "how": "stop" or
"kill", "victim": a file that the remote's post-receive hook reads, "term": where it is sent SIGTERM, "worked": a
file to which an engine appends its firing when it has written its work: not before is it cut while it runs}.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

#: What the remote does when a push was executed and a firing waits to be cut there (githooks(5), post-receive).
HOOK = """#!/bin/sh
if [ -e hooks/victim ]; then
    read -r pid how < hooks/victim
    rm hooks/victim
    kill -"$how" "$pid"
fi
"""


class Probe:
    """The watcher of one firing."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.epoch = 0
        self.step = "wake"
        self.effect = ""
        self.firing = ""
        self.crossed: set[str] = set()

    # -- crossing ------------------------------------------------------------------------------------------------------

    def name(self, what: str) -> str:
        effect = f" ({self.effect})" if self.effect else ""
        return f"{self.step}{effect}: {what}"

    def cross(self, what: str, *, whole: str = "") -> None:
        name = whole or self.name(what)
        self.write_down(name)
        if name in self.crossed:
            return
        self.crossed.add(name)
        if name == self.spec.get("term"):
            os.kill(os.getpid(), signal.SIGTERM)
        if name == self.spec.get("at"):
            os.kill(os.getpid(), signal.SIGSTOP if self.spec["how"] == "stop" else signal.SIGKILL)

    def write_down(self, name: str) -> None:
        with open(self.spec["log"], "a", encoding="utf-8") as log:
            log.write(f"{self.epoch}\t{name}\n")

    def durable(self) -> None:
        self.epoch += 1

    # -- the doors -----------------------------------------------------------------------------------------------------

    def install(self) -> None:
        from watchbill import effects, git, live, wake
        from watchbill.engines import supervise
        from watchbill.forge import github
        from watchbill.ledger import db

        wake.up = self._around(wake.up, after="gates passed")  # type: ignore[assignment]
        live.Firing.__init__ = self._around(live.Firing.__init__, after="row written", once=True)  # type: ignore[method-assign]
        live.Firing.step = self._stepped(live.Firing.step)  # type: ignore[method-assign,assignment]
        effects.perform = self._performed(effects.perform)
        git.push = self._pushed(git.push)
        github.GitHub.write = self._written(github.GitHub.write)  # type: ignore[method-assign]
        supervise.run = self._supervised(supervise.run, "running", "ended")  # type: ignore[assignment]
        supervise.run_check = self._supervised(supervise.run_check, "checking", "checked")  # type: ignore[assignment]
        db.Ledger.transaction = self._committed(db.Ledger.transaction)  # type: ignore[method-assign]

    def _around(self, function: Callable[..., Any], after: str, once: bool = False) -> Callable[..., Any]:
        @functools.wraps(function)
        def around(*args: Any, **kwargs: Any) -> Any:
            value = function(*args, **kwargs)
            if not once or f"wake: {after}" not in self.crossed:
                self.cross(after, whole=f"wake: {after}")
            return value

        return around

    def _stepped(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(firing: Any, name: str, function: Any, *args: Any, **kwargs: Any) -> Any:
            outer, self.firing = self.step, firing.id
            self.cross("", whole=f"before {name}")
            self.step = name
            try:
                return real(firing, name, function, *args, **kwargs)
            finally:
                self.step = outer
                self.cross("", whole=f"after {name}")

        return step

    def _performed(self, real: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(real)

        def perform(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs)
            firing, kind, act = (given.arguments[name] for name in ("f", "kind", "act"))
            outer, self.effect = self.effect, kind.replace(firing.id, "FIRING")
            self.cross("before intent")

            def acting() -> Any:
                self.cross("after intent")
                done = act()
                self.cross("after act")
                return done

            given.arguments["act"] = acting
            try:
                receipt = real(*given.args, **given.kwargs)
                self.cross("after receipt")
                return receipt
            finally:
                self.effect = outer

        return perform

    def _pushed(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def push(*args: Any, **kwargs: Any) -> Any:
            self.cross("push: before")
            executed = self.name("push: executed")
            if executed == self.spec.get("at") and executed not in self.crossed:
                how = "STOP" if self.spec["how"] == "stop" else "KILL"
                Path(self.spec["victim"]).write_text(f"{os.getpid()} {how}\n")
                self.write_down(executed)
                self.crossed.add(executed)
            done = real(*args, **kwargs)
            self.durable()
            self.cross("push: executed")
            self.durable()  # so that it is cut apart from what follows: there git's answer is heard
            self.cross("push: answered")
            return done

        return push

    def _written(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def write(session: Any, method: str, path: str, *args: Any, **kwargs: Any) -> Any:
            what = f"{method} {re.sub(r'[0-9]+', 'N', path)}"
            self.cross(f"{what}: before")
            done = real(session, method, path, *args, **kwargs)
            self.durable()
            self.cross(f"{what}: after")
            return done

        return write

    def _supervised(self, real: Callable[..., Any], running: str, ended: str) -> Callable[..., Any]:
        signature = inspect.signature(real)

        def supervised(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs)
            beat = given.arguments["beat"]

            def beating(*heard: Any) -> Any:
                if not waited_for:
                    self.durable()
                    self.cross(running)
                return beat(*heard)

            waited_for = self.name(running) in (self.spec.get("at"), self.spec.get("term"))
            if waited_for:
                threading.Thread(target=self._once_it_worked, args=(self.name(running),), daemon=True).start()

            given.arguments["beat"] = beating
            done = real(*given.args, **given.kwargs)
            self.durable()
            self.cross(ended)
            return done

        return supervised

    def _once_it_worked(self, running: str) -> None:
        """There is work to be lost when it is cut while it runs."""
        worked = Path(self.spec["worked"])
        while not worked.exists() or self.firing not in worked.read_text():
            time.sleep(0.01)
        self.durable()
        self.cross("", whole=running)

    def _committed(self, real: Callable[..., Any]) -> Callable[..., Any]:
        @contextlib.contextmanager
        def transaction(ledger: Any, *, durable: bool = False) -> Iterator[None]:
            joined = ledger._inside
            with real(ledger, durable=durable):
                yield
            if not joined:
                self.durable()
                caller = sys._getframe(2).f_code.co_qualname
                if not caller.startswith("Firing."):
                    self.cross(f"commit {caller}")

        return transaction
