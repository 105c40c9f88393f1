"""A practice forge with people in it: octocat may write, stranger may read, watchbill-bot is the account we act as.

    with practice_forge(tmp_path) as world:
        forge = world.forge()                          # as watchbill-bot, through the real PyGithub
        number = world.issue("octocat", "add() subtracts", labels=["agent:implement"])
        subprocess.run(["git", "clone", world.git_url(), ...])

`world.practice.faults`, `.log` and `.snapshot()` are the forge's own.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from watchbill.clock import Clock
from watchbill.compiled import Labels
from watchbill.forge.github import GitHub, open_forge
from watchbill.practice.server import Practice, serve

REPO = "acme/api"
TOKENS = {"octocat": "octocat-token", "stranger": "stranger-token", "watchbill-bot": "bot-token"}
ROLES = {"octocat": "write", "stranger": "read", "watchbill-bot": "write"}


class Reply(NamedTuple):
    """An answer of the forge as it came over the wire."""

    status: int
    headers: dict[str, str]  # by lower-case name
    body: Any  # parsed JSON; None when empty


class World(NamedTuple):
    """A running practice forge with one repository, acme/api."""

    practice: Practice
    bare: Path  # the bare repository of acme/api
    tokens: dict[str, str]  # login -> token

    @property
    def url(self) -> str:
        return self.practice.url

    def git_url(self, login: str = "watchbill-bot", repo: str = REPO) -> str:
        """Where to clone from and push to, as this login; "" is nobody."""
        return self.practice.git_url(repo, self.tokens.get(login, ""))

    def forge(self, login: str = "watchbill-bot", clock: Clock | None = None) -> GitHub:
        """A session as this login; close it, or use it as a context manager."""
        return open_forge(self.url, self.tokens[login], clock)

    def ask(self, login: str, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """One raw request as a person (or as nobody: ""); underscores in header names stand for hyphens."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if login:
            sent["Authorization"] = f"token {self.tokens[login]}"
        payload = None if body is None else json.dumps(body)
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.practice.port, timeout=10)) as connection:
            connection.request(method, path, payload, sent)
            reply = connection.getresponse()
            raw = reply.read()
            got = {name.lower(): value for name, value in reply.getheaders()}
            return Reply(reply.status, got, json.loads(raw) if raw else None)

    def issue(self, login: str, title: str, body: str = "", labels: tuple[str, ...] | list[str] = ()) -> int:
        """Open an issue as a person and return its number."""
        reply = self.ask(login, "POST", f"/repos/{REPO}/issues", {"title": title, "body": body, "labels": list(labels)})
        assert reply.status == 201, reply
        return int(reply.body["number"])

    def branch(self, name: str, files: dict[str, str], base: str = "main") -> str:
        """A branch in the bare repository with one commit on top of `base`; returns the commit."""
        return commit(self.bare, name, files, base)


def git(
    *argv: str | Path,
    cwd: Path | None = None,
    given: str | None = None,
    check: bool = True,
    env: dict[str, str] | None = None,
) -> str:
    """Run git as a person of tests and return its output without the last newline."""
    env = {
        **os.environ,
        **(env or {}),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_AUTHOR_NAME": "Octo Cat",
        "GIT_AUTHOR_EMAIL": "octocat@example.org",
        "GIT_COMMITTER_NAME": "Octo Cat",
        "GIT_COMMITTER_EMAIL": "octocat@example.org",
    }
    command = ["git", *(str(one) for one in argv)]
    done = subprocess.run(command, cwd=cwd, env=env, input=given, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout.rstrip("\n")


def make_repository(path: Path, files: dict[str, str]) -> Path:
    """A new bare repository at `path` whose branch main has one commit with these files (path -> text)."""
    git("init", "--quiet", "--bare", "--initial-branch=main", path)
    commit(path, "main", files, None)
    return path


def commit(bare: Path, branch: str, files: dict[str, str], base: str | None) -> str:
    """Put a commit that adds or changes `files` on a branch of a bare repository, without a worktree."""
    here, index = ("--git-dir", bare), bare / f"index-{uuid.uuid4().hex}"
    own = {"GIT_INDEX_FILE": str(index)}
    try:
        if base is not None:
            git(*here, "read-tree", base, env=own)
        for name, text in files.items():
            blob = git(*here, "hash-object", "-w", "--stdin", given=text)
            git(*here, "update-index", "--add", "--cacheinfo", f"100644,{blob},{name}", env=own)
        tree = git(*here, "write-tree", env=own)
    finally:
        index.unlink(missing_ok=True)
    parents = ["-p", git(*here, "rev-parse", base)] if base is not None else []
    sha = git(*here, "commit-tree", tree, *parents, given=f"change {', '.join(files)}\n")
    git(*here, "update-ref", f"refs/heads/{branch}", sha)
    return sha


def seed(bare: Path, **more: Any) -> dict[str, Any]:
    """The seed of the world above; `more` are further keys of its repository (issues, private, ...)."""
    kinds = {"watchbill-bot": "Bot"}
    return {
        "users": [{"login": who, "token": token, "type": kinds.get(who, "User")} for who, token in TOKENS.items()],
        "repos": [
            {"full_name": REPO, "git": str(bare), "permissions": ROLES, "labels": list(Labels()), "issues": [], **more}
        ],
    }


@contextlib.contextmanager
def practice_forge(
    tmp_path: Path, files: dict[str, str] | None = None, clock: Clock | None = None, **more: Any
) -> Iterator[World]:
    """Serve acme/api with one commit of `files`; `more` are further keys of its repository in the seed."""
    bare = make_repository(tmp_path / "forge" / "acme" / "api.git", files or {"README.md": "# api\n"})
    with serve(seed(bare, **more), clock=clock) as practice:
        yield World(practice, bare, dict(TOKENS))
