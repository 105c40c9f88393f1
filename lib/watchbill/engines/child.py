"""The runner's end of a kept program: start it through the keeper, signal it, sweep what it leaves."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping

from watchbill import process
from watchbill.engines.credential import MOST_BYTES
from watchbill.engines.keeper import prctl
from watchbill.errors import Fixable

_KEEPER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "keeper.py")
_SUBREAPER = 36
_SWEEP_S = 15.0  # longer than the keeper's own patience
_HIGH = 64  # scripts that node runs hand on no descriptor below 16, nor those that follow without a gap (libuv)
_LETTERS = {"SIGINT": b"I", "SIGTERM": b"T", "SIGKILL": b"K"}


class Child:
    """One program, its three streams, and the socket to its keeper."""

    def __init__(
        self,
        argv: tuple[str, ...],
        cwd: str,
        env: Mapping[str, str],
        *,
        monitored: bool,
        merged: bool,
        pipes: Mapping[str, bytes],
        sealed: bool,
    ) -> None:
        """`monitored`: see Isolation. `merged`: its stderr goes where its stdout goes. The others: see Launch."""
        self.exit_status: int | None = None  # negative: the signal
        self._lost = False  # its keeper no longer speaks
        self._program = argv[0]
        self._said = b""
        self._swept: int | None = None
        self._spared = set(process.children(os.getpid()))
        prctl(_SUBREAPER, 1)  # only matters should the keeper be killed
        words = [sys.executable, "-I", "-S", _KEEPER]
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            self.control, end = socket.socketpair()
            ours.callback(self.control.close)
            theirs.callback(end.close)
            reading, writing = _stream(sealed)
            self.stdout = ours.enter_context(open(reading, "rb", buffering=0))
            theirs.callback(os.close, writing)
            handed = {name: _full_pipe(content) for name, content in pipes.items()}
            for fd in handed.values():
                theirs.callback(os.close, fd)
            self._keeper = subprocess.Popen(
                [*words, str(end.fileno()), "inner" if monitored else "plain", "--", *argv],
                cwd=cwd, env={**env, **{name: str(fd) for name, fd in handed.items()}},
                stdin=subprocess.PIPE, stdout=writing, stderr=subprocess.STDOUT if merged else subprocess.PIPE,
                bufsize=0, start_new_session=True, pass_fds=(end.fileno(), *handed.values()))  # fmt: skip
            ours.pop_all()
        assert self._keeper.stdin
        self.stdin, self.stderr = self._keeper.stdin, self._keeper.stderr

    @property
    def gone(self) -> bool:
        """It has ended, or nobody can say any more."""
        return self._lost or self.exit_status is not None

    def hear(self) -> None:
        """What the keeper says; called when `control` can be read. Fixable when the program could not be started."""
        try:
            chunk = self.control.recv(4096)
        except ConnectionError:
            chunk = b""
        if not chunk:
            self._lost = True
        *lines, self._said = (self._said + chunk).split(b"\n")
        for line in lines:
            word, _, number = line.partition(b" ")
            if word == b"error":
                why = os.strerror(int(number))
                raise Fixable("WB-ENGINE-05", f"{self._program} cannot be started", why=why,
                              fix="run it once by hand; a script needs its `#!` program")  # fmt: skip
            if word == b"exit":
                self.exit_status = int(number)
            elif word == b"swept":
                self._swept = int(number)

    def signal(self, name: str) -> None:
        """SIGINT, SIGTERM or SIGKILL to its process group."""
        try:
            self.control.sendall(_LETTERS[name])
        except OSError:
            pass  # no keeper: `hear` learns it

    def sweep(self) -> int:
        """End everything that it started and what is left of it; how many processes that were. Closes the streams."""
        self.stdin.close()
        try:
            self._ask_for_sweep()
        finally:
            self._keeper.kill()
            self._keeper.wait()
            self.control.close()
            self.stdout.close()
            if self.stderr:
                self.stderr.close()
            lost = self._sweep_without_keeper() if self._swept is None else 0
            prctl(_SUBREAPER, 0)
        return (self._swept or 0) + lost

    def _ask_for_sweep(self) -> None:
        until = time.monotonic() + _SWEEP_S
        try:
            self.control.sendall(b"S")
            while self._swept is None and not self._lost and (left := until - time.monotonic()) > 0:
                self.control.settimeout(left)
                self.hear()
        except (OSError, Fixable):
            pass

    def _sweep_without_keeper(self) -> int:
        """The keeper was killed: its orphans are ours now. Children that the caller had before are spared."""
        killed: set[int] = set()
        until = time.monotonic() + _SWEEP_S
        while time.monotonic() < until:
            left = process.kill_children(self._spared)
            if not left:
                break
            killed |= left
            time.sleep(0.0005)
            for pid in left:
                os.waitpid(pid, os.WNOHANG)
        return len(killed)


def _stream(sealed: bool) -> tuple[int, int]:
    """Where the program's stdout is read, and where it is written. Of a socket there is no /proc/PID/fd/1 to open."""
    if not sealed:
        return os.pipe()
    ours, theirs = socket.socketpair()
    ours.shutdown(socket.SHUT_WR)
    return ours.detach(), theirs.detach()


def _full_pipe(content: bytes) -> int:
    """The reading end of a pipe that holds this, and then ends. ValueError for more than a pipe takes at once."""
    if len(content) > MOST_BYTES:
        raise ValueError(f"{len(content)} bytes are more than a pipe of {MOST_BYTES} takes")
    reading, writing = os.pipe()
    os.write(writing, content)
    os.close(writing)
    high = fcntl.fcntl(reading, fcntl.F_DUPFD, _HIGH)
    os.close(reading)
    return high
