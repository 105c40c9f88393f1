"""Processes of this host: who one is, whether it still lives, and how to end those that were left behind.

A pid alone names nobody: it is used again. A process is its pid, the moment it started and the boot it started in.
Standard library only, and nothing slow at the top: this module lies on the way to a refusal.

Linux reads /proc (proc(5)). macOS has none; there `ps` and `sysctl` are asked. That half is written from their manual
pages and has not been run by the project's tests, which run on Linux.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

_KILL = 9
_STOP = 19 if sys.platform == "linux" else 17  # the module `signal` is slow to import
_STOPPED_S = 0.1  # a stop signal takes effect at the next return from the kernel; who hangs in there forks nothing
_EMPTY_LOOKS = 3  # one look can miss who forked and left while it was made
_PROC = sys.platform == "linux"
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Identity(NamedTuple):
    """One process, for good."""

    pid: int
    started: int  # Linux: clock ticks since boot (/proc/PID/stat, field 22); macOS: UTC epoch seconds
    boot: str  # differs from boot to boot


class _Seen(NamedTuple):
    """What the system says of a process."""

    parent: int
    started: int  # as in Identity
    ended: bool  # a zombie: over, but not yet reaped by its parent


def me() -> Identity:
    return identity(os.getpid())


def identity(pid: int) -> Identity:
    """Who this pid is now. ProcessLookupError when nobody is; PermissionError when we may not know."""
    return Identity(pid, _look(pid).started, boot())


def boot() -> str:
    """The id of this boot."""
    if _PROC:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    # Not kern.boottime: it moves whenever somebody sets the clock.
    return _asked("sysctl", "-n", "kern.bootsessionuuid").strip()


def alive(who: Identity) -> bool:
    """Whether exactly this process still runs. A zombie does not; one that we may not see does, for all we know."""
    if who.boot != boot():
        return False
    try:
        seen = _look(who.pid)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return seen.started == who.started and not seen.ended


def started_epoch(pid: int) -> float:
    """When it started, UTC epoch seconds by today's clock; exact to 10 ms on Linux, to a second on macOS."""
    started = _look(pid).started
    if not _PROC:
        return float(started)
    # Boot as this clock sees it now: `btime` of /proc/stat is the same moment, rounded to a second.
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return booted + started / os.sysconf("SC_CLK_TCK")


def parent(pid: int) -> int:
    """Its parent's pid. ProcessLookupError when there is no such process."""
    return _look(pid).parent


def children(pid: int) -> list[int]:
    """Its children, zombies too. For our own this is quick and certain: none of them can go before we reap it."""
    try:
        found: list[int] = []
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                found += map(int, file.read().split())
        return found
    except OSError:  # macOS, a kernel without CONFIG_PROC_CHILDREN, or gone
        return [child for child, seen in _everybody() if seen.parent == pid]


def kill_children(spared: Iterable[int] = ()) -> set[int]:
    """Kill our own children but these; those that there were. Who reaps them and asks again gets their orphans."""
    found = set(children(os.getpid())).difference(spared)
    for pid in found:
        try:
            os.kill(pid, _KILL)
        except (ProcessLookupError, PermissionError):
            pass  # a program of another user's, such as sudo: it is not ours to end
    return found


def descendants(pid: int) -> list[int]:
    """Children, their children and so on, without zombies; parents before children."""
    children: dict[int, list[int]] = {}
    for child, seen in _everybody():
        if not seen.ended:
            children.setdefault(seen.parent, []).append(child)
    found, todo = [], [pid]
    while todo:
        for child in children.pop(todo.pop(), []):
            found.append(child)
            todo.append(child)
    return found


def find_marked(name: str, value: str) -> list[int]:
    """Processes of this user, besides us, that were started with NAME=value in their environment.

    A process can wipe its own environment, or start a child without the marker; this finds what did not mean to hide.
    """
    return [pid for pid in _pids() if pid != os.getpid() and is_marked(pid, name, value)]


def is_marked(pid: int, name: str, value: str) -> bool:
    """Whether this process has NAME=value in the environment it was started with."""
    wanted = f"{name}={value}"
    if not _PROC:
        return wanted in _asked("ps", "-wwE", "-o", "command=", "-p", str(pid)).split()
    try:
        if os.stat(f"/proc/{pid}").st_uid != os.getuid():
            return False
        with open(f"/proc/{pid}/environ", "rb") as file:
            return os.fsencode(wanted) in file.read().split(b"\0")
    except OSError:
        return False


def end(pids: Iterable[int], wait_s: float = 2.0, still: Callable[[int], bool] | None = None) -> list[int]:
    """Kill these, and wait until they are gone, at most `wait_s`; those that were killed. Never us or our ancestors.

    `still(pid)` is asked once the process is pinned (pidfd_open(2)), so that a pid which meanwhile went to somebody
    else is spared: `end(find_marked(n, v), still=lambda pid: is_marked(pid, n, v))`.
    """
    spared = {os.getpid(), *ancestors()}
    killed = []
    for pid in pids:
        if pid > 1 and pid not in spared:
            who = _send(pid, _KILL, still)
            if who is not None:
                killed.append(who)
    until = time.monotonic() + wait_s
    while any(alive(who) for who in killed) and time.monotonic() < until:
        time.sleep(0.005)
    return [who.pid for who in killed]


def end_marked(name: str, value: str, wait_s: float = 5.0) -> list[int]:
    """Kill whatever carries the marker, again and again until nothing does (one may fork while another is killed)."""
    killed: list[int] = []
    until = time.monotonic() + wait_s
    spared = {os.getpid(), *ancestors()}
    empty = 0
    while empty < _EMPTY_LOOKS and time.monotonic() < until:
        left = [pid for pid in find_marked(name, value) if pid not in spared and _runs(pid)]
        killed += end(left, 0.5, lambda pid: is_marked(pid, name, value))
        empty = 0 if left else empty + 1
    return killed


def tell(who: Identity, number: int) -> bool:
    """Send a signal to exactly this process; False when it is not there any more, or not ours to tell."""
    return who.boot == boot() and _send(who.pid, number, lambda pid: identity(pid) == who) is not None


def end_tree(who: Identity, wait_s: float = 2.0) -> list[int]:
    """Kill exactly this process with everything below it; those that were killed. Never us or our ancestors.

    Each is stopped before its children are counted, for who is stopped forks no more: nobody slips away by starting
    another while he is killed. What had left the tree before is not found here (see `end_marked`).
    """
    spared = {os.getpid(), *ancestors()}
    if who.pid in spared or not tell(who, _STOP):
        return []
    tree, seen = [who], {who.pid, *spared}
    _until_stopped(tree)
    while new := [pid for pid in descendants(who.pid) if pid not in seen]:
        seen.update(new)
        stopped = [one for pid in new if (one := _send(pid, _STOP, None)) is not None]
        _until_stopped(stopped)
        tree += stopped
    killed = [one for one in tree if tell(one, _KILL)]
    until = time.monotonic() + wait_s
    while any(alive(one) for one in killed) and time.monotonic() < until:
        time.sleep(0.005)
    return [one.pid for one in killed]


def _until_stopped(whom: Iterable[Identity]) -> None:
    """Wait a moment until these stand still, or are gone."""
    if not _PROC:
        return
    until = time.monotonic() + _STOPPED_S
    for one in whom:
        while time.monotonic() < until and _state(one.pid) not in ("T", "t", "Z", "X", ""):
            time.sleep(0.0005)


def _state(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return ""
    return text[text.rindex(b")") + 2 :][:1].decode()


def marks(name: str) -> dict[int, str]:
    """Processes of this user, besides us, that were started with NAME in their environment: pid -> its value."""
    if not _PROC:
        lines = (line.split() for line in _asked("ps", "-wwaxE", "-o", "pid=,command=").splitlines())
        told = {int(words[0]): word for words in lines for word in words[1:] if word.startswith(f"{name}=")}
        return {pid: word.partition("=")[2] for pid, word in told.items() if pid != os.getpid()}
    found = {}
    for pid in _pids():
        try:
            if pid == os.getpid() or os.stat(f"/proc/{pid}").st_uid != os.getuid():
                continue
            with open(f"/proc/{pid}/environ", "rb") as file:
                words = file.read().split(b"\0")
        except OSError:
            continue
        for word in words:
            if word.startswith(os.fsencode(f"{name}=")):
                found[pid] = os.fsdecode(word.partition(b"=")[2])
    return found


def holders(path: str) -> list[int]:
    """Who holds a kernel lock on this file, for himself alone: by flock(2), and in this process-id namespace.

    Linux: /proc/locks (proc(5)), whose device number is not that of stat(2) on every file system: so each is looked at.
    """
    if not _PROC:
        return [int(word) for word in _asked("lsof", "-t", "--", path).split()]
    try:
        there = os.stat(path)
        with open("/proc/locks", encoding="ascii") as file:
            rows = [line.split() for line in file]
    except OSError:
        return []
    wanted = f":{there.st_ino}"
    pids = {int(row[4]) for row in rows if row[1:4] == ["FLOCK", "ADVISORY", "WRITE"] and row[5].endswith(wanted)}
    return sorted(pid for pid in pids if pid > 0 and _has_open(pid, there))


def _has_open(pid: int, there: os.stat_result) -> bool:
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return False
    for name in names:
        try:
            if os.path.samestat(os.stat(f"/proc/{pid}/fd/{name}"), there):
                return True
        except OSError:
            continue
    return False


def _send(pid: int, number: int, still: Callable[[int], bool] | None) -> Identity | None:
    """Who got the signal; None when nobody did."""
    pinned = None
    try:
        who = identity(pid)
        try:
            pinned = os.pidfd_open(pid)
        except (AttributeError, OSError):
            pinned = None  # no pidfd here; the check below is then a little late, and still made
        if not alive(who) or (still is not None and not still(pid)):
            return None
        if pinned is None:
            os.kill(pid, number)
        else:
            import signal

            signal.pidfd_send_signal(pinned, number)
        return who
    except (ProcessLookupError, PermissionError):
        return None
    finally:
        if pinned is not None:
            os.close(pinned)


def _runs(pid: int) -> bool:
    try:
        return not _look(pid).ended
    except ProcessLookupError:
        return False
    except PermissionError:
        return True


def ancestors() -> list[int]:
    """Our parent, its parent and so on."""
    found, pid = [], os.getppid()
    while pid > 0 and pid not in found:
        found.append(pid)
        try:
            pid = _look(pid).parent
        except OSError:
            break
    return found


def _look(pid: int) -> _Seen:
    if not _PROC:
        return _look_ps(pid)
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except FileNotFoundError:
        os.kill(pid, 0)  # /proc may hide other users' processes (hidepid): PermissionError if it is there all the same
        raise ProcessLookupError(pid) from None
    # The name in parentheses may itself hold spaces and parentheses.
    fields = text[text.rindex(b")") + 1 :].split()
    # A process whose first thread has left shows as a zombie while its other threads run on.
    over = fields[0] in (b"Z", b"X") and int(fields[17]) <= 1
    return _Seen(int(fields[1]), int(fields[19]), over)


def _pids() -> list[int]:
    """Newest first, as a rule: what forks on and on is then looked at before it has gone again."""
    if _PROC:
        return sorted((int(name) for name in os.listdir("/proc") if name.isdigit()), reverse=True)
    return [int(word) for word in _asked("ps", "-axo", "pid=").split()]


def _everybody() -> list[tuple[int, _Seen]]:
    if not _PROC:
        rows = [line.split() for line in _asked("ps", "-axo", "pid=,ppid=,stat=").splitlines()]
        return [(int(row[0]), _Seen(int(row[1]), 0, row[2].startswith("Z"))) for row in rows if len(row) == 3]
    found = []
    for pid in _pids():
        try:
            found.append((pid, _look(pid)))
        except OSError:
            continue
    return found


def _look_ps(pid: int) -> _Seen:
    """ps(1): `lstart` is "Mon Jan  5 10:00:00 2026" in the zone and locale that we choose here."""
    words = _asked("ps", "-o", "ppid=,stat=,lstart=", "-p", str(pid)).split()
    if len(words) != 7:
        raise ProcessLookupError(pid)
    import calendar

    hour, minute, second = (int(part) for part in words[5].split(":"))
    moment = (int(words[6]), _MONTHS.index(words[3]) + 1, int(words[4]), hour, minute, second)
    return _Seen(int(words[0]), calendar.timegm(moment), words[1].startswith("Z"))


def _asked(*argv: str) -> str:
    """What a program of macOS says; "" when it fails, as `ps -p` does for a pid that is nobody's."""
    import subprocess

    asked = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C", "TZ": "UTC"}
    done = subprocess.run(argv, env=asked, capture_output=True, text=True, errors="replace", check=False)
    return done.stdout if done.returncode == 0 else ""
