"""A whole fleet as its operator has it: a home with a roster, on a practice forge; fired as processes, as timers do.

with fleet(tmp_path, agents={"bosun": agent(steps=[{"write": {"path": "a", "content": "b"}}])}) as it:
    it.world.issue("octocat", "Do it", labels=["agent:implement"])
    ended = it.fire("bosun")
    assert ended.outcome == "pull_request"
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from support.forge import REPO, World, git, practice_forge
from watchbill import roles
from watchbill.ledger import db
from watchbill.ledger.db import Ledger

LABEL = "agent:implement"
WATCHBILL = os.path.join(roles.directory(), "watchbill")
KEYS = {
    "agent",
    "role",
    "firing",
    "outcome",
    "exit",
    "reason",
    "repo",
    "number",
    "pull_request",
    "branch",
    "generation",
    "cost_usd",
    "cost_basis",
    "started",
    "ended",
}


class Ended(NamedTuple):
    """A firing as it was seen from outside."""

    status: int
    object: dict[str, Any]
    stdout: str
    stderr: str

    @property
    def outcome(self) -> str:
        return str(self.object["outcome"])

    @property
    def reason(self) -> str:
        return str(self.object["reason"])


class Fleet(NamedTuple):
    """An operator's fleet."""

    home: Path
    world: World

    def environment(self, **more: str) -> dict[str, str]:
        return {**os.environ, "WATCHBILL_HOME": str(self.home), **more}

    def run(self, *argv: str, timeout: float = 60, **more: str) -> subprocess.CompletedProcess[str]:
        """The `watchbill` command as a process."""
        return subprocess.run(
            [sys.executable, WATCHBILL, *argv],
            env=self.environment(**more),
            text=True,
            capture_output=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def start(self, agent: str, *argv: str, role: str = "implement", **more: str) -> subprocess.Popen[str]:
        """A role script, as a timer starts it."""
        script = roles.script_of(role)
        return subprocess.Popen(
            [sys.executable, script, agent, "--json", *argv],
            env=self.environment(**more),
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def fire(self, agent: str, *argv: str, **more: str) -> Ended:
        return finish(self.start(agent, *argv, **more))

    def ledger(self) -> Ledger:
        return db.open_ledger(str(self.home / "ledger.db"))

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Any question to the ledger, as an operator with sqlite3 would ask it."""
        with contextlib.closing(sqlite3.connect(self.home / "ledger.db")) as connection:
            return connection.execute(statement, values).fetchall()

    def labels(self, number: int) -> set[str]:
        found = self.world.ask("octocat", "GET", f"/repos/{REPO}/issues/{number}").body["labels"]
        return {label["name"] for label in found}

    def pulls(self) -> list[dict[str, Any]]:
        found = self.world.ask("octocat", "GET", f"/repos/{REPO}/pulls?state=all&per_page=100").body
        assert isinstance(found, list)
        return found

    def comments(self, number: int) -> list[str]:
        found = self.world.ask("octocat", "GET", f"/repos/{REPO}/issues/{number}/comments").body
        return [comment["body"] for comment in found]

    def remote(self, *argv: str) -> str:
        return git("--git-dir", self.world.bare, *argv)

    def mirror(self, *argv: str) -> str:
        (path,) = (self.home / "mirrors").glob("*.git")
        return git("--git-dir", path, *argv)


def finish(process: subprocess.Popen[str], timeout: float = 90) -> Ended:
    out, err = process.communicate(timeout=timeout)
    lines = out.splitlines()
    assert len(lines) == 1, f"not exactly one line on stdout: {out!r}\n{err}"
    found = json.loads(lines[0])
    assert set(found) == KEYS
    assert found["exit"] == process.returncode, err
    return Ended(process.returncode, found, out, err)


def scripted(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"use": "scripted", "steps": list(steps)}


def python(source: str) -> dict[str, Any]:
    """An engine that is a few lines of Python in the worktree."""
    return {"use": "command", "argv": [sys.executable, "-c", source]}


WRITES = scripted(
    {"write": {"path": "done.txt", "content": "done\n"}},
    {"usage": {"input_tokens": 10, "output_tokens": 5, "cost_usd": 0.01}},
)


def agent(engine: dict[str, Any] = WRITES, **more: Any) -> dict[str, Any]:
    """The `watchbill:` map of an agent's file."""
    return {"role": "implement", "engine": engine, "timeout": "30s", "caps": {"firing_usd": 1, "day_usd": 100}, **more}


def write_agent(home: Path, name: str, watchbill: dict[str, Any]) -> None:
    front = json.dumps({"name": name, "description": "A test.", "watchbill": watchbill})
    (home / "agents" / f"{name}.md").write_text(f"---\n{front}\n---\nSolve it.\n\n{{{{ brief }}}}\n")


@contextlib.contextmanager
def fleet(
    tmp_path: Path,
    agents: dict[str, dict[str, Any]] | None = None,
    checks: list[str] | None = None,
    files: dict[str, str] | None = None,
    remote: str = "http",
    toml: str = "",
) -> Iterator[Fleet]:
    """`remote`: http or file. `toml`: further lines of fleet.toml."""
    with practice_forge(tmp_path, files) as world:
        home = tmp_path / "home"
        (home / "agents").mkdir(parents=True)
        token = home / "token"
        token.write_text(world.tokens["watchbill-bot"])
        token.chmod(0o600)
        where = world.practice.git_url(REPO) if remote == "http" else str(world.bare)
        (home / "fleet.toml").write_text(
            f'[fleet]\nrepos = ["{REPO}"]\n[github]\napi_url = "{world.url}"\nauth = "token:file:{token}"\n'
            f'[repo."{REPO}"]\nchecks = {json.dumps(["true"] if checks is None else checks)}\n'
            f'remote = "{where}"\n{toml}\n'
        )
        for name, watchbill in (agents if agents is not None else {"bosun": agent()}).items():
            write_agent(home, name, watchbill)
        yield Fleet(home, world)


def wait_for(what: str, condition: Any, seconds: float = 30) -> None:
    """Until `condition()` is true; the promise's deadline with a wide margin, never an assertion about speed."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.02)
