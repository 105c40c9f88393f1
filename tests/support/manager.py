"""A systemd user manager of a test's own: it fires real timers, and nothing of this machine is in its reach.

    with manager.private(tmp_path) as it:
        it.run("systemctl", "--user", "start", "x.timer", check=True)
        it.restart(slept_s=3600)

It lives in its own mount, pid, cgroup, ipc and network namespaces. Its control groups are made first and joined before
the namespaces are: a manager takes every process of the group it finds itself in for its own, and would move this
machine's. The disk is read-only to it, except for `directory` (and `writable`), which lie where they always do; what
lies in /tmp and /var/tmp otherwise is not there. The first process of its pid namespace is `manager_inside.py`, which
holds a pipe from the test: when the test is gone, by whatever death, so is everything inside.

Needs root and Linux; systemd need not be this machine's own first process. Source of what it prepares:
systemd.exec(7), sd_booted(3), sd_notify(3), cgroups(7); measured with systemd 252.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pickle
import pwd
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from support import manager_inside
from support.manager_inside import SYSTEMD, become, within

_ROOT = Path(__file__).resolve().parents[2]


def impossible() -> str | None:
    """Why there can be none here."""
    if os.geteuid() != 0:
        return "a private systemd user manager needs root"
    if not any(os.path.exists(path) for path in SYSTEMD):
        return "missing: systemd"
    if not _hierarchies():
        return "no control groups are mounted"
    return None


@contextlib.contextmanager
def private(directory: Path, **options: Any) -> Iterator[Manager]:
    """One that is up, and afterwards has left nothing: AssertionError names what it did leave.

    Where there can be none the test is skipped; where every layer is demanded (.ci/run) it fails.
    """
    why = impossible()
    if why:
        (pytest.fail if os.environ.get("WATCHBILL_REQUIRE") else pytest.skip)(why)
    it = Manager(directory, **options)
    it.start()
    try:
        yield it
    finally:
        it.stop()
    assert not it.left(), it.left()


class Manager:
    """One manager; `start` and `stop` may follow each other. HOME is `directory/person`, as for every test."""

    def __init__(
        self,
        directory: Path,
        *,
        home: Path | None = None,
        tz: str = "UTC",
        uid: int = 0,
        shared_loopback: bool = False,  # the test's own network: what listens there is reached from inside
        usual_home: bool = False,  # inside HOME is /home/person, below neither /tmp nor what a test is about
        journal: bool = False,  # a real journald, in memory: `journalctl --user-unit NAME`
        writable: Sequence[Path] = (),
    ) -> None:
        self.directory = directory.resolve()
        self.home = (home or directory / "person").resolve()
        self.tz = tz
        self.uid = uid
        self.shared_loopback = shared_loopback
        self.inside_home = Path("/home/person") if usual_home else self.home
        self.journal = journal
        self.writable = [str(path.resolve()) for path in writable]
        self.runtime = Path(f"/run/user/{uid}")  # as seen from inside
        self._state = self.directory / ".manager"
        self._groups: list[Path] = []
        self._lifeline: int | None = None
        self._unshare = 0  # the process that holds the namespaces together
        self._init = 0  # its child: process 1 inside, by its number out here

    @property
    def units(self) -> Path:
        """Where units of a user lie."""
        return self.home / ".config/systemd/user"

    @property
    def stamps(self) -> Path:
        """Where systemd remembers when a persistent timer fired last."""
        return self.home / ".local/share/systemd/timers"

    @property
    def cgroup(self) -> Path:
        """Its own control group, as seen from this machine: what it fires lies below."""
        return self._groups[-1]

    def pids(self) -> list[int]:
        """Every process inside, by this machine's numbers."""
        found = [line for file in self.cgroup.rglob("cgroup.procs") for line in file.read_text().split()]
        return sorted(int(pid) for pid in {*found, *(self.cgroup / "cgroup.procs").read_text().split()})

    def start(self) -> None:
        """Up and ready, or RuntimeError with its words."""
        why = impossible()
        if why:
            raise RuntimeError(why)
        self.home.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self._state, ignore_errors=True)
        self._state.mkdir()
        name = f"watchbill-test-{uuid.uuid4().hex[:12]}"
        self._groups = [Path(top, name) for top in _hierarchies()]
        for group in self._groups:
            group.mkdir()
        reading, self._lifeline = os.pipe()
        with open(self._state / "log", "wb") as log:
            # The shell that joins the groups becomes unshare; forked off, so that it is no child of the test's.
            joining = (
                'for group; do echo $$ > "$group/cgroup.procs"; done; echo $$ > "$STATE/pid"; eval "exec $UNSHARE"'
            )
            subprocess.run(
                ["setsid", "--fork", "sh", "-c", joining, "sh", *map(str, self._groups)],
                env={"PATH": os.environ["PATH"], "STATE": str(self._state), "UNSHARE": self._unshare_line()},
                stdin=reading,
                stdout=log,
                stderr=log,
                check=True,
            )
        os.close(reading)
        if not within(20, lambda: (self._state / "ready").exists() or (self._started() and not self._alive())):
            self._fail("did not become ready within 20 s")
        if not (self._state / "ready").exists():
            self._fail("did not start")
        self._init = int(Path(f"/proc/{self._unshare}/task/{self._unshare}/children").read_text().split()[0])

    def _unshare_line(self) -> str:
        inside = {
            "directory": str(self.directory),
            "home": str(self.home),
            "inside_home": str(self.inside_home),
            "state": str(self._state),
            "uid": self.uid,
            "environment": self.environment(),
            "journal": self.journal,
            "shared_loopback": self.shared_loopback,
            "writable": self.writable,
            "readable": _needed_below_tmp(),
            "base": sys.base_prefix,
        }
        (self._state / "options.json").write_text(json.dumps(inside))
        net = "" if self.shared_loopback else "--net"
        flags = f"--mount --pid --fork --mount-proc --cgroup --ipc --uts {net} --kill-child=KILL"
        return f"unshare {flags} -- '{sys.executable}' -I '{manager_inside.__file__}' '{self._state}/options.json'"

    def _started(self) -> bool:
        try:
            self._unshare = int((self._state / "pid").read_text())
        except (OSError, ValueError):
            return False
        return True

    def _alive(self) -> bool:
        return _state_of(self._unshare) not in ("", "Z")

    def _fail(self, what: str) -> None:
        said = (self._state / "log").read_text(errors="replace")[-3000:]
        self.stop(kill=True)
        raise RuntimeError(f"the private systemd manager {what}:\n{said}")

    def environment(self, **more: str) -> dict[str, str]:
        """What a login shell inside would have."""
        who = pwd.getpwuid(self.uid).pw_name if self.uid == 0 else "person"
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(self.inside_home),
            "USER": who,
            "LOGNAME": who,
            "SHELL": "/bin/sh",
            "LANG": "C.UTF-8",
            "TZ": self.tz,
            "XDG_RUNTIME_DIR": str(self.runtime),
            **more,
        }

    def argv(self, *argv: str | Path) -> list[str]:
        """How a command is started inside, as the manager's user; give it `environment()`."""
        enter = ["nsenter", "-t", str(self._init), "-m", "-p", "-C", "-i", "-u"]
        enter += [] if self.shared_loopback else ["-n"]
        as_user = ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups", "--"] if self.uid else []
        join = ["sh", "-c", 'echo $$ > "$0/cgroup.procs"; exec "$@"', str(self.cgroup)]
        return [*join, *enter, "--", "env", "-C", str(self.inside_home), *as_user, *map(str, argv)]

    def run(
        self, *argv: str | Path, env: Mapping[str, str] | None = None, timeout: float = 60, check: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """A command inside, in HOME, with a login's environment and `env`; `check`: AssertionError when it failed."""
        ended = subprocess.run(
            self.argv(*argv),
            env=self.environment(**(env or {})),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert not check or ended.returncode == 0, f"{argv}: {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
        return ended

    def python(self, code: str, *argv: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """Python with this package and the tests' support, inside."""
        return self.run(sys.executable, "-c", code, *argv, **more)

    def call(self, function: Callable[..., Any], *values: Any, env: Mapping[str, str] | None = None) -> Any:
        """What a function of the test's says when it is called inside, in a fork of the test's own process.

        Its value, or its exception, comes back by pickle. From out here the manager would not be asked: it refuses
        whoever it cannot see.
        """
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            self._answer(writing, lambda: function(*values), env or {})
        os.close(writing)
        with open(reading, "rb") as answer:
            said = answer.read()
        os.waitpid(child, 0)
        assert said, f"{function} ended its process"
        ended, value = pickle.loads(said)
        if not ended:
            raise value
        return value

    def _answer(self, writing: int, asked: Callable[[], Any], env: Mapping[str, str]) -> None:
        """In the fork; never returns. Who enters a pid namespace is only outside its children."""
        status = 1
        try:
            _enter(self._init, ("ipc", "uts", "cgroup", "pid", "mnt", *(() if self.shared_loopback else ("net",))))
            inside = os.fork()
            if inside != 0:
                os.close(writing)
                os.waitpid(inside, 0)
                os._exit(0)
            os.environ.clear()
            os.environ.update(self.environment(**env))
            time.tzset()
            os.chdir(self.inside_home)
            become(self.uid)
            try:
                said = (True, asked())
            except BaseException as error:
                said = (False, error)
            with open(writing, "wb") as answer:
                _Pickler(answer).dump(said)
            status = 0
        finally:
            os._exit(status)

    def systemctl(self, *argv: str, check: bool = True) -> str:
        """`systemctl --user ...`: what it says."""
        return self.run("systemctl", "--user", *argv, env={"LC_ALL": "C"}, check=check).stdout

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Properties of one unit, as systemctl words them."""
        said = self.systemctl("show", unit, "--timestamp=unix", *(f"--property={name}" for name in properties))
        return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)

    def stop(self, *, kill: bool = False) -> None:
        """Down as at a logout, or with `kill` as when the power goes; its control groups are removed."""
        if self._lifeline is None:
            return
        if not kill and self._alive():
            with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
                self.run("systemctl", "--user", "exit", timeout=5)
            within(15, lambda: (self._state / "ended").exists() or not self._alive())
        os.close(self._lifeline)
        self._lifeline = None
        if not within(5, lambda: not self._alive()) and self._unshare:
            os.kill(self._unshare, signal.SIGKILL)
        # A group is busy until the kernel has reaped the last of its processes.
        within(5, lambda: all(_remove(group) for group in self._groups))

    def restart(self, *, slept_s: float = 0, kill: bool = False) -> None:
        """Down and up again, with HOME kept, as at a reboot; to its timers `slept_s` more have passed meanwhile."""
        self.stop(kill=kill)
        for stamp in self.stamps.glob("stamp-*"):
            then = stamp.stat().st_mtime - slept_s
            os.utime(stamp, (then, then))
        self.start()

    def left(self) -> list[str]:
        """What it left on this machine after `stop`: control groups, processes."""
        groups = [str(group) for group in self._groups if group.exists()]
        return groups + [f"process {pid}" for pid in (self._unshare, self._init) if _state_of(pid) not in ("", "Z")]


class _Pickler(pickle.Pickler):
    """Exceptions too, whatever their `__init__` asks for."""

    def reducer_override(self, value: Any) -> Any:
        return (
            (_again, (type(value), value.args, value.__dict__)) if isinstance(value, BaseException) else NotImplemented
        )


def _again(kind: type[BaseException], args: tuple[Any, ...], more: dict[str, Any]) -> BaseException:
    made = kind.__new__(kind, *args)
    made.__dict__.update(more)
    return made


def _enter(pid: int, kinds: Sequence[str]) -> None:
    """setns(2), of a process that has one thread; OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    doors = [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in kinds]
    for door, kind in zip(doors, kinds, strict=True):
        if libc.setns(door, 0) != 0:
            raise OSError(ctypes.get_errno(), f"setns {kind}")


def _hierarchies() -> list[str]:
    """Where control groups that keep track of processes are mounted: the unified one, and version 1's for systemd."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    return [m[1] for m in mounts if m[2] == "cgroup2" or (m[2] == "cgroup" and "name=systemd" in m[3].split(","))]


def _needed_below_tmp() -> list[str]:
    """What a test runs and what the tmpfs over /tmp and /var/tmp would hide, where it lies there."""
    needed = [str(_ROOT), sys.prefix, sys.base_prefix, os.environ.get("WATCHBILL_ENGINES", "")]
    return [path for path in dict.fromkeys(needed) if path.startswith(("/tmp/", "/var/tmp/"))]


def _state_of(pid: int) -> str:
    """A process's state letter; empty: there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] if pid else ""
    except OSError:
        return ""


def _remove(group: Path) -> bool:
    """A control group with everything below it, deepest first."""
    for folder, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)
    return not group.exists()
