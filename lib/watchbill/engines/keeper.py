"""The keeper: a small process between the runner and the program it runs, so that nothing outlives either of them.

Run by path as `python -I -S keeper.py FD plain|inner -- argv...`; FD is a socket to the runner. Whatever the program
starts becomes, once orphaned, a child of the keeper (prctl(2), PR_SET_CHILD_SUBREAPER), also when it left its process
group and session; so a sweep ends exactly what this run left, and none of the runner's other children. When the
runner dies, even by SIGKILL, the socket ends and the keeper sweeps. When the keeper is killed, the kernel kills the
program (PR_SET_PDEATHSIG) and the runner, a subreaper too, sweeps the rest.

The runner writes single bytes: I, T, K send SIGINT, SIGTERM, SIGKILL; S sweeps and leaves. The keeper writes lines:
`error ERRNO` (it could not be started), `exit STATUS` (negative: the signal), `swept COUNT`.

macOS has no subreaper: there a sweep ends the process group and what the process tree showed at the last look.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

if __name__ == "__main__":
    # Appended, so that nothing beside the package can stand in for a module of the standard library.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from watchbill import process

#: In the environment of everything that a firing starts.
MARKER = "WATCHBILL_FIRING"

_LINUX = sys.platform == "linux"
_PDEATHSIG, _SUBREAPER = 1, 36
_SENT = {b"I": signal.SIGINT, b"T": signal.SIGTERM, b"K": signal.SIGKILL}
_LOOK_S = 1.0  # how often the process tree is remembered where there is no subreaper
_PATIENCE_S = 10.0  # a process that survives SIGKILL so long hangs in the kernel
_LEAVING_S = 0.05  # what is just ending by itself is no stray


def main(args: list[str]) -> None:
    control, inner, argv = int(args[0]), args[1] == "inner", args[3:]
    os.set_inheritable(control, False)
    prctl(_SUBREAPER, 1)
    try:
        leader = start(argv)
    except OSError as error:
        say(control, f"error {error.errno}")
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _let_go_of_streams(control)
    Keeper(control, leader, inner).keep()


def start(argv: list[str]) -> int:
    """Fork and exec in a session of its own; the pid. OSError when it cannot be executed."""
    said, say_errno = os.pipe()
    keeper, pid = os.getpid(), os.fork()
    if pid == 0:
        try:
            os.setsid()
            prctl(_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == keeper:
                _signals_as_a_shell_has_them()
                os.execvp(argv[0], argv)
        except OSError as error:
            os.write(say_errno, str(error.errno).encode())
        finally:
            os._exit(127)
    os.close(say_errno)
    errno = os.read(said, 16)
    os.close(said)
    if errno:
        os.waitpid(pid, 0)
        raise OSError(int(errno), os.strerror(int(errno)))
    return pid


class Keeper:
    """One program, kept."""

    def __init__(self, control: int, leader: int, inner: bool) -> None:
        self.control = control
        self.leader = leader
        self.inner = inner  # the leader is a monitor (bwrap): signals are for the group of its child
        self.ended = False
        self.remembered: set[int] = set()
        self._wake, wakes = os.pipe()
        for fd in (self._wake, wakes):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def keep(self) -> None:
        """Until the runner says so, or is gone."""
        self.reap()
        while True:
            ready, _, _ = select.select([self.control, self._wake], [], [], None if _LINUX else _LOOK_S)
            if self._wake in ready:
                os.read(self._wake, 4096)
            self.reap()
            if not _LINUX:
                self.remembered |= set(process.descendants(os.getpid()))
            if self.control in ready:
                try:
                    word = os.read(self.control, 1)
                except ConnectionError:
                    word = b""
                if word in _SENT:
                    self.send(_SENT[word])
                else:
                    swept = self.sweep()
                    say(self.control, f"swept {swept}")
                    return

    def reap(self) -> bool:
        """Also orphans: they are ours. False when there is no child left at all."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.leader:
                self.ended = True
                say(self.control, f"exit {os.waitstatus_to_exitcode(status)}")

    def send(self, number: signal.Signals) -> None:
        if self.ended:
            return
        groups = [self.leader]  # it leads its own session and group
        if self.inner and number != signal.SIGKILL:
            # A signal to bwrap ends it and with it everything inside, before the engine could say what it spent.
            groups = [group for group in groups_inside(self.leader) if group != self.leader] or groups
        for group in groups:
            try:
                os.killpg(group, number)
            except (ProcessLookupError, PermissionError):
                pass

    def sweep(self) -> int:
        """End everything that is left; how many that were, the program itself not counted.

        Only children are killed, again and again: theirs become ours by that. A look through /proc would miss who forks
        and leaves while it is made; a child cannot leave us before it is reaped here, nor its pid go to somebody else.
        """
        until, leaving = time.monotonic() + _PATIENCE_S, time.monotonic() + _LEAVING_S
        killed: set[int] = set()
        while self.reap() and time.monotonic() < until:
            if self.ended and time.monotonic() < leaving:
                time.sleep(0.002)
                continue
            killed |= process.kill_children()
            time.sleep(0.0005)
        if not _LINUX:
            left = {pid for pid in self.remembered if process.is_marked(pid, MARKER, os.environ[MARKER])}
            killed |= set(process.end(left))
        return len(killed - {self.leader})


def groups_inside(monitor: int) -> list[int]:
    """The process groups of a monitor's own children."""
    found = []
    for child in process.children(monitor):
        try:
            found.append(os.getpgid(child))
        except OSError:
            continue
    return found


def say(control: int, line: str) -> None:
    try:
        os.write(control, line.encode() + b"\n")
    except OSError:
        pass  # the runner is gone; the next read says so


def prctl(option: int, value: int) -> None:
    """prctl(2); nothing elsewhere than on Linux."""
    if _LINUX:
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _signals_as_a_shell_has_them() -> None:
    # What is ignored stays ignored across exec: Python ignores SIGPIPE, and `nohup` or a shell's `&` other ones.
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        try:
            signal.signal(number, signal.SIG_DFL)
        except OSError:
            pass  # kept by the C library for itself
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _let_go_of_streams(control: int) -> None:
    """So that the runner sees the end of a stream when the program and its own let go of it; and what the program is
    given through a pipe is in its hands alone."""
    os.closerange(3, control)
    os.closerange(control + 1, 256)
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
    os.close(nothing)


if __name__ == "__main__":
    main(sys.argv[1:])
