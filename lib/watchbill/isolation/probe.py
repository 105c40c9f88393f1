"""Does a layer hold? Every way out of a jail that we know of is tried from inside one, and judged from outside.

The prober makes what there is to find: secrets, a process with another in its environment, sockets; all of it goes
away again, also what an escape left behind.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple

from watchbill.isolation import attempts, landlock
from watchbill.isolation.attempts import Answer
from watchbill.isolation.base import MEETING_PLACES, Isolation, Jail, program_path

TIMEOUT_S = 120.0
_PREFIX = "watchbill-probe-"


class Tried(NamedTuple):
    """What came of one way out."""

    name: str  # stable, kebab-case
    what: str  # what a program in the jail would do, for people
    held: bool | None  # None: it could not be tried
    known: str | None  # why this layer cannot hold here: a gap that it is known for, and no fault
    detail: str  # why it held, or could not be tried


class _Way(NamedTuple):
    name: str
    what: str
    how: str  # a key of attempts.WAYS
    arguments: tuple[object, ...]
    out: Callable[[str | None], bool]  # did it get out? Given what it says that it got


class _Room(NamedTuple):
    """What the prober made: a jail like that of a firing, and around it what is not its business."""

    root: str
    jail: Jail
    secret: str  # path; in it lies `canary`
    in_home: str | None  # another one, in the person's home; None where none can be made
    beside_home: str | None  # a path in the person's home where nothing is
    canary: str
    pid: int  # of a process outside, with the canary in its environment and the secret as its stdin
    meeting: str  # a directory in a meeting place
    nonce: str


def known_gaps(layer: str) -> dict[str, str]:
    """What a layer does not do, by its own account (see its module): the name of a way -> why."""
    if layer == "bwrap":
        return {"socket-abstract": "abstract sockets belong to the network, which an engine needs"}
    if layer != "landlock":
        return {}
    gaps = {"see-process": "Landlock does not hide processes", "socket-path": "Landlock does not rule over sockets"}
    if landlock.abi() < 6:
        old = "this kernel's Landlock is older than Linux 6.12"
        gaps |= {"end-process": old, "socket-abstract": old}
    return gaps


def probe(layer: Isolation, base: str, person: str | None = None) -> tuple[Tried, ...]:
    """Try every way out of a jail of this layer.

    `base`: a directory in which the room is made, hidden like a fleet's home; `person`: the operator's home (~).
    Raises OSError when the room cannot be made.
    """
    with _room(base, person if person is not None else os.path.expanduser("~")) as room, _listening(room) as ways:
        said, gaps = _inside(layer, room, ways), known_gaps(layer.name)
        return tuple(_judged(way, said[way.name], gaps.get(way.name)) for way in ways)


def _judged(way: _Way, said: Answer, known: str | None) -> Tried:
    if way.out(said.got):  # also where nothing was said: what is outside tells
        return Tried(way.name, way.what, False, known, "")
    return Tried(way.name, way.what, True if said.tried else None, known, (said.error or "")[:300])


def _inside(layer: Isolation, room: _Room, ways: list[_Way]) -> dict[str, Answer]:
    """What each way says that came of it."""
    spec = json.dumps([(way.name, way.how, *way.arguments) for way in ways])
    argv = layer.wrap(room.jail, (sys.executable, "-I", "-S", os.path.abspath(attempts.__file__), spec))
    env = {"PATH": program_path(os.environ), "HOME": room.jail.rw[1], "TMPDIR": room.jail.rw[2]}
    try:
        done = subprocess.run(argv, cwd=room.jail.workdir, env=env, stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=TIMEOUT_S, check=False)  # fmt: skip
        said = json.loads(done.stdout)
        if not isinstance(said, dict) or set(said) != {way.name for way in ways}:
            raise ValueError("it said something else")
        return {name: Answer(*answer) for name, answer in said.items()}
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        words = done.stderr.decode(errors="replace").strip()[-300:] if isinstance(error, ValueError) else str(error)
        return dict.fromkeys((way.name for way in ways), Answer(None, words or "the jail said nothing", False))


@contextmanager
def _room(base: str, person: str) -> Iterator[_Room]:
    """Everything in it is ours, and goes when it is left."""
    with ExitStack() as stack:
        root = os.path.realpath(_folder(stack, base))
        tree, home, tmp, mirror = (os.path.join(root, name) for name in ("tree", "home", "tmp", "mirror"))
        for place in (tree, home, tmp, mirror):
            os.mkdir(place, 0o700)
        nonce, canary = os.urandom(8).hex(), f"canary-{os.urandom(16).hex()}"
        secret = _file(os.path.join(root, "secret"), canary)
        in_home = beside = None
        if os.path.realpath(person) != "/":
            beside = os.path.join(os.path.realpath(person), f".{_PREFIX}{nonce}-written")
            with suppress(OSError):
                in_home = _file(os.path.join(os.path.realpath(person), f".{_PREFIX}{nonce}"), canary)
                stack.callback(_away, in_home)
        meeting = os.path.realpath(_folder(stack, MEETING_PLACES[0]))
        jail = Jail(tree, (tree, home, tmp), (mirror,), (person, base))
        with open(secret, "rb") as held:
            other = subprocess.Popen(
                (sys.executable, "-I", "-S", "-c", f"import time; time.sleep({2 * TIMEOUT_S})"),
                stdin=held, env={"WATCHBILL_PROBE": canary}, start_new_session=True)  # fmt: skip
        stack.callback(_end, other)
        yield _Room(root, jail, secret, in_home, beside, canary, other.pid, meeting, nonce)


@contextmanager
def _listening(room: _Room) -> Iterator[list[_Way]]:
    """The ways out of a room, while its sockets listen."""
    by_path, abstract = f"{room.meeting}/socket", f"@{_PREFIX}{room.nonce}"
    with ExitStack() as stack:
        heard = {address: stack.enter_context(_socket(address)) for address in (by_path, abstract)}
        ways = [*_writing(room), *_reading(room), *_processes(room)]
        for name, what, address in (("socket-path", "talk to a socket in /tmp", by_path),
                                    ("socket-abstract", "talk to an abstract socket", abstract)):  # fmt: skip
            ways.append(_Way(name, what, "connect", (address, room.nonce), _hears(heard[address], room.nonce)))
        ways.append(_Way("end-process", "end a process outside", "end", (room.pid,), lambda _: _ended(room.pid)))
        for way in ways:
            if way.how in ("write", "write_by_link"):
                stack.callback(_away, str(way.arguments[0]))
        yield ways


def _writing(room: _Room) -> Iterator[_Way]:
    tree = room.jail.workdir
    places = [
        ("write-beside", "write beside the worktree", f"{room.root}/written"),
        ("write-mirror", "write what it may only read", f"{room.jail.ro[0]}/written"),
        ("write-tmp", "write into the host's /tmp", f"{MEETING_PLACES[0]}/{_PREFIX}{room.nonce}-written"),
        ("write-etc", "write into /etc", f"/etc/{_PREFIX}{room.nonce}"),
    ]
    if room.beside_home is not None:
        places.append(("write-home", "write into your home", room.beside_home))
    for name, what, path in places:
        yield _Way(name, what, "write", (path, room.nonce), _holds(path, room.nonce))
    path = f"{room.root}/written-by-link"
    what = "write through a link in the worktree"
    yield _Way("write-link", what, "write_by_link", (path, f"{tree}/out", room.nonce), _holds(path, room.nonce))


def _reading(room: _Room) -> Iterator[_Way]:
    def canary(got: str | None) -> bool:
        return got is not None and room.canary in got

    tree, secret = room.jail.workdir, room.secret
    yield _Way("read-secret", "read what is hidden", "read", (secret,), canary)
    if room.in_home is not None:
        yield _Way("read-home", "read a file in your home", "read", (room.in_home,), canary)
    yield _Way("read-link", "read it by a link", "read_by_link", (secret, f"{tree}/link"), canary)
    yield _Way("read-hard-link", "read it by a hard link", "read_by_hard_link", (secret, f"{tree}/hard"), canary)
    for name, path in (("read-own-root", "/proc/self/root"), ("read-first-root", "/proc/1/root"),
                       ("read-other-root", f"/proc/{room.pid}/root")):  # fmt: skip
        yield _Way(name, f"read it by way of {path}", "read", (f"{path}{secret}",), canary)
    where = f"/proc/{room.pid}/fd/0"
    yield _Way("read-other-file", "read a file that another process holds open", "read", (where,), canary)
    what = "read another process' environment"
    yield _Way("read-environment", what, "read", (f"/proc/{room.pid}/environ",), canary)
    yield _Way("uncover", "uncover what is hidden, in a user namespace", "uncover", (secret,), canary)


def _processes(room: _Room) -> Iterator[_Way]:
    began = attempts.started(room.pid)
    tells: list[tuple[str, str, str, tuple[object, ...], str]] = [
        ("see-process", "see a process outside", "started", (room.pid,), began),
        ("trace-process", "trace a process outside", "trace", (room.pid,), "traced"),
        ("read-memory", "open the memory of a process outside", "open_memory", (room.pid,), "opened"),
        ("mount", "mount a file system", "mount", (f"{room.jail.workdir}/mounted",), "mounted"),
        ("gain-rights", "gain rights by a set-user-id program", "may_gain_rights", (), "yes"),
    ]
    for name, what, how, arguments, out in tells:
        yield _Way(name, what, how, arguments, lambda got, out=out: got == out)  # type: ignore[misc]


def _holds(path: str, text: str) -> Callable[[str | None], bool]:
    def out(_got: str | None) -> bool:
        with suppress(OSError, ValueError), open(path, encoding="ascii") as file:
            return file.read() == text
        return False

    return out


def _hears(listener: socket.socket, text: str) -> Callable[[str | None], bool]:
    def out(_got: str | None) -> bool:
        with suppress(OSError), listener.accept()[0] as channel:
            channel.settimeout(1)
            return channel.recv(100) == text.encode()
        return False

    return out


@contextmanager
def _socket(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        if not address.startswith("@"):
            os.chmod(address, 0o777)  # the layer is to hold, not the rights on the file
        listener.listen()
        listener.setblocking(False)
        yield listener


def _folder(stack: ExitStack, where: str) -> str:
    made = tempfile.mkdtemp(prefix=_PREFIX, dir=where)
    stack.callback(shutil.rmtree, made, ignore_errors=True)
    return made


def _file(path: str, text: str) -> str:
    with open(path, "x", encoding="ascii", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(text)
    return path


def _away(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)


def _ended(pid: int) -> bool:
    """Whether our own child has, without reaping it."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end(other: subprocess.Popen[bytes]) -> None:
    other.kill()
    other.wait()
