"""Is everything there that the fleet needs, and does isolation hold? Each finding with its fix.

examples:
  watchbill doctor
  watchbill doctor --json

Engines: every one that the roster uses, and claude and codex where they are installed: the program, its version, a
credential. Isolation: from inside each layer that works on this host, every way out that we know of is tried; what is
made for that goes away again. It works without a fleet, too. Exit status 78 when something is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from watchbill import compiled, engines, isolation, secrets, versions
from watchbill.cli import shared
from watchbill.compiled import Compiled
from watchbill.engines import credential
from watchbill.engines.base import Engine, Limits, Program, Task
from watchbill.errors import Fixable
from watchbill.home import Home, find_home
from watchbill.isolation import bwrap, landlock, probe
from watchbill.isolation.base import program_path
from watchbill.isolation.probe import Tried
from watchbill.ledger import db
from watchbill.outcomes import EXIT

HELP = "what is missing or wrong on this host, and its fix"
#: Looked for although no agent runs on them yet.
_COMMON = ("claude", "codex")
#: ok; gap: a layer is known not to do that; note: nobody depends on it yet; wrong.
_STATES = ("ok", "gap", "note", "wrong")


class Finding(NamedTuple):
    """One thing that was looked at."""

    check: str  # fleet | engines | isolation
    subject: str  # an engine, a layer, ...
    state: str  # one of _STATES
    what: str
    id: str | None = None  # as errors.Fixable
    fix: str | None = None


class Layer(NamedTuple):
    """A layer of isolation on this host."""

    name: str
    unavailable: str | None  # why
    tried: tuple[Tried, ...]


class Host(NamedTuple):
    """What is looked at."""

    home: Home
    roster: Compiled | None
    problems: tuple[Fixable, ...]  # why its roster or its ledger cannot be read
    layers: tuple[Layer, ...]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object with a schema version")


def run(args: argparse.Namespace) -> int:
    host = _host(find_home(os.environ, args.home))
    found = [finding for check in CHECKS for finding in check(host)]
    wrong = sum(finding.state == "wrong" for finding in found)
    if args.json:
        probes = [{"layer": layer.name, **tried._asdict()} for layer in host.layers for tried in layer.tried]
        whole = {"home": host.home.root, "ok": not wrong, "findings": [one._asdict() for one in found]}
        shared.print_json({**whole, "probes": probes})
    else:
        _print(found)
        print(
            f"{shared.count(wrong, 'thing is', 'things are')} wrong" if wrong else "nothing is wrong", file=sys.stderr
        )
    return EXIT["invalid"] if wrong else 0


def _print(found: list[Finding]) -> None:
    """In a pipe a line has its fix; on a terminal that is too wide."""
    if not sys.stdout.isatty():
        shared.print_table((), [(one.check, one.subject, one.state, one.what, one.id, one.fix) for one in found])
        return
    rows = [(one.check, one.subject, one.state, one.what) for one in found]
    shared.print_table(("check", "subject", "state", "what"), rows)
    for one in found:
        if one.fix is not None:
            print(f"\n{one.subject}: {one.what}\n  fix: {one.fix}")


def _host(home: Home) -> Host:
    roster, problems = None, []
    if os.path.isdir(home.root):
        try:
            roster = _roster(home)
        except Fixable as problem:
            problems.append(problem)
        try:
            if os.path.exists(home.ledger):
                db.open_ledger(home.ledger).close()
        except Fixable as problem:
            problems.append(problem)
    return Host(home, roster, tuple(problems), tuple(_layers(home)))


def _roster(home: Home) -> Compiled:
    known = compiled.load(home.roster)
    if known is not None and known.sources == compiled.source_facts(home.root):
        return known
    from watchbill.roster import read_roster

    return read_roster(home.root)


def _layers(home: Home) -> Iterator[Layer]:
    base = home.root if os.access(home.root, os.W_OK) else tempfile.gettempdir()
    for layer in (bwrap, landlock):
        why = layer.unavailable()
        try:
            tried = () if why else probe.probe(layer, base)
        except OSError as error:  # a full disk
            tried = (Tried("any", "get out at all", None, None, str(error)),)
        yield Layer(layer.name, why, tried)


def fleet(host: Host) -> Iterator[Finding]:
    """Is there one, and can its roster and ledger be read?"""
    for problem in host.problems:
        yield _problem("fleet", host.home.root, "wrong", problem)
    if host.problems:
        return
    if host.roster is None:
        fix = "`watchbill demo` makes one to look at; else set WATCHBILL_HOME or give --home"
        yield Finding("fleet", host.home.root, "note", "there is no fleet here", fix=fix)
    else:
        yield Finding("fleet", host.home.root, "ok", f"{shared.count(len(host.roster.agents), 'agent')} in the roster")
        yield _forge(host.roster)


def _forge(roster: Compiled) -> Finding:
    """Whether the credential for GitHub can be had; nobody is asked whether it is any good."""
    try:
        secrets.of_forge(roster.fleet.auth, os.environ)
    except Fixable as problem:
        return _problem("fleet", "GitHub", "wrong", problem)
    reference = roster.fleet.auth.partition(":")[2]
    return Finding("fleet", "GitHub", "ok", f"its credential is there: {reference or 'of gh'}")


def running_on(host: Host) -> Iterator[Finding]:
    """What agents run on, and what they could."""
    used = _used(host.roster) if host.roster else {}
    for key, agents in used.items():
        yield from _engine(host, *key, agents)
    for name in _COMMON:
        if name not in {key[0] for key in used} and shutil.which(name, path=program_path(os.environ)):
            table = host.roster.fleet.engines.get(name, {}) if host.roster else {}
            yield from _engine(host, name, json.dumps(table, default=str), ())


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


def _engine(host: Host, name: str, options: str, agents: tuple[str, ...]) -> Iterator[Finding]:
    """Its program, the version of that, a credential, and traps; of one that nobody runs on nothing is wrong."""
    subject, state = f"{name} ({', '.join(agents)})" if agents else name, "wrong" if agents else "note"
    try:
        engine = engines.named(name)
        task = _task(host, json.loads(options))
        program = engine.program(task)
        if program is not None:
            yield Finding(
                "engines", subject, "ok", f"{program.path} is version {_version(host, name, program, agents)}"
            )
        key = credential.of(engine, task.options, os.environ)
        launch = engine.launch(task._replace(key=key))
    except Fixable as problem:
        yield _problem("engines", subject, state, problem)
        return
    if program is None:
        yield Finding("engines", subject, "ok", f"{launch.argv[0]} is there")
    if key is not None:
        yield Finding("engines", subject, "ok", f"its credential is there: {_where(engine, task.options)}")


def _task(host: Host, options: Mapping[str, Any]) -> Task:
    """As a firing would ask; nothing of it is there, and nothing is started."""
    root = os.path.join(host.home.worktrees, "doctor")
    env = options.get("env", {})
    return Task(
        "", f"{root}/tree", "", f"{root}/home", f"{root}/tmp", "", options.get("model"), options, env, Limits(1500)
    )


def _version(host: Host, name: str, program: Program, agents: tuple[str, ...]) -> str:
    """Fixable as versions.check. What is remembered is not believed here: who asks the doctor wants to know."""
    asked = {host.roster.agents[agent].isolation for agent in agents} if host.roster else set()
    layer = isolation.choose("none" if asked == {"none"} else "auto")
    hidden = (os.path.expanduser("~"), host.home.root)
    return versions.accept(name, program, versions.ask(name, program, versions.inside(layer, hidden)))


def _where(engine: Engine, options: Mapping[str, Any]) -> str:
    """Where it lies, and never what it is: also of a text that somebody put in place of a reference."""
    named = options.get("key")
    return str(named) if named is not None and secrets.problem_of(str(named)) is None else f"{engine.name}'s own login"


def layers(host: Host) -> Iterator[Finding]:
    """What each does on this host, and whether agents have what they ask for."""
    for layer in host.layers:
        if layer.unavailable is None:
            yield from _held(layer)
        else:
            fix = "apt install bubblewrap (or your system's package of that name)" if layer.name == "bwrap" else None
            yield Finding("isolation", layer.name, "note", layer.unavailable, fix=fix)
    wanted = {agent.isolation for agent in host.roster.agents.values() if agent.uses} if host.roster else {"auto"}
    if wanted == {"none"} or any(layer.unavailable is None for layer in host.layers):
        return
    try:
        isolation.choose("required")
    except Fixable as problem:
        # Elsewhere than on Linux an engine's own sandbox is all there is.
        bad = "required" in wanted or sys.platform == "linux"
        yield _problem("isolation", "agents", "wrong" if bad else "note", problem)


def _held(layer: Layer) -> Iterator[Finding]:
    held = [tried for tried in layer.tried if tried.held]
    yield Finding("isolation", layer.name, "ok", f"held {len(held)} of {shared.count(len(layer.tried), 'way')} out")
    for tried in layer.tried:
        if tried.held is False and tried.known is not None:
            yield Finding("isolation", layer.name, "gap", f"a program can {tried.what}: {tried.known}")
        elif tried.held is False:
            fix = "report it with `watchbill doctor --json`; until it holds, `watchbill pause --fleet`"
            yield Finding("isolation", layer.name, "wrong", f"a program can {tried.what}", "WB-DOCTOR-02", fix)
        elif tried.held is None:
            what = f"nobody can tell whether a program can {tried.what}: {tried.detail}"
            yield Finding(
                "isolation", layer.name, "wrong", what, "WB-DOCTOR-03", "run it again where nothing else runs"
            )


def _problem(check: str, subject: str, state: str, problem: Fixable) -> Finding:
    what = f"{problem.what}: {problem.why}" if problem.why else problem.what
    return Finding(check, subject, state, what, problem.id, problem.fix or None)


#: One more thing to look at is one more of these.
CHECKS: tuple[Callable[[Host], Iterator[Finding]], ...] = (fleet, running_on, layers)
