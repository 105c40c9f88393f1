"""Four views of every agent's unit, compared: what is wanted, what was applied, what lies on disk, what is loaded."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from watchbill.compiled import Compiled
from watchbill.errors import Fixable
from watchbill.home import Home
from watchbill.schedulers import header, manifest, registry, units
from watchbill.schedulers.base import File, Loaded, Scheduler, Unit
from watchbill.schedulers.manifest import Applied, Manifest

#: What `apply` would do about it; `prune` only with --prune, `foreign` never.
CHANGES = ("none", "add", "change", "restore", "arm", "remove", "prune", "foreign")
#: How it is now.
STATES = (
    "armed",
    "not applied",
    "paused outside",
    "drifted",
    "stale",
    "failed",
    "orphan",
    "foreign",
    "unknown",
)


class Seen(NamedTuple):
    """One agent's unit."""

    agent: str
    name: str
    unit: Unit | None  # as the roster wants it; None: it wants none
    wanted: tuple[File, ...]
    applied: Applied | None
    disk: tuple[File, ...]  # of what is wanted or was applied, whatever is there
    loaded: Loaded
    state: str  # one of STATES
    what: str  # the same in a sentence, with how and why; empty for what needs no words
    change: str  # one of CHANGES

    @property
    def paused(self) -> bool:
        """Behind our back, and to be left alone."""
        return self.state == "paused outside"


class Survey(NamedTuple):
    """All of them."""

    scheduler: Scheduler
    problem: Fixable | None  # why the system could not be asked: then nothing of what is loaded is known
    manifest: Manifest
    agents: dict[str, Seen]


def take(home: Home, roster: Compiled | None) -> Survey:
    """Look at everything once. Never fails for the system's sake: `problem` says so. OSError: a file cannot be read.

    From here on this process goes by the scheduler's zone: when an agent fires does not depend on whose shell asks.
    """
    remembered = manifest.read(home)
    use = roster.fleet.timers.use if roster else remembered.scheduler or "auto"
    scheduler = registry.chosen(use)
    registry.go_by_its_clock(use)
    if remembered.scheduler not in (None, scheduler.name):
        remembered = manifest.NOTHING  # what another system was told; `apply` takes it away there first
    wanted = units.of_roster(home, roster) if roster else {}
    if roster and wanted:
        wanted |= scheduler.extras(home, roster)
    found = _ours(home, scheduler.found(units.prefix(home)))
    agents = sorted({*wanted, *remembered.agents, *found})
    names = {agent: units.unit_name(home, agent) for agent in agents}
    problem = scheduler.unavailable()
    loaded: Mapping[str, Loaded] = {}
    if problem is None:
        try:
            loaded = scheduler.look(list(names.values()))
        except Fixable as silent:
            problem = silent
    known = set(roster.agents) if roster else None
    seen = {}
    for agent in agents:
        unit, applied = wanted.get(agent), remembered.agents.get(agent)
        if applied and applied.name != names[agent]:  # what a copied home brought along, or one that was moved
            applied = None
        files = scheduler.files(unit) if unit else ()
        disk = manifest.present(_paths((*files, *(applied.files if applied else ()), *found.get(agent, ()))))
        bare = Seen(agent, names[agent], unit, files, applied, disk, loaded.get(names[agent], Loaded()), "", "", "")
        if agent in remembered.pending:
            bare = bare._replace(applied=None)
        seen[agent] = _judged(home, bare, known, asked=problem is None)
    return Survey(scheduler, problem, remembered, _with_launchers(home, roster, seen))


def _with_launchers(home: Home, roster: Compiled | None, seen: dict[str, Seen]) -> dict[str, Seen]:
    """Whose launcher is gone fires in vain, whatever the system says."""
    broken = {file.path for file in manifest.differing(units.launchers(home, roster) if roster else ())}
    for agent, one in seen.items():
        if one.unit and broken.intersection(one.unit.argv) and one.state in ("armed", "stale"):
            lost = next(iter(broken.intersection(one.unit.argv)))
            seen[agent] = one._replace(
                state="failed", what=f"{lost}, which it starts, is not as it was written", change="restore"
            )
    return seen


def _ours(home: Home, files: Iterable[File]) -> dict[str, tuple[File, ...]]:
    """Files that say they are this home's, by agent: also such as nobody remembers."""
    found: dict[str, tuple[File, ...]] = {}
    for file in files:
        said = header.read(file.content)
        if said is not None and said.home == home.root and stem(file) == units.unit_name(home, said.agent):
            found[said.agent] = (*found.get(said.agent, ()), file)
    return found


def stem(file: File) -> str:
    """A unit's name, by one of its files."""
    return os.path.splitext(os.path.basename(file.path))[0]


def whose(home: Home, file: File) -> str | None:
    """The other home that a file is of; None: it is this one's, or does not say. A home that is gone left its files."""
    said = header.read(file.content)
    return said.home if said is not None and said.home != home.root and os.path.isdir(said.home) else None


def _paths(files: Iterable[File]) -> tuple[File, ...]:
    return tuple({file.path: file for file in files}.values())


def _judged(home: Home, seen: Seen, known: set[str] | None, *, asked: bool) -> Seen:
    """The same with its state, in order of what a person has to know first. `known`: agents; None: no roster can be
    read."""
    if known is None:
        return seen._replace(state="unknown", what="the roster cannot be read", change="none")
    if stranger := _stranger(home, seen):
        return seen._replace(state="foreign", what=stranger, change="foreign")
    if seen.unit is None:
        change = "remove" if seen.agent in known or "." in seen.agent else "prune"
        return seen._replace(state="orphan", what="the roster wants no timer for it", change=change)
    change = _change(seen)
    if not asked:
        return seen._replace(state="unknown" if seen.applied else "not applied", what="", change=change)
    if seen.applied is None and not seen.loaded.armed:
        return seen._replace(
            state="failed" if seen.loaded.why else "not applied", what=seen.loaded.why or "", change=change
        )
    if how := _paused(seen):
        masked = any(file.content == b"" for file in seen.disk)  # a link to /dev/null, which is not ours to undo
        kept = change if not _missing(seen) and not masked and change in ("change", "restore") else "none"
        return seen._replace(state="paused outside", what=how, change=kept)
    if seen.loaded.why:
        return seen._replace(state="failed", what=seen.loaded.why, change=change)
    if _edited(seen):
        return seen._replace(state="drifted", what="its files were edited", change="restore")
    if seen.loaded.stale:
        return seen._replace(state="stale", what="what is loaded is not what lies on disk", change=_least(change))
    return seen._replace(state="armed" if seen.loaded.armed else "not applied", change=change)


def _stranger(home: Home, seen: Seen) -> str | None:
    """A file that is in our place and not ours; one that we applied, and whose line somebody took out, is edited."""
    remembered = {file.path for file in seen.applied.files} if seen.applied else set()
    for file in seen.disk:
        said = header.read(file.content)
        if said is None and file.path not in remembered:
            return f"{file.path} is not ours: it does not say that Watchbill manages it"
        other = whose(home, file) or (said.home if said and said.home != home.root else None)
        if other and (file.path not in remembered or os.path.isdir(other)):
            return f"{file.path} belongs to the fleet in {other}"
    elsewhere = seen.loaded.path if seen.loaded.known and not seen.disk and seen.applied is None else None
    if (
        elsewhere
        and seen.unit
        and os.path.realpath(elsewhere) not in {os.path.realpath(one.path) for one in seen.wanted}
    ):
        return f"another {seen.name} is loaded from {elsewhere}, which is not ours"
    return None


def _paused(seen: Seen) -> str | None:
    if seen.applied is None:
        return None
    if (gone := _missing(seen)) and "." not in seen.agent:  # what is no agent's is nothing to pause
        still = "; it still fires, until the system reads its units anew" if seen.loaded.armed else ""
        return f"{gone[0]} was removed{still}"
    return seen.loaded.paused


def _missing(seen: Seen) -> list[str]:
    """Paths that were applied and are not there."""
    there = {file.path for file in seen.disk}
    return [file.path for file in seen.applied.files if file.path not in there] if seen.applied else []


def _edited(seen: Seen) -> bool:
    if seen.applied is None:
        return any((said := header.read(file.content)) is not None and said.edited for file in seen.disk)
    remembered = {file.path: file.content for file in seen.applied.files}
    return any(remembered.get(file.path) != file.content for file in seen.disk)


def _change(seen: Seen) -> str:
    wanted, disk = dict(seen.wanted), dict(seen.disk)
    if not disk and (wanted or seen.applied is None):
        return "add"
    if wanted != disk:
        return "restore" if seen.applied and wanted == dict(seen.applied.files) else "change"
    return "none" if seen.loaded.armed and seen.applied else "arm"


def _least(change: str) -> str:
    return "change" if change == "none" else change
