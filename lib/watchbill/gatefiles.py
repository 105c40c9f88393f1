"""Gate files: while `held/all` or `held/agent-NAME` is there, no timer starts what it names.

They are a projection of the holds that only a person ends: a pause or a stop without an end. systemd looks at them by
itself (ConditionPathExists=!) and starts no process at all; launchd has no conditions, and there the runner's own gate
looks. A hold with an end has none, for nobody would remove it.

Whoever dies between hold and file leaves somebody held, and nobody free who is to be held. `pause` writes the hold
first: then only the file is missing, a process is started at each slot, and the hold refuses it. `resume` lifts the
hold first: then a file is left, which holds on and says how it is removed. (With the file first, a dead `pause` would
hold without a word who and why, and a dead `resume` would leave a hold that no file shows to the system.) A file
without a hold therefore counts, also one that somebody made by hand.

A file is there when it can be found at the end of its links, whatever it is: that is what systemd.unit(5) says of
ConditionPathExists=, by access(2).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable

from watchbill.home import Home
from watchbill.ledger.holds import Hold

#: What a person sets, and only a person ends.
KINDS = ("pause", "stop")


def path_of(home: Home, scope: str, subject: str, host: str) -> str | None:
    """Where the gate file of such a hold is; None: its scope has none."""
    if scope == "fleet" or (scope, subject) == ("host", host):
        return home.gate()
    return home.gate(subject) if scope == "agent" and subject else None


def projects(hold: Hold) -> bool:
    """Whether this hold keeps a gate file."""
    return hold.kind in KINDS and hold.until is None and hold.lifted_at is None


def wanted(home: Home, holds: Iterable[Hold], host: str) -> set[str]:
    """The gate files that these holds keep."""
    paths = {path_of(home, hold.scope, hold.subject, host) for hold in holds if projects(hold)}
    return {path for path in paths if path is not None}


def strays(home: Home, holds: Iterable[Hold], host: str) -> list[str]:
    """Gate files that are there and belong to none of these holds."""
    try:
        names = sorted(name for name in os.listdir(home.held) if name == "all" or name.startswith("agent-"))
    except OSError:
        return []
    there = [path for path in (os.path.join(home.held, name) for name in names) if os.path.exists(path)]
    return [path for path in there if path not in wanted(home, holds, host)]


def lifting(path: str) -> str:
    """The command that removes this file."""
    name = os.path.basename(path)
    return f"watchbill resume {name.removeprefix('agent-') if name.startswith('agent-') else '--fleet'}"


def put(path: str, why: str, still_wanted: Callable[[], bool] = lambda: True) -> str:
    """Make the file; "" when it is there, or not wanted any more, else a sentence. `why`: for whoever reads it.

    Whoever resumes meanwhile lifts the hold before he removes the file: asked again afterwards, that is seen.
    """
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        if not os.path.exists(path):
            _make(path, f"{why}; `{lifting(path)}` removes this file\n")
    except OSError as error:
        said = error.strerror or str(error)
        return f"{path} could not be made ({said}): timers still start firings, and the hold refuses each"
    return "" if still_wanted() else remove(path, still_wanted)


def _make(path: str, text: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # a link to nowhere
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        with contextlib.suppress(OSError):  # a full disk often has room for a name; an empty file will do
            os.write(handle, text.encode())
    finally:
        os.close(handle)


def remove(path: str, still_wanted: Callable[[], bool]) -> str:
    """Take the file away unless a hold keeps it; "" when nothing is left there without one, else a sentence.

    Whoever pauses meanwhile writes his hold before he looks for the file: asked again afterwards, it is seen.
    """
    if still_wanted():
        return ""
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            os.rmdir(path)
        elif os.path.lexists(path):
            os.unlink(path)
    except FileNotFoundError:
        pass  # somebody else was first
    except OSError as error:
        return f"{path} is still there ({error.strerror or error}), and holds: remove it by hand"
    if still_wanted():
        put(path, "held")
    return ""
