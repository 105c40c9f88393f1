"""What a check says, and what it is given to look at."""

from __future__ import annotations

import os
import shutil
from typing import NamedTuple

from watchbill import compiled
from watchbill.compiled import Compiled
from watchbill.errors import Fixable
from watchbill.home import Home
from watchbill.isolation.base import program_path

#: ok; gap: a layer is known not to do that; note: nobody depends on it yet, or it may be meant; wrong.
STATES = ("ok", "gap", "note", "wrong")
#: Where a finding holds.
PLACES = ("shell", "scheduler", "both")
#: Variables whose values say where something lies. Of every other the shell tells no more than its name.
_TOLD = ("PATH", "HOME", "WATCHBILL_HOME", "SSH_AUTH_SOCK", "GH_CONFIG_DIR", "XDG_CONFIG_HOME",
         "SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS")  # fmt: skip


class Finding(NamedTuple):
    """One thing that was looked at."""

    check: str  # fleet | environment | programs | engines | isolation | files | host | timers
    subject: str  # an engine, a layer, a file, an agent, ...
    state: str  # one of STATES
    what: str
    id: str | None = None  # as errors.Fixable
    fix: str | None = None
    where: str = "both"  # one of PLACES


class Look(NamedTuple):
    """Through whose eyes, and at what."""

    home: Home
    roster: Compiled | None
    place: str  # shell | scheduler
    shell: dict[str, str | None]  # the variables of the shell that asked; None: its value was not told

    def only_in_shell(self, name: str) -> bool:
        """Whether the shell that asked has a variable that is not here."""
        return self.place == "scheduler" and name in self.shell and name not in os.environ

    def in_shell(self, program: str) -> str | None:
        """Where the shell that asked finds a program that is not found here."""
        path = program_path({"PATH": self.shell.get("PATH") or ""})
        return shutil.which(program, path=path) if self.place == "scheduler" and path else None


def shell_of(environ: os._Environ[str]) -> dict[str, str | None]:
    """What a scheduler's column has to know of the shell; never a secret."""
    return {name: value if name in _TOLD else None for name, value in environ.items()}


def of_problem(check: str, subject: str, state: str, problem: Fixable) -> Finding:
    what = f"{problem.what}: {problem.why}" if problem.why else problem.what
    return Finding(check, subject, state, what, problem.id, problem.fix or None)


def with_folder_of(program: str) -> str:
    """The fix for a program that only the shell's PATH has."""
    wanted = program_path({"PATH": os.pathsep.join((os.path.dirname(program), os.environ.get("PATH", "")))})
    return f'[schedule] path = "{wanted}" in fleet.toml, then `watchbill apply`'


def with_variable(it: Look, name: str) -> str:
    """The fix for a variable that only the shell has. XDG_* is for Watchbill to say; gh has a name of its own."""
    value = it.shell.get(name) or "..."
    if name == "XDG_CONFIG_HOME":
        name, value = "GH_CONFIG_DIR", os.path.join(value, "gh")
    return f'[schedule] env = {{{name} = "{value}"}} in fleet.toml, then `watchbill apply`'


def roster_of(home: Home) -> Compiled:
    """The compiled one, or read from its sources when it is not up to date. Fixable as `read_roster`."""
    known = compiled.load(home.roster)
    if compiled.is_current(known, home.root):
        return known
    from watchbill.roster import read_roster

    return read_roster(home.root)
