"""What isolation promises: a program that may write its own places, and cannot even read what is hidden.

Read everything, write little, see nothing of the operator's. The layers differ in how they do it; what is open to a
program is worked out here, once for all of them.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from typing import NamedTuple, Protocol


class Jail(NamedTuple):
    """What a program may do with the file system. Paths are absolute; those that do not exist are passed over."""

    workdir: str  # where it starts
    rw: tuple[str, ...]  # what it may write: worktree, its home, its tmp, caches
    ro: tuple[str, ...] = ()  # what it may read although it lies below something hidden: the mirror
    hidden: tuple[str, ...] = ()  # what it may not even read: the operator's home, the ledger


class Isolation(Protocol):
    """A layer: a module with these members."""

    name: str
    #: what `wrap` starts is a monitor that a signal would end too soon: signals go to the group of its child
    monitored: bool

    def unavailable(self) -> str | None:
        """Why it cannot be used on this host, or None. Really tries it, once."""

    def wrap(self, jail: Jail, argv: tuple[str, ...]) -> tuple[str, ...]:
        """What to start, in `jail.workdir`, so that `argv` runs in the jail."""


class Place(NamedTuple):
    """A directory or file that differs from the rule "may be read, may not be written"."""

    path: str  # real: no symbolic link in it
    how: str  # hidden | ro | rw


#: Where every process of a host meets: sockets of agents, buses and daemons, other firings' files.
MEETING_PLACES = ("/tmp", "/run")

#: What programs in PREFIX/bin need of PREFIX. Not `share` or `etc`: below ~/.local these hold keyrings and tokens.
_BESIDE_BIN = (
    "bin",
    "sbin",
    "shims",
    "lib",
    "lib64",
    "libexec",
    "include",
    "versions",
    "plugins",
    "version",
    "pyvenv.cfg",
    "codex-path",  # where codex keeps the programs that it brings along
    "codex-resources",
    "codex-package.json",
)
#: What npm, pnpm and bun install: a program there needs its neighbours, and its link lies in `.bin` among them.
_PACKAGES = "node_modules"
_RANK = {"hidden": 0, "ro": 1, "rw": 2}


def places(jail: Jail, argv: tuple[str, ...], environ: Mapping[str, str] = os.environ) -> list[Place]:
    """Every place of its own kind, a parent before what lies below it: the last word on a path is its nearest place.

    Hidden besides what the jail says: MEETING_PLACES. Readable besides: programs that lie below something hidden (on
    PATH, `argv[0]`, our own interpreter and package), so that checks still find a python kept in the operator's home.
    A home at / cannot be hidden, and is not.
    """
    hidden = [real for real in map(os.path.realpath, (*MEETING_PLACES, *jail.hidden)) if _there(real) and real != "/"]
    found = dict.fromkeys(hidden, "hidden")
    programs = [os.path.realpath(path) for path in _needed(argv, environ) if os.path.exists(path)]
    for path in programs:
        if any(_below(path, place) for place in hidden) and not any(_below(place, path) for place in hidden):
            found[path] = "ro"
    for paths, how in ((jail.ro, "ro"), (jail.rw, "rw")):
        found.update((real, how) for real in map(os.path.realpath, paths) if _there(real))
    named = [Place(path, how) for path, how in found.items()]
    return sorted(named, key=lambda place: (place.path.count("/"), _RANK[place.how], place.path))


def program_path(environ: Mapping[str, str]) -> str:
    """PATH without relative and empty entries: those would find programs in the worktree."""
    entries = environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(dict.fromkeys(entry for entry in entries if os.path.isabs(entry)))


def try_once(argv: tuple[str, ...]) -> str | None:
    """Why this does not end well, or None."""
    try:
        done = subprocess.run(argv, env={"PATH": os.defpath}, cwd="/", stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, errors="replace", timeout=20, check=False)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    return done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit status {done.returncode}"


def _needed(argv: tuple[str, ...], environ: Mapping[str, str]) -> list[str]:
    """What a program needs to read in order to run at all, wherever it lies."""
    searched = program_path(environ)
    found = [os.path.dirname(os.path.dirname(os.path.abspath(__file__))), sys.prefix, sys.base_prefix]
    found.append(os.path.realpath("/etc/resolv.conf"))
    for directory in searched.split(os.pathsep):
        found += _with_its_libraries(directory)
    program = shutil.which(argv[0], path=searched) if argv else None
    for one in (program, *_named(argv)):
        for path in (one, os.path.realpath(one)) if one is not None else ():
            found += [path, *_with_its_libraries(os.path.dirname(path)), *_with_its_packages(path)]
    return found


def _named(argv: tuple[str, ...]) -> list[str]:
    """Programs that are named by their absolute path: `/home/ann/venv/bin/pytest -q` must find its own tools.

    In a check's text every word counts. Elsewhere only whole arguments do: an engine's may hold a repository's prose.
    """
    words = list(argv[1:])
    if len(argv) == 3 and os.path.basename(argv[0]) == "sh" and argv[1] == "-c":
        try:
            words = shlex.split(argv[2], comments=True)
        except ValueError:  # an open quote: the shell will say so
            words = argv[2].split()
    return [word for word in words if os.path.isabs(word) and os.path.isfile(word) and os.access(word, os.X_OK)]


def _with_its_libraries(directory: str) -> list[str]:
    if os.path.basename(directory) not in ("bin", "sbin", "shims"):
        return []
    prefix = os.path.dirname(directory)
    if prefix == os.path.expanduser("~"):
        return [directory]
    return [directory, *(os.path.join(prefix, name) for name in _BESIDE_BIN)]


def _with_its_packages(program: str) -> list[str]:
    parts = program.split(os.sep)
    return [os.sep.join(parts[: parts.index(_PACKAGES) + 1])] if _PACKAGES in parts else []


def _there(path: str) -> bool:
    return os.path.lexists(path)


def _below(path: str, place: str) -> bool:
    """Whether `path` is `place` or lies below it."""
    return path == place or path.startswith(place.rstrip("/") + "/")
