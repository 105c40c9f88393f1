"""Whether what a firing needs of the disk can be read: macOS asks of each program whether it may (TCC)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from watchbill.doctor.finding import Finding, Look

#: Below a person's home; Apple: "Controlling app access to files in macOS". The last is iCloud's.
_GUARDED = ("Desktop", "Documents", "Downloads", os.path.join("Library", "Mobile Documents"))


def look(it: Look, platform: str = sys.platform) -> Iterator[Finding]:
    """The fleet's directory, and repositories on this disk."""
    if it.roster is None:
        return
    uses_launchd = it.roster.fleet.timers.use == "launchd" or platform == "darwin"
    for path in (it.home.root, *_local(it)):
        wrong = _unreadable(path) or (_unwritable(path) if path == it.home.root else None)
        guarded = _guarded(path) if uses_launchd else None
        if wrong:
            what = f"{path}: {wrong}"
            fix = f"see who may: ls -ld {path}"
            if guarded:
                what = f"{what}; macOS keeps programs without your leave out of ~/{guarded}"
                fix = _fix(path)
            yield Finding("files", path, "wrong", what, "WB-DOCTOR-09", fix)
        elif guarded:
            what = f"it lies in ~/{guarded}: macOS may keep what launchd starts out of it, a new Python once more"
            yield Finding("files", path, "note", what, "WB-DOCTOR-09", _fix(path))
        else:
            yield Finding("files", path, "ok", "it can be read")


def _local(it: Look) -> list[str]:
    remotes = [repo.remote for repo in it.roster.fleet.repos.values()] if it.roster else []
    paths = [remote.removeprefix("file://") for remote in remotes]
    return sorted({path for path in paths if os.path.isabs(path)})


def _unreadable(path: str) -> str | None:
    """Tried, not asked: access(2) does not know of TCC."""
    try:
        names = os.listdir(path)
        for name in ("fleet.toml", "HEAD"):
            if name in names:
                with open(os.path.join(path, name), "rb") as file:
                    file.read(1)
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    return None


def _unwritable(path: str) -> str | None:
    return None if os.access(path, os.W_OK | os.X_OK) else "it cannot be written"


def _guarded(path: str) -> str | None:
    person = os.path.realpath(os.path.expanduser("~"))
    beyond = os.path.relpath(os.path.realpath(path), person)
    return next((one for one in _GUARDED if beyond == one or beyond.startswith(one + os.sep)), None)


def _fix(path: str) -> str:
    elsewhere = os.path.join("~", os.path.basename(path))
    return f"keep it elsewhere: mv {path} {elsewhere}, and name that place in its stead; then `watchbill apply`"
