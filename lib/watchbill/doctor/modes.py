"""Whether others on this host may write what a firing believes, or read what is nobody's business."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shlex
import stat
from collections.abc import Iterable, Iterator

from watchbill.doctor.finding import Finding, Look
from watchbill.schedulers import manifest


def look(it: Look) -> Iterator[Finding]:
    """The fleet's directory, its configuration and ledger, and every unit that was applied."""
    if not os.path.isdir(it.home.root):
        return
    home = it.home
    sources = [home.fleet_toml, home.agents, *_below(home.agents), home.roster, home.ledger]
    units = [file.path for one in manifest.read(home).agents.values() for file in one.files]
    started = [home.units, *_below(os.path.join(home.units, "bin"))]
    wrong = [*_judged((home.root, *sources, *started, *units))]
    yield from wrong
    if _open(home.root):
        what = "others on this host may look into it: logs, evidence and the ledger lie there"
        yield Finding("files", home.root, "note", what, "WB-DOCTOR-10", f"chmod 700 {shlex.quote(home.root)}")
    elif not wrong:
        yield Finding("files", home.root, "ok", "nobody else may write there")


def _below(folder: str) -> list[str]:
    with contextlib.suppress(OSError):
        return [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    return []


def _judged(paths: Iterable[str]) -> Iterator[Finding]:
    for path in paths:
        try:
            facts = os.stat(path)
        except OSError:
            continue
        quoted = shlex.quote(path)
        if facts.st_uid not in (0, os.geteuid()):
            what = f"it belongs to user {facts.st_uid}, we are {os.geteuid()}: they say what your fleet does"
            yield Finding("files", path, "wrong", what, "WB-DOCTOR-10", f"chown {os.geteuid()} {quoted}")
        elif facts.st_mode & 0o002 or (facts.st_mode & 0o020 and not _private(facts.st_gid)):
            what = f"others may write it (mode {stat.S_IMODE(facts.st_mode):04o}): they say what your fleet does"
            yield Finding("files", path, "wrong", what, "WB-DOCTOR-10", f"chmod go-w {quoted}")


def _private(gid: int) -> bool:
    """A group of one's own, as Debian and Fedora make one for each user, with a umask to match."""
    try:
        group, me = grp.getgrgid(gid), pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return group.gr_gid == me.pw_gid and group.gr_name == me.pw_name and set(group.gr_mem) <= {me.pw_name}


def _open(path: str) -> bool:
    return bool(os.stat(path).st_mode & 0o007)
