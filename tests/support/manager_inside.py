"""The first process inside a private systemd user manager (`manager.py`): it makes what a manager needs, and starts it.

Runs by itself, isolated, as process 1 of its pid namespace: standard library only. Source of what is prepared here:
systemd.exec(5), sd_booted(3), sd_notify(3), cgroups(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SYSTEMD = ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")
JOURNALD = "/usr/lib/systemd/systemd-journald"
_MS = {"ro": 1, "remount": 32, "bind": 4096, "rec": 16384, "move": 8192}


def _main(options: dict[str, Any]) -> None:
    home, uid, state = options["inside_home"], options["uid"], options["state"]
    ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    _prepare_run(uid)
    if uid:
        _open_to_everybody(options["base"])
    _restrict_disk([options["directory"], *options["writable"]], options["readable"])
    if home != options["home"]:
        _mount("tmpfs", "/home", "tmpfs", data="mode=755")
        os.mkdir(home)
        _mount(options["home"], home, flags="bind")
    if uid:
        _add_user(uid, home)
        subprocess.run(["chown", "-R", f"{uid}:{uid}", options["directory"], *options["writable"]], check=True)
    if not options["shared_loopback"]:
        _loopback_up()
    if options["journal"]:
        _journal()
    address = f"/run/user/{uid}/ready"
    ready.bind(address)
    os.chown(address, uid, uid)
    group = _group_of_manager(uid)
    manager = os.fork()
    if manager == 0:
        _become_manager(uid, group, {**options["environment"], "NOTIFY_SOCKET": address})
    _wait_ready(ready, manager)
    os.unlink(address)
    Path(state, "ready").touch()
    _reap_until_told(manager, Path(state, "ended"))


def _mount(source: str, target: str, kind: str = "", flags: str = "", data: str = "") -> None:
    """mount(2); OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    bits = sum(_MS[flag] for flag in flags.split())
    if libc.mount(source.encode(), target.encode(), kind.encode() or None, bits, data.encode() or None) != 0:
        raise OSError(ctypes.get_errno(), f"mount {source} {target} {kind} {flags}")


def _prepare_run(uid: int) -> None:
    """What the machine's first process and logind would have made."""
    _mount("tmpfs", "/run", "tmpfs", data="mode=755")
    # sd_booted(3) looks for the first; the rest is what sandboxing settings mount from (systemd.exec(5))
    for folder in ("systemd/system", "systemd/unit-root", "systemd/inaccessible/dir", "credentials", "lock"):
        os.makedirs(f"/run/{folder}")
    hidden = "/run/systemd/inaccessible"
    Path(hidden, "reg").touch(mode=0)
    os.mkfifo(f"{hidden}/fifo", 0)
    for kind, bits in (("chr", 0o020000), ("blk", 0o060000), ("sock", 0o140000)):
        os.mknod(f"{hidden}/{kind}", bits, os.makedev(0, 0))
    os.makedirs(f"/run/user/{uid}", mode=0o700)
    os.chown(f"/run/user/{uid}", uid, uid)
    # Sockets and timers of packages are none of a test's; the bus stays.
    os.makedirs("/run/systemd/user")
    for folder in ("/usr/lib/systemd/user", "/etc/systemd/user", "/etc/xdg/systemd/user"):
        for name in os.listdir(folder) if os.path.isdir(folder) else ():
            if name.endswith((".socket", ".timer")) and name != "dbus.socket":
                with contextlib.suppress(FileExistsError):
                    os.symlink("/dev/null", f"/run/systemd/user/{name}")
    subprocess.run(["umount", "-lR", "/sys/fs/cgroup"], check=False)
    _mount("cgroup2", "/sys/fs/cgroup", "cgroup2")


def _restrict_disk(writable: list[str], readable: list[str]) -> None:
    """Everything read-only except these; /tmp, /var/tmp and /dev/shm are new."""
    kept = [(path, f"/run/keep/{number}") for number, path in enumerate([*readable, *writable])]
    for path, keep in kept:
        os.makedirs(keep)
        _mount(path, keep, flags="bind rec")
    places = [
        line.split()[1].encode().decode("unicode_escape") for line in Path("/proc/self/mounts").read_text().splitlines()
    ]
    for place in dict.fromkeys(places):
        if place.split("/")[1] not in ("proc", "sys", "dev", "run"):
            with contextlib.suppress(OSError):
                _mount("none", place, flags="remount bind ro")
    for path in ("/tmp", "/var/tmp", "/dev/shm"):
        _mount("tmpfs", path, "tmpfs", data="mode=1777")
    for path, keep in kept:
        if path.startswith(("/tmp/", "/var/tmp/")):
            os.makedirs(path, exist_ok=True)
        _mount(keep, path, flags="bind rec")
        if path in readable:
            _mount("none", path, flags="remount bind ro")
    subprocess.run(["umount", "-l", *(keep for _, keep in kept)], check=True)
    shutil.rmtree("/run/keep")


def _open_to_everybody(base: str) -> None:
    """The interpreter lies below root's own home on some machines: another user could not start it."""
    shut = [path for path in map(str, Path(base).parents) if os.stat(path).st_mode & 0o005 != 0o005]
    if shut:
        top = shut[-1]
        os.makedirs("/run/base")
        _mount(base, "/run/base", flags="bind")
        _mount("tmpfs", top, "tmpfs", data="mode=755")
        os.makedirs(base)
        _mount("/run/base", base, flags="bind")


def _add_user(uid: int, home: str) -> None:
    os.makedirs("/run/etc")
    for file, line in (("passwd", f"person:*:{uid}:{uid}::{home}:/bin/sh"), ("group", f"person:*:{uid}:")):
        others = [one for one in Path("/etc", file).read_text().splitlines() if one.split(":")[2] != str(uid)]
        Path("/run/etc", file).write_text("\n".join([*others, line, ""]))
        _mount(f"/run/etc/{file}", f"/etc/{file}", flags="bind")


def _loopback_up() -> None:
    """netdevice(7)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP


def _journal() -> None:
    os.makedirs("/run/systemd/journald.conf.d")
    Path("/run/systemd/journald.conf.d/test.conf").write_text(
        "[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\nRateLimitIntervalSec=0\n"
    )
    os.makedirs("/run/log/journal")
    subprocess.Popen([JOURNALD], env={"PATH": "/usr/bin:/bin", "SYSTEMD_LOG_TARGET": "null"}, stdin=subprocess.DEVNULL)
    within(5, lambda: os.path.exists("/run/systemd/journal/stdout"))


def _group_of_manager(uid: int) -> str:
    """Where logind would start it: the journal reads the names of units out of this path. The user's, as delegated."""
    group = f"/sys/fs/cgroup/user.slice/user-{uid}.slice/user@{uid}.service"
    os.makedirs(group)
    for name in ("", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"):
        os.chown(os.path.join(group, name), uid, uid)
    return group


def _become_manager(uid: int, group: str, environment: dict[str, str]) -> None:
    """In the forked child; never returns."""
    try:
        Path(group, "cgroup.procs").write_text("0")
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        become(uid)
        target = "journal" if os.path.exists("/run/systemd/journal/stdout") else "console"
        environment["SYSTEMD_LOG_TARGET"] = target
        program = next(path for path in SYSTEMD if os.path.exists(path))
        os.execve(program, ["systemd", "--user"], environment)
    finally:
        os._exit(127)


def _wait_ready(ready: socket.socket, manager: int) -> None:
    """sd_notify(3): READY=1 comes when default.target is reached."""
    for _ in range(200):
        if select.select([ready], [], [], 0.1)[0] and b"READY=1" in ready.recv(4096):
            return
        if os.waitpid(manager, os.WNOHANG) != (0, 0):
            sys.exit("the manager ended before it was ready")
    sys.exit("the manager said nothing for 20 s")


def _reap_until_told(manager: int, ended: Path) -> None:
    """Bury orphans until the pipe from the test breaks; the kernel ends all that is left when this process does."""
    wake, woken = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG)[0]) != 0:
                if found == manager:
                    ended.touch()
        if 0 in select.select([0, wake], [], [])[0]:
            return
        with contextlib.suppress(BlockingIOError):
            os.read(wake, 4096)


def become(uid: int) -> None:
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)


def within(seconds: float, so: Any) -> bool:
    until = time.monotonic() + seconds
    while not so():
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


if __name__ == "__main__":
    _main(json.loads(Path(sys.argv[1]).read_text()))
