"""A whole fleet in one directory: a practice forge, a bare repository, a home with a roster. For `demo` and `try`."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from types import FrameType
from typing import Any, NamedTuple

from watchbill import roles, versions
from watchbill.engines import credential, named
from watchbill.engines.base import Limits, Task
from watchbill.errors import Fixable
from watchbill.home import Home
from watchbill.practice import server
from watchbill.practice.server import Practice
from watchbill.roster import compile_roster

#: As long as a run may take here: a login that ends before is none.
_LONG = Limits(1500.0)
#: The person on this stage, and the account that the fleet acts as.
PERSON, BOT = "you", "watchbill-bot"
LABELS = [
    "agent:implement",
    "agent:in-flight",
    "agent:pr-open",
    "agent:done",
    "needs:human",
    "do-not-pickup",
    "agent:authored",
    "agent:fixes-base",
]


class Stage(NamedTuple):
    """Where everything lies."""

    root: str
    home: Home
    remote: str  # the bare repository
    full_name: str
    practice: Practice


class Told(NamedTuple):
    """A firing that was run, and what it said."""

    agent: str
    status: int
    answer: dict[str, Any]  # the object of `fire --json`; {} when there was none
    stderr: str


def seed_for(full_name: str, bare: str, tokens: dict[str, str], *issues: dict[str, Any]) -> dict[str, Any]:
    """One repository, one person who may write and wrote the issues, one bot."""
    return {
        "users": [
            {"login": PERSON, "token": tokens[PERSON], "type": "User"},
            {"login": BOT, "token": tokens[BOT], "type": "Bot"},
        ],
        "repos": [
            {
                "full_name": full_name,
                "git": bare,
                "permissions": {PERSON: "write", BOT: "write"},
                "labels": LABELS,
                "issues": [{**issue, "author": PERSON} for issue in issues],
            }
        ],
    }


def build(
    root: str,
    full_name: str,
    bare: str,
    issue: dict[str, Any],
    checks: list[str],
    caps: dict[str, float],
    agents: dict[str, dict[str, Any]],
    *more: dict[str, Any],
) -> Stage:
    """Start the forge and write the home. The caller closes `practice`. `more`: further issues."""
    home = Home(os.path.join(root, "home"))
    os.makedirs(home.agents, mode=0o700)
    tokens = {login: f"practice-{login}-{secrets.token_hex(8)}" for login in (PERSON, BOT)}
    seed = seed_for(full_name, bare, tokens, issue, *more)
    _write(os.path.join(root, "seed.json"), json.dumps(seed, indent=1))
    practice = server.serve(seed)
    token_file = os.path.join(home.root, "token")
    _write(token_file, tokens[BOT])
    toml = [
        "# Made by `watchbill`: a fleet of one repository on the practice forge.",
        "[fleet]",
        f"repos = [{json.dumps(full_name)}]",
        'trust = ["association:OWNER", "association:MEMBER", "association:COLLABORATOR"]',
        "[caps]",
        *(f"{key} = {value}" for key, value in caps.items()),
        "[github]",
        f'api_url = "{practice.url}"',
        f"auth = {json.dumps('token:file:' + token_file)}",
        f"[repo.{json.dumps(full_name)}]",
        f"checks = {json.dumps(checks)}",
        f"remote = {json.dumps(practice.git_url(full_name))}",
    ]
    _write(home.fleet_toml, "\n".join(toml) + "\n")
    for name, watchbill in agents.items():
        front = json.dumps({"name": name, "description": "Implements one labelled issue.", "watchbill": watchbill})
        body = f"You are {name}. Solve the issue below with the smallest change that a maintainer would merge."
        _write(os.path.join(home.agents, f"{name}.md"), f"---\n{front}\n---\n{body}\n\n{{{{ brief }}}}\n")
    try:
        compile_roster(home.root)
    except BaseException:
        practice.close()
        shutil.rmtree(root)
        raise
    return Stage(root, home, bare, full_name, practice)


def engine_map(name: str, more: Mapping[str, Any]) -> dict[str, Any]:
    """The `engine:` map of an agent on this stage: with the key and the server that the person's own shell names.

    Fixable, before anything is set up, when it could not run: no program, a version that we do not know, no credential.
    """
    engine = named(name)
    found: dict[str, Any] = {"use": name, **more}
    key = next((variable for variable in engine.variables if os.environ.get(variable)), None)
    if key is not None:
        found["key"] = f"env:{key}"
    if engine.endpoint and os.environ.get(engine.endpoint):
        found["env"] = {engine.endpoint: os.environ[engine.endpoint]}
    with tempfile.TemporaryDirectory(prefix="watchbill-") as nowhere:
        task = Task("", nowhere, "", nowhere, nowhere, "", found.get("model"), found, found.get("env", {}), _LONG)
        program = engine.program(task)
        if program is not None:
            versions.accept(name, program, versions.ask(name, program))
        try:
            task = task._replace(key=credential.of(engine, found, os.environ))
            engine.launch(task)
        except Fixable as problem:
            if problem.outcome == "unauthorized" and engine.variables and key is None:
                problem.fix = f"for this once: export {engine.variables[0]}=...; for a fleet: {problem.fix}"
            raise
    return found


def end_cleanly() -> None:
    """A terminal that is closed, or a SIGTERM, ends what was begun here as Ctrl-C does: nothing of it stays."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)


def fire(stage: Stage, names: list[str], *, progress: bool = False) -> list[Told]:
    """Start the agents' role scripts at the same moment, as their timers would, and wait for all of them.

    `progress`: what they say while they work goes to our own stderr.
    """
    return finish(start(stage, names, progress=progress))


def start(stage: Stage, names: list[str], *, progress: bool = False) -> dict[str, subprocess.Popen[str]]:
    """The same without waiting: agent -> its runner."""
    environment = environment_of(stage)
    return {
        name: subprocess.Popen(
            [sys.executable, roles.script_of("implement"), name, "--json"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=None if progress else subprocess.PIPE,
            text=True,
        )
        for name in names
    }


def environment_of(stage: Stage) -> dict[str, str]:
    """What a timer of this stage would give to what it starts."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "WATCHBILL_"))}
    environment["WATCHBILL_HOME"] = stage.home.root
    environment["NO_PROXY"] = environment["no_proxy"] = "127.0.0.1"  # the stage is on this machine
    return environment


def finish(started: dict[str, subprocess.Popen[str]]) -> list[Told]:
    """Wait for runners that were started; an exception on the way ends them."""
    told = []
    try:
        for name, process in started.items():
            out, err = process.communicate()
            told.append(Told(name, process.returncode, json.loads(out) if out.strip() else {}, err or ""))
    except BaseException:
        for process in started.values():
            process.terminate()
            process.wait()
        raise
    return told


def last_words(told: Told) -> Fixable:
    """A firing that could not even say how it ended."""
    return Fixable(
        "WB-STAGE-01",
        f"the firing of {told.agent} ended with status {told.status} and said nothing",
        why=told.stderr.strip()[-2000:],
        outcome="bug",
    )


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        os.chmod(path, 0o600)
        file.write(text)
