"""Locks that the kernel releases."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from watchbill import lock

HOLD = """
import subprocess, sys
from watchbill import lock
with lock.agent_lock(sys.argv[1]):
    child = subprocess.Popen(["sleep", "600"]) if len(sys.argv) > 2 else None
    print(child.pid if child else "held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def holder(path: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that holds the lock until its stdin is closed, or it is killed."""
    argv = [sys.executable, "-c", HOLD, str(path), *more]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_one_holds_it_and_the_others_are_told(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "bosun.lock"
    assert not lock.held(str(path))
    assert not path.exists()
    with holder(path):
        assert lock.held(str(path))
        with pytest.raises(lock.Busy), lock.agent_lock(str(path), timeout_s=0.05):
            pass
    assert not lock.held(str(path))
    with lock.agent_lock(str(path)):
        assert lock.held(str(path))


@pytest.mark.parametrize("more", [(), ("with a child",)])
def test_a_holder_killed_dead_holds_nothing_even_when_its_child_lives(tmp_path: Path, more: tuple[str, ...]) -> None:
    """Broken on purpose: the descriptor made inheritable; with `close_fds=False` the child kept the lock."""
    path = tmp_path / "bosun.lock"
    with holder(path, *more) as (process, said):
        assert lock.held(str(path))
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        try:
            assert not lock.held(str(path))
            with lock.agent_lock(str(path), timeout_s=0):
                pass
        finally:
            if more:
                os.kill(int(said), signal.SIGKILL)


def test_probes_do_not_keep_a_firing_from_its_lock(tmp_path: Path) -> None:
    """A probe holds the lock for an instant; the taker waits it out. With `timeout_s=0` this fails now and then."""
    path = str(tmp_path / "bosun.lock")
    with lock.agent_lock(path):
        pass
    probe = "import sys\nfrom watchbill import lock\nprint('', flush=True)\nwhile True: lock.held(sys.argv[1])"
    with subprocess.Popen([sys.executable, "-c", probe, path], stdout=subprocess.PIPE) as prober:
        assert prober.stdout is not None
        prober.stdout.readline()
        try:
            for _ in range(50):
                with lock.agent_lock(path):
                    pass
        finally:
            prober.kill()


def test_the_file_stays_so_that_no_two_hold_different_files_of_one_name(tmp_path: Path) -> None:
    """Guards against a version of filelock that unlinks on release: then the inode would change."""
    path = tmp_path / "m.lock"
    with lock.mirror_lock(str(path), 1.0):
        inode = path.stat().st_ino
    assert path.stat().st_ino == inode
    with lock.mirror_lock(str(path), 1.0):
        assert path.stat().st_ino == inode


def test_a_lock_is_released_when_its_block_fails(tmp_path: Path) -> None:
    path = str(tmp_path / "m.lock")
    with pytest.raises(ZeroDivisionError), lock.mirror_lock(path, 1.0):
        raise ZeroDivisionError
    assert not lock.held(path)


def test_the_probe_brings_nothing_along() -> None:
    """It lies on the way to a refusal."""
    code = "import sys; from watchbill import lock; lock.held('/nonexistent'); print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert not {"filelock", "asyncio", "subprocess", "pathlib", "email", "http"} & set(done.stdout.split())
