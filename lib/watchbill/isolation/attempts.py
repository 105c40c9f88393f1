"""Run inside a jail, by path as `python -I -S attempts.py [[NAME, HOW, ARGUMENTS...], ...]`: ways out of it, tried.

Prints one JSON object, NAME -> Answer. What that means is judged outside, by `probe`:
what a jailed program believes to have written may be gone with the jail. Each way is tried in a process of its own.
Nothing outside is harmed but what the prober made for that. Standard library only.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal as signals
import socket
import sys
from collections.abc import Callable
from typing import NamedTuple

_PATIENCE_S = 5
_MOST = 1 << 16
# linux/ptrace.h, linux/sched.h, linux/mount.h
_PTRACE_SEIZE = 0x4206
_NEW_MOUNTS, _NEW_USER = 0x00020000, 0x10000000
_PRIVATE, _RECURSIVE, _DETACH = 1 << 18, 1 << 14, 2


class Answer(NamedTuple):
    """What came of one way."""

    got: str | None
    error: str | None
    tried: bool  # it went to its end, or the kernel refused


def write(path: str, text: str) -> str:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
    return "written"


def read(path: str) -> str:
    with open(path, "rb") as file:
        return file.read(_MOST).decode("latin-1")


def read_by_link(path: str, link: str) -> str:
    os.symlink(path, link)
    return read(link)


def read_by_hard_link(path: str, link: str) -> str:
    os.link(path, link)
    return read(link)


def write_by_link(path: str, link: str, text: str) -> str:
    os.symlink(path, link)
    return write(link, text)


def started(pid: int) -> str:
    """When a process began, which tells it from another of the same number (proc(5), field 22 of stat)."""
    return read(f"/proc/{pid}/stat").rpartition(")")[2].split()[19]


def end(pid: int) -> str:
    if pid in (1, os.getpid(), os.getppid()):
        return "it is one of ours"
    os.kill(pid, signals.SIGKILL)
    return "sent"


def trace(pid: int) -> str:
    _libc("ptrace", _PTRACE_SEIZE, pid, None, None)
    return "traced"


def open_memory(pid: int) -> str:
    with open(f"/proc/{pid}/mem", "rb"):
        return "opened"


def connect(address: str, text: str) -> str:
    """A leading @ is an abstract address, as `ss` shows it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.connect(f"\0{address[1:]}" if address.startswith("@") else address)
        channel.sendall(text.encode())
    return "connected"


def mount(place: str) -> str:
    """Whether it may mount at all; what is mounted is taken away again."""
    os.makedirs(place, exist_ok=True)
    _libc("mount", b"none", place.encode(), b"tmpfs", 0, None)
    _libc("umount2", place.encode(), _DETACH)
    return "mounted"


def uncover(path: str) -> str:
    """In mounts of its own, and as root of its own users: take away what covers a file."""
    try:
        _libc("unshare", _NEW_USER | _NEW_MOUNTS)
    except OSError:
        _libc("unshare", _NEW_MOUNTS)
    _libc("mount", b"none", b"/", None, _PRIVATE | _RECURSIVE, None)  # else the host's own would go
    above = path
    while (above := os.path.dirname(above)) != "/":
        try:
            _libc("umount2", above.encode(), _DETACH)
        except OSError:
            pass
    return read(path)


def may_gain_rights() -> str:
    """Whether a set-user-id program would still give it rights (PR_SET_NO_NEW_PRIVS)."""
    status = dict(line.split(":", 1) for line in read("/proc/self/status").splitlines() if ":" in line)
    return "yes" if status["NoNewPrivs"].strip() != "1" else "no"


WAYS: dict[str, Callable[..., str]] = {way.__name__: way for way in (
    write, read, read_by_link, read_by_hard_link, write_by_link, started, end, trace, open_memory, connect, mount,
    uncover, may_gain_rights)}  # fmt: skip


def _libc(name: str, *arguments: object) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _tried(how: str, arguments: list[object]) -> Answer:
    """In a child: a way may hang, or change what the process is."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        answer = Answer(None, None, False)
        try:
            signals.alarm(_PATIENCE_S)
            answer = Answer(WAYS[how](*arguments), None, True)
        except BaseException as error:
            answer = Answer(None, f"{type(error).__name__}: {error}", isinstance(error, OSError))
        with open(writing, "w", encoding="ascii") as file:
            json.dump(answer, file)
            file.flush()
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="ascii") as file:
        said = file.read()
    os.waitpid(child, 0)
    return Answer(*json.loads(said)) if said else Answer(None, "it hung, or ended without a word", False)


def main(text: str) -> None:
    print(json.dumps({name: _tried(how, arguments) for name, how, *arguments in json.loads(text)}))


if __name__ == "__main__":
    main(sys.argv[1])
