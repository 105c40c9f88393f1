"""`watchbill loop` as a scheduler: for a container, and for a machine without launchd and systemd.

It reads the roster itself and anew when that changes, so nothing is installed and nothing can be paused behind our
back: what an adapter has to say is whether it runs. See `rounds` for what it does.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence

from watchbill import lock
from watchbill.compiled import Compiled
from watchbill.errors import Fixable
from watchbill.home import Home, find_home
from watchbill.schedulers import units
from watchbill.schedulers.base import Change, File, Loaded, Outcome, Say, Unit

name = "loop"


def lock_path(home: Home) -> str:
    """One loop a home: held while it runs."""
    return os.path.join(home.locks, "loop")


def unavailable() -> Fixable | None:
    return None


def files(unit: Unit) -> tuple[File, ...]:  # noqa: ARG001 - the port's signature, here and below
    return ()


def timezone() -> str | None:
    """What it was started with, which is what this process has too, in the same container."""
    return os.environ.get("TZ")


def extras(home: Home, roster: Compiled) -> Mapping[str, Unit]:  # noqa: ARG001
    return {}


def found(prefix: str) -> tuple[File, ...]:  # noqa: ARG001
    return ()


def look(names: Sequence[str]) -> Mapping[str, Loaded]:
    """Whether the loop runs; of a home that is not this process's, that is not known."""
    home = find_home(os.environ)
    runs = lock.held(lock_path(home))
    silent = Loaded(known=True, armed=True, why="`watchbill loop` does not run")
    seen = Loaded(known=True, armed=True)
    ours = units.prefix(home)
    return {one: silent if one.startswith(ours) and not runs else seen for one in names}


def install(changes: Sequence[Change], say: Say) -> Mapping[str, Outcome]:  # noqa: ARG001
    return {change.unit.agent: None for change in changes}


def remove(names: Sequence[str], files: Sequence[File], say: Say) -> Mapping[str, Outcome]:  # noqa: ARG001
    return dict.fromkeys(names)


def arm(name: str, files: Sequence[File]) -> Outcome:  # noqa: ARG001
    return None


def environment(unit: Unit) -> dict[str, str]:
    """What it starts sees what the loop sees, for that is how a container is given its secrets; and its unit's own."""
    return {**os.environ, **dict(unit.environment)}


def once(unit: Unit, timeout_s: float) -> int | None:
    """A signal that ended it is 128 and its number, as a shell says it."""
    try:
        done = subprocess.run(unit.argv, cwd=unit.directory, env=environment(unit), stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=timeout_s, start_new_session=True, check=False)  # fmt: skip
    except subprocess.TimeoutExpired:
        return None
    return done.returncode if done.returncode >= 0 else 128 - done.returncode
