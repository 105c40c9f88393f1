"""Landlock: the kernel's own rules on files, put on by the program itself (landlock(7), Linux 5.13 and newer).

Nothing to install and no namespace needed. Rules only ever allow, so what is hidden cannot be taken out of "/": instead
every entry beside the way to it is allowed by name. What it does not do, and bubblewrap does: other processes are
seen, a socket that can be reached by path (a session bus) can be talked to, nothing ends strays. Signals to the
outside and abstract sockets are shut off from ABI 6 (Linux 6.12) on. /dev/shm is outside: a check that needs
semaphores there gets it by `[isolation] rw`.

Run by path as `python -I -S landlock.py rw=PATH ro=PATH hidden=PATH ... -- argv...` it confines itself and becomes
argv.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from watchbill.isolation.base import Jail

name = "landlock"
monitored = False

# System call numbers, the same on every architecture (linux/landlock.h for the rest).
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG, _PATH_BENEATH = 1, 1
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_FIRST_ABI = (1 << 13) - 1  # execute .. make_sym
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_SCOPES = 0b11  # abstract Unix sockets, signals

_READ = _EXECUTE | _READ_FILE | _READ_DIR
_DEVICE = _READ_FILE | _WRITE_FILE | _TRUNCATE | _IOCTL_DEV
_ON_FILES = _EXECUTE | _DEVICE  # the kernel refuses a rule on a file that holds any other right
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts")


def unavailable() -> str | None:
    if sys.platform != "linux" or abi() < 1:
        return "this kernel has no Landlock"
    from watchbill.isolation.base import Jail, try_once

    why = try_once(wrap(Jail("/", ()), ("true",)))
    return f"Landlock does not work here: {why}" if why else None


def wrap(jail: Jail, argv: tuple[str, ...]) -> tuple[str, ...]:
    from watchbill.isolation.base import places

    kinds = (f"{place.how}={place.path}" for place in places(jail, argv))
    return (sys.executable, "-I", "-S", os.path.abspath(__file__), *kinds, "--", *argv)


def abi() -> int:
    """The kernel's version of the interface; 0 without."""
    try:
        return _call(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    except OSError:
        return 0


def confine(rw: list[str], ro: list[str], hidden: list[str]) -> None:
    """From here on, for this process and all it starts. OSError when the kernel refuses."""
    version = abi()
    handled = _FIRST_ABI
    for since, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEV)):
        handled |= right if version >= since else 0
    attributes = struct.pack("=QQQ", handled, 0, _SCOPES)[: 24 if version >= 6 else 8]
    ruleset = _call(_CREATE_RULESET, attributes, len(attributes), 0)
    for top in ("/", *ro):
        for path in beside(top, hidden):
            _allow(ruleset, path, _READ & handled)
    for path in rw:
        for part in beside(path, [*hidden, *ro]):
            _allow(ruleset, part, handled)
    for device in _DEVICES:
        _allow(ruleset, f"/dev/{device}", (_READ | _DEVICE) & handled)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs")
    _call(_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)
    # Root would still read the environment of any process, which the kernel grants to CAP_PERFMON past Landlock.
    # With no_new_privs they do not come back at exec (capabilities(7)).
    if libc.capset(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), bytes(24)):
        raise OSError(ctypes.get_errno(), "capset")


def beside(top: str, hidden: list[str]) -> list[str]:
    """The largest directories and files that make up `top` without what is hidden below it."""
    below = [path for path in hidden if path == top or path.startswith(top.rstrip("/") + "/")]
    if not below:
        return [top]
    if top in below:
        return []
    found = []
    for entry in _listed(top):
        found += beside(os.path.join(top, entry), below)
    return found


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return  # gone, or not ours to see
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISLNK(mode):
            return  # what it points to has its own rule
        rights &= -1 if stat.S_ISDIR(mode) else _ON_FILES
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, fd), 0)
    finally:
        os.close(fd)


def _call(number: int, *arguments: object) -> int:
    result = int(ctypes.CDLL(None, use_errno=True).syscall(number, *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def main(words: list[str]) -> None:
    end = words.index("--")
    named: dict[str, list[str]] = {"rw": [], "ro": [], "hidden": []}
    for word in words[:end]:
        how, _, path = word.partition("=")
        named[how].append(path)
    argv = words[end + 1 :]
    try:
        confine(named["rw"], named["ro"], named["hidden"])
        os.execvp(argv[0], argv)
    except OSError as error:
        print(f"landlock: {argv[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main(sys.argv[1:])
