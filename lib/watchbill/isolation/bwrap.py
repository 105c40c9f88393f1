"""bubblewrap: its own mounts and its own process ids (bwrap(1)).

The root is read-only, /tmp, /run and the operator's home are empty, /dev and /proc are new. In a process-id namespace
nothing outlives its first process: when bwrap dies, also because the runner was killed, the kernel ends everything
inside. The network stays: an engine has to reach its model; so do abstract Unix sockets, which belong to the network.

Its first process is bwrap's own, with the environment that it was started with: /proc/1/environ shows a program inside
what it was given, whatever an engine takes out of its own environment before it starts that program. A program in a
user namespace of its own below, as codex makes one for its tools, cannot read it.
"""

from __future__ import annotations

import functools
import os
import shutil

from watchbill.isolation.base import Jail, Place, places, program_path, try_once

name = "bwrap"
monitored = True

_MOUNT = {"ro": "--ro-bind-try", "rw": "--bind-try"}
#: Who root is inside: nobody, who has an entry in every passwd. The kernel lets no one without CAP_SETFCAP make a user
#: namespace below that has the 0 of this one in it (user_namespaces(7)), and engines make one for their tools.
_NOBODY = ("--unshare-user", "--uid", "65534", "--gid", "65534")


def unavailable() -> str | None:
    if shutil.which("bwrap", path=program_path(os.environ)) is None:
        return "bwrap is not installed"
    why = try_once(wrap(Jail("/", ()), ("true",)))
    # Ubuntu 24.04 and others forbid user namespaces to programs without a profile.
    return f"bwrap does not work here: {why}" if why else None


def wrap(jail: Jail, argv: tuple[str, ...]) -> tuple[str, ...]:
    program = shutil.which("bwrap", path=program_path(os.environ)) or "bwrap"
    mounts = places(jail, argv)
    return (
        program,
        *_as_whom(program),
        "--unshare-pid",
        "--unshare-ipc",
        "--die-with-parent",
        "--new-session",  # no terminal to type into (TIOCSTI)
        *("--cap-drop", "ALL"),
        *("--ro-bind", "/", "/"),
        *("--dev", "/dev"),
        *("--proc", "/proc"),
        *(word for place in mounts for word in _mount(place)),
        *(word for place in mounts if _stays_empty(place) for word in ("--remount-ro", place.path)),
        *("--chdir", jail.workdir),
        "--",
        *argv,
    )


def _as_whom(program: str) -> tuple[str, ...]:
    # As root too, the rights that are left to it are no longer those of the host's root.
    return _NOBODY if os.geteuid() == 0 and _can_be_nobody(program) else ("--unshare-user-try",)


@functools.cache
def _can_be_nobody(program: str) -> bool:
    """Whether root, who could do without, may make user namespaces on this host."""
    return try_once((program, *_NOBODY, "--ro-bind", "/", "/", "true")) is None


def _mount(place: Place) -> tuple[str, ...]:
    if place.how != "hidden":
        return (_MOUNT[place.how], place.path, place.path)
    if os.path.isdir(place.path):
        return ("--tmpfs", place.path)
    return ("--ro-bind", os.devnull, place.path)


def _stays_empty(place: Place) -> bool:
    # A write that would vanish with the mount is better refused; /tmp is for that.
    return place.how == "hidden" and place.path != "/tmp" and os.path.isdir(place.path)
