"""What each agent of a roster wants of the system's scheduler: a `Unit`.

Every path in it survives an upgrade of Watchbill, and of Python too where the environment is made anew in its place:
the interpreter is named as `PREFIX/bin/python`, and what it starts is a launcher of the role in the home, which asks
that interpreter where the role scripts lie.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator

from watchbill import deadline
from watchbill.compiled import Agent, Compiled, Fleet
from watchbill.home import Home
from watchbill.schedulers import spread, zone
from watchbill.schedulers.base import File, Unit
from watchbill.schedulers.schedule import check, crowds, lint

#: Whoever shares a minute is started within it, each always at the same second, where the system can do that.
_DELAY_S = 55
_LAUNCHER = """\
# The role script "{role}", wherever this interpreter keeps it. Written by `watchbill apply`.
from watchbill import roles

path = roles.script_of("{role}")
with open(path, "rb") as script:
    exec(compile(script.read(), path, "exec"))
"""


def of_roster(home: Home, roster: Compiled) -> dict[str, Unit]:
    """By agent; an agent that fires by hand only has none."""
    found = {name: of_agent(home, roster.fleet, agent) for name, agent in roster.agents.items()}
    return {name: unit for name, unit in found.items() if unit.schedule.entries or unit.schedule.interval_s}


def of_agent(home: Home, fleet: Fleet, agent: Agent) -> Unit:
    """One agent's."""
    written = check(agent.schedule)
    return Unit(
        agent=agent.name,
        name=unit_name(home, agent.name),
        description=f"Watchbill: {agent.name} ({agent.role}), {agent.schedule}",
        home=home.root,
        argv=(interpreter(), "-I", launcher_path(home, agent.role), agent.name, "--scheduled", "--home", home.root),
        directory=home.root,
        environment=environment(home, fleet),
        log=os.path.join(home.logs, f"{agent.name}.log"),
        deadline_s=deadline.of_scheduler(agent, fleet),
        gates=(home.gate(), home.gate(agent.name)),
        schedule=spread.shifted(written, agent.name),
        delay_s=_DELAY_S if written.spread else 0,
    )


def unit_name(home: Home, agent: str) -> str:
    """`watchbill-bosun`; with a tag where the fleet is not the one in ~/.watchbill, so that two do not meet."""
    return f"{prefix(home)}{agent}"


#: What the names of all units of ours begin with, whichever home they are of.
EVERY = "watchbill-"


def prefix(home: Home) -> str:
    """What the names of this home's units begin with."""
    usual = os.path.realpath(os.path.join(person(), ".watchbill"))
    tag = "" if home.root == usual else hashlib.sha256(os.fsencode(home.root)).hexdigest()[:6] + "-"
    return f"{EVERY}{tag}"


def person() -> str:
    """The home of whoever types, by its real path: whichever way a shell spells it, units are the same."""
    return os.path.realpath(os.path.expanduser("~"))


def interpreter() -> str:
    """This one, by the name that an upgrade leaves alone."""
    stable = os.path.join(sys.prefix, "bin", "python")
    return stable if sys.prefix != sys.base_prefix and os.access(stable, os.X_OK) else sys.executable


def environment(home: Home, fleet: Fleet) -> tuple[tuple[str, str], ...]:
    """Variables of what a timer starts; the rest is the system's own. Sorted, so that equal ones are equal bytes."""
    ours = {"PATH": fleet.timers.path or default_path(), "WATCHBILL_HOME": home.root}
    return tuple(sorted({**fleet.timers.env, **ours}.items()))


def default_path() -> str:
    """The same from whatever shell `apply` is typed: a PATH that came from there would change with it."""
    own = os.path.join(person(), ".local", "bin")
    brew = ("/opt/homebrew/bin",) if sys.platform == "darwin" else ()
    return ":".join((own, *brew, "/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"))


def surprises(roster: Compiled) -> Iterator[tuple[str | None, str]]:
    """What is allowed and will surprise somebody: agent (None: several) and a sentence."""
    schedules = {name: check(agent.schedule) for name, agent in roster.agents.items()}
    here = zone.local()
    yield from ((name, text) for name, schedule in schedules.items() for text in lint(schedule, here))
    yield from ((None, text) for text in crowds(schedules))


def launcher_path(home: Home, role: str) -> str:
    return os.path.join(home.units, "bin", role)


def launchers(home: Home, roster: Compiled) -> tuple[File, ...]:
    """What the units start, one for each role that somebody plays."""
    roles = sorted({agent.role for agent in roster.agents.values()})
    return tuple(File(launcher_path(home, role), _LAUNCHER.format(role=role).encode()) for role in roles)
