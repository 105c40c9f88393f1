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
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from support.forge import REPO, Reply, World, git, practice_forge
from watchbill import process, roles
from watchbill.claims import record as codec
from watchbill.claims.record import VERSION, ClaimRecord
from watchbill.ledger import db
from watchbill.ledger.db import Ledger

LABEL = "agent:implement"
#: Another host than this one waits three seconds before it takes over; a list that shows nothing is believed after one.
QUICK = '[claims]\nttl = "2s"\ngrace = "1s"\nrenew = "1s"\n'
WATCHBILL = os.path.join(roles.beside("bin"), "watchbill")
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

    def change(self, statement: str, *values: object) -> None:
        """Behind the fleet's back, in its ledger."""
        with contextlib.closing(sqlite3.connect(self.home / "ledger.db", timeout=15)) as connection, connection:
            connection.execute(statement, values)

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

    def subject(self, number: int) -> list[str]:
        """The words of a claim's subject line: claim, #number, generation.sequence, state, host, ..."""
        return self.remote("log", "-1", "--format=%s", f"refs/watchbill/claims/{number}").split()

    def record(self, number: int) -> ClaimRecord:
        found = codec.parse(self.remote("log", "-1", "--format=%B", f"refs/watchbill/claims/{number}") + "\n", number)
        assert isinstance(found, ClaimRecord), found
        return found

    def mirror(self, *argv: str) -> str:
        (path,) = (self.home / "mirrors").glob("*.git")
        return git("--git-dir", path, *argv)


def finish(firing: subprocess.Popen[str], timeout: float = 90) -> Ended:
    out, err = firing.communicate(timeout=timeout)
    lines = out.splitlines()
    assert len(lines) == 1, f"not exactly one line on stdout: {out!r}\n{err}"
    found = json.loads(lines[0])
    assert set(found) == KEYS
    assert found["exit"] == firing.returncode, err
    return Ended(firing.returncode, found, out, err)


def scripted(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"use": "scripted", "steps": list(steps)}


def python(source: str) -> dict[str, Any]:
    """An engine that is a few lines of Python in the worktree."""
    return {"use": "command", "argv": [sys.executable, "-c", source]}


WRITES = scripted(
    {"write": {"path": "done.txt", "content": "done\n"}},
    {"usage": {"input_tokens": 10, "output_tokens": 5, "cost_usd": 0.01}},
)

#: Half of the work, and then nothing for a minute: to be cut short (see `at_work`).
HALF = scripted({"write": {"path": "half", "content": "half"}}, {"sleep": 60})
FAILS = python("raise SystemExit(1)")


def agent(engine: dict[str, Any] = WRITES, **more: Any) -> dict[str, Any]:
    """The `watchbill:` map of an agent's file."""
    return {"role": "implement", "engine": engine, "timeout": "30s", "caps": {"firing_usd": 1, "day_usd": 100}, **more}


def crew(bosun: dict[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """bosun, and a steward who sweeps."""
    return {"bosun": bosun or agent(), "steward": {"role": "sweep"}}


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
    """`remote`: http or file. `toml`: further lines of fleet.toml. Without a [schedule] there, it asks no scheduler."""
    schedule = "" if "[schedule]" in toml else '[schedule]\nuse = "loop"\n'
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
            f'remote = "{where}"\n{toml}\n{schedule}\n'
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


def ask(it: Fleet, method: str, path: str, body: object = None) -> Reply:
    """What a person, octocat, does to the repository: /issues/1, /pulls/2, ..."""
    reply = it.world.ask("octocat", method, f"/repos/{REPO}{path}", body)
    assert reply.status < 300, reply
    return reply


def other_host(it: Fleet, name: str) -> Fleet:
    """The same configuration on another host: no ledger, no mirror, an id of its own."""
    home = it.home.parent / name
    shutil.copytree(it.home, home, ignore=shutil.ignore_patterns("ledger*", "mirrors", "worktrees", "host.json"))
    return Fleet(home, it.world)


def rested(*hosts: Fleet) -> None:
    """The quarter of an hour before the next try is over: the waiting itself is not what is tested."""
    for it in hosts:
        if (it.home / "ledger.db").exists():
            it.change("UPDATE attempts SET next_at = 0")


def swept(it: Fleet) -> Ended:
    return it.fire("steward", role="sweep")


def until_swept(it: Fleet, what: str, condition: Callable[[], object]) -> None:
    """Sweep until it is so."""

    def again() -> bool:
        swept(it)
        return bool(condition())

    wait_for(what, again)


def at_work(it: Fleet, path: str = "half", agent: str = "bosun") -> subprocess.Popen[str]:
    """A firing in the middle of its engine: it has just written `path`."""

    def written() -> set[Path]:
        found = (it.home / "worktrees").glob(f"*/tree/{path}")
        return {one for one in found if one.stat().st_size}  # not in the moment between its making and its writing

    before = written()
    firing = it.start(agent)
    wait_for(f"{agent} to write {path}", lambda: written() - before or firing.poll() is not None)
    assert firing.poll() is None, finish(firing)
    return firing


def tree_of(firing: subprocess.Popen[str]) -> list[int]:
    """The firing and every process below it."""
    return [firing.pid, *process.descendants(firing.pid)]


def killed_at_work(it: Fleet) -> str:
    """The id of a firing that is killed in the middle of its engine, with all that it started: a power cut."""
    firing = at_work(it)
    for pid in tree_of(firing):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    firing.communicate()
    ((id,),) = it.rows("SELECT id FROM firings WHERE pid = ?", firing.pid)
    return str(id)


def killed_at(it: Fleet, kind: str, where: str) -> None:
    """A firing of bosun that is killed at one boundary of one effect: see tests/crash/killed_at.py."""
    driver = Path(__file__).parent.parent / "crash" / "killed_at.py"
    argv = [sys.executable, str(driver), kind, where, "bosun", "--json"]
    done = subprocess.run(argv, env=it.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == -9, (done.returncode, done.stdout, done.stderr)


def forged(it: Fleet, number: int, **fields: object) -> str:
    """A claim of another host, written by hand, also one that our codec would refuse to write; its commit."""
    record: dict[str, object] = {
        "version": VERSION, "repo_id": it.world.ask("octocat", "GET", f"/repos/{REPO}").body["id"], "number": number,
        "generation": 1, "sequence": 0, "state": "active", "role": "implement", "firing": "01foreign",
        "agent": "bosun", "host": "abcdef012345", "boot": "b", "pid": 1, "nonce": "0" * 16, "ttl": 2, "issued": 1,
        "label_event": 1, "base": it.remote("rev-parse", "main"), "head": None, "pr_floor": 0, "pr": None,
        "attempt": 1, "spent": 0, "outcome": None, "title": None, "body": None, **fields,
    }  # fmt: skip
    line = json.dumps(record, separators=(",", ":"))
    subject = f"claim #{number} g{record['generation']}.{record['sequence']} {record['state']} x [skip ci]"
    empty = git("--git-dir", it.world.bare, "mktree", given="")
    commit = git("--git-dir", it.world.bare, "commit-tree", empty, given=f"{subject}\n\n{line}\n")
    it.remote("update-ref", f"refs/watchbill/claims/{number}", commit)
    return commit
