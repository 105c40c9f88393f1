"""What agents run on: the program of each engine, its version, a credential."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from watchbill import engines, isolation, secrets, versions
from watchbill.compiled import Compiled
from watchbill.doctor.credentials import as_seen
from watchbill.doctor.finding import Finding, Look, of_problem, with_folder_of
from watchbill.engines import credential
from watchbill.engines.base import Engine, Limits, Program, Task
from watchbill.errors import Fixable
from watchbill.isolation.base import program_path

#: Looked for although no agent runs on them yet.
_COMMON = ("claude", "codex")
#: What programs said of their versions: each is asked once, for all agents. None: it hung.
_told: dict[tuple[str, tuple[str, ...], str], str | Fixable | None] = {}


def each(it: Look) -> Iterator[tuple[str, Callable[[Look], Iterator[Finding]]]]:
    """What agents run on, and what they could: a check for each."""
    _told.clear()
    used = _used(it.roster) if it.roster else {}
    for (name, options), agents in used.items():
        yield f"{name} ({', '.join(agents)})", partial(_engine, name=name, options=options, agents=agents)
    for name in _COMMON:
        if name not in {key[0] for key in used} and shutil.which(name, path=program_path(os.environ)):
            table = it.roster.fleet.engines.get(name, {}) if it.roster else {}
            yield name, partial(_engine, name=name, options=json.dumps(table, default=str), agents=())


def _used(roster: Compiled) -> dict[tuple[str, str], tuple[str, ...]]:
    """(engine, its options as JSON) -> the agents that run on it so, or fall back on it."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for agent in roster.agents.values():
        for use in agent.uses:
            own = agent.engine if use == agent.uses[0] else {}
            options = {**roster.fleet.engines.get(use.engine, {}), **own}
            key = use.engine, json.dumps(options, sort_keys=True, default=str)
            found[key] = (*found.get(key, ()), agent.name)
    return found


def _engine(it: Look, *, name: str, options: str, agents: tuple[str, ...]) -> Iterator[Finding]:
    """Its program, the version of that, a credential, and traps; of one that nobody runs on nothing is wrong."""
    subject, state = f"{name} ({', '.join(agents)})" if agents else name, "wrong" if agents else "note"
    task = _task(it, json.loads(options))
    try:
        engine = engines.named(name)
        program = engine.program(task)
        if program is not None:
            yield Finding("engines", subject, "ok", f"{program.path} is version {_version(it, name, program, agents)}")
        key = credential.of(engine, task.options, os.environ)
        launch = engine.launch(task._replace(key=key))
    except Fixable as problem:
        yield _as_seen(it, of_problem("engines", subject, state, problem), name, task.options)
        return
    if program is None:
        yield Finding("engines", subject, "ok", f"{launch.argv[0]} is there")
    if key is not None:
        yield Finding("engines", subject, "ok", f"its credential is there: {_where(engine, task.options)}")


def _as_seen(it: Look, found: Finding, name: str, options: Mapping[str, Any]) -> Finding:
    """With what the shell that asked has of it, and the fix for that."""
    if found.id != "WB-ENGINE-01":
        return as_seen(it, found, str(options.get("key") or ""), f"[engines.{name}] key = ")
    words = options.get("argv")
    first = words[0] if isinstance(words, list) and words else None
    theirs = it.in_shell(str(options.get("program") or first or name))
    if theirs is None:
        return found
    return found._replace(what=f"{found.what}; your shell finds {theirs}", fix=with_folder_of(theirs))


def _task(it: Look, options: Mapping[str, Any]) -> Task:
    """As a firing would ask; nothing of it is there, and nothing is started."""
    root = os.path.join(it.home.worktrees, "doctor")
    env = options.get("env", {})
    return Task(
        "", f"{root}/tree", "", f"{root}/home", f"{root}/tmp", "", options.get("model"), options, env, Limits(1500)
    )


def _version(it: Look, name: str, program: Program, agents: tuple[str, ...]) -> str:
    """Fixable as versions.check. What is remembered is not believed here: who asks the doctor wants to know."""
    asked = {it.roster.agents[agent].isolation for agent in agents} if it.roster else set()
    layer = isolation.choose("none" if asked == {"none"} else "auto")
    within = versions.inside(layer, (os.path.expanduser("~"), it.home.root))
    key = program.path, program.asks, within.name
    if key not in _told:
        _told[key] = None  # and so it stays when the question is cut short
        try:
            _told[key] = versions.ask(name, program, within)
        except Fixable as silent:
            _told[key] = silent
    said = _told[key]
    if not isinstance(said, str):
        raise said or Fixable("WB-ENGINE-08", f"{name}: {program.path} gave no answer", fix="see what keeps it")
    return versions.accept(name, program, said)


def _where(engine: Engine, options: Mapping[str, Any]) -> str:
    """Where it lies, and never what it is: also of a text that somebody put in place of a reference."""
    named = options.get("key")
    return str(named) if named is not None and secrets.problem_of(str(named)) is None else f"{engine.name}'s own login"
