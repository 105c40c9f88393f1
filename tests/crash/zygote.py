"""Firings as processes, cheaply: one process imports the program once and forks each firing from itself.

What a firing is (a process with its own pid, environment, files and end, killed by SIGKILL like any other) is as when a
timer starts it; only the imports, most of a short firing's time, are done once. Run as a program this is the server; a
test uses `Zygote`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import watchbill

_PRELOADED = ("watchbill.cli.fire", "watchbill.firing", "watchbill.sweep", "watchbill.forge.github",
              "watchbill.roster", "watchbill.ledger.migrate", "crash.probe")  # fmt: skip


#: Where the tests' own `watchbill` lies: the server forks that one, also when they are run on a changed copy.
_PROGRAM = str(Path(watchbill.__file__).parent.parent)


class Forked(NamedTuple):
    """One firing."""

    pid: int
    out: Path  # its stdout and stderr
    log: Path  # what its probe saw


class Zygote:
    """The client's side: start a firing, ask how it is."""

    def __init__(self, process: subprocess.Popen[str], room: Path) -> None:
        self._process = process
        self._room = room
        self._started = 0

    def _ask(self, **request: Any) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, home: Path, agent: str, role: str = "implement", **probe: Any) -> Forked:
        """Fork a firing of `agent`; `probe`: what `probe.Probe` shall do, nothing for none."""
        self._started += 1
        out, log = self._room / f"{self._started}.out", self._room / f"{self._started}.log"
        log.touch()
        spec = {"log": str(log), **probe} if probe else None
        pid = self._ask(do="start", home=str(home), agent=agent, role=role, out=str(out), probe=spec)
        return Forked(pid, out, log)

    def state(self, firing: Forked) -> str | int:
        """running | stopped | its exit status (negative: the signal that ended it)."""
        found: str | int = self._ask(do="state", pid=firing.pid)
        return found

    def wait(self, firing: Forked, seconds: float = 60) -> str | int:
        """Until it has stopped or ended."""
        until = time.monotonic() + seconds
        while (state := self.state(firing)) == "running":
            assert time.monotonic() < until, f"it runs on: {firing.out.read_text()}"
            time.sleep(0.005)
        return state

    def fire(self, home: Path, agent: str, role: str = "implement") -> dict[str, Any]:
        """A whole firing; the object it printed."""
        firing = self.start(home, agent, role)
        status = self.wait(firing)
        said = firing.out.read_text()
        assert status != 70, said
        found: dict[str, Any] = json.loads(next(line for line in said.splitlines() if line.startswith("{")))
        return found


@contextlib.contextmanager
def zygote(room: Path, environment: Mapping[str, str]) -> Iterator[Zygote]:
    """A server for one test; whatever it forked has ended afterwards."""
    room.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**environment, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), _PROGRAM])},
    )  # fmt: skip
    try:
        yield Zygote(process, room)
    finally:
        assert process.stdin
        process.stdin.close()
        process.wait(30)
        if process.stdout:
            process.stdout.close()


def serve() -> None:
    """Answer requests until stdin ends; then end what still runs."""
    for name in _PRELOADED:
        with contextlib.suppress(ModuleNotFoundError):
            __import__(name)
    ended: dict[int, int] = {}
    mine: set[int] = set()
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["do"] == "start":
            pid = os.fork()
            if pid == 0:
                _become_a_firing(asked)
            mine.add(pid)
            said: Any = pid
        else:
            said = _state(asked["pid"], ended)
        print(json.dumps(said), flush=True)
    for pid in mine - set(ended):
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _state(pid: int, ended: dict[int, int]) -> str | int:
    if pid not in ended:
        found, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
        if found == 0:
            with open(f"/proc/{pid}/stat", encoding="ascii") as file:
                return "stopped" if file.read().rsplit(")", 1)[1].split()[0] == "T" else "running"
        if os.WIFSTOPPED(status):
            return "stopped"
        ended[pid] = os.waitstatus_to_exitcode(status)
    return ended[pid]


def _become_a_firing(asked: dict[str, Any]) -> None:
    os.environ["WATCHBILL_HOME"] = asked["home"]
    os.environ.pop("PYTHONPATH", None)
    nothing = os.open(os.devnull, os.O_RDONLY)
    out = os.open(asked["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for fd, other in ((0, nothing), (1, out), (2, out)):
        os.dup2(other, fd)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    try:
        from watchbill.cli.fire import leave, main

        if asked["probe"]:
            from crash.probe import Probe

            Probe(asked["probe"]).install()
        leave(main([asked["agent"], "--json"], role=asked["role"]))
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(99)


if __name__ == "__main__":
    serve()
