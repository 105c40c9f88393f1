"""Where everything lies below $WATCHBILL_HOME (DESIGN section 14).

Paths are plain strings: `pathlib` would cost the refused firing more than the reading of the ledger.
"""

import os
from typing import NamedTuple

from watchbill.errors import Fixable


class Home(NamedTuple):
    """One fleet's directory on one host."""

    root: str  # absolute

    @property
    def fleet_toml(self) -> str:
        return os.path.join(self.root, "fleet.toml")

    @property
    def agents(self) -> str:
        return os.path.join(self.root, "agents")

    @property
    def roster(self) -> str:
        return os.path.join(self.root, "roster.json")

    @property
    def ledger(self) -> str:
        return os.path.join(self.root, "ledger.db")

    @property
    def blobs(self) -> str:
        return os.path.join(self.root, "blobs")

    @property
    def mirrors(self) -> str:
        return os.path.join(self.root, "mirrors")

    @property
    def worktrees(self) -> str:
        return os.path.join(self.root, "worktrees")

    @property
    def logs(self) -> str:
        return os.path.join(self.root, "logs")

    @property
    def locks(self) -> str:
        return os.path.join(self.root, "locks")

    @property
    def units(self) -> str:
        """What was applied: launchers of the roles, copies of the units, who applied them and when."""
        return os.path.join(self.root, "units")

    @property
    def held(self) -> str:
        return os.path.join(self.root, "held")

    def gate(self, agent: str | None = None) -> str:
        """The file that keeps an agent, or all of them, from being started while it is there."""
        return os.path.join(self.held, f"agent-{agent}" if agent else "all")

    @property
    def host(self) -> str:
        return os.path.join(self.root, "host.json")


def find_home(environ: dict[str, str] | os._Environ[str], flag: str | None = None) -> Home:
    """`--home` > `$WATCHBILL_HOME` > `~/.watchbill`; by its real path, so that one home has one name."""
    root = flag or environ.get("WATCHBILL_HOME") or os.path.join(os.path.expanduser("~"), ".watchbill")
    return Home(os.path.realpath(os.path.expanduser(root)))


def existing_home(environ: dict[str, str] | os._Environ[str], flag: str | None = None) -> Home:
    """The same, of a fleet that is there; Fixable WB-HOME-01 when it is not. Nothing is made."""
    home = find_home(environ, flag)
    if not os.path.isdir(home.root):
        raise Fixable(
            "WB-HOME-01",
            f"{home.root}: there is no fleet here",
            fix="set WATCHBILL_HOME or give --home; `watchbill demo` makes one to look at",
        )
    return home
