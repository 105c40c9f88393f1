"""Which host this is: one id for all firings that begin together, a new one where the home was copied to or spoilt."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import shutil
import time
from pathlib import Path

import pytest

from watchbill.host import host_id


def _ask(path: str, held: int, reading: object, answers: object) -> None:
    os.close(held)  # the parent's lock, which a fork shares
    reading.release()  # type: ignore[attr-defined]
    answers.put(host_id(path))  # type: ignore[attr-defined]


@pytest.mark.parametrize("before", [None, "", "{", "[]", '{"id": 7}'], ids=["absent", "empty", "torn", "list", "no id"])
def test_firings_that_begin_together_are_of_one_host(tmp_path: Path, before: str | None) -> None:
    """Broken on purpose: without the second look under the lock, eight firings were eight hosts."""
    path = tmp_path / "host.json"
    if before is not None:
        path.write_text(before)
    context = multiprocessing.get_context("fork")
    reading, answers = context.Semaphore(0), context.Queue()
    (tmp_path / "locks").mkdir()
    with open(tmp_path / "locks" / "host.lock", "w") as held:
        asking = [
            context.Process(target=_ask, args=(str(path), held.fileno(), reading, answers), daemon=True)
            for _ in range(8)
        ]
        fcntl.flock(held, fcntl.LOCK_EX)
        for process in asking:
            process.start()
        for _ in asking:
            reading.acquire()
        time.sleep(0.5)  # each has read, and waits
    given = {answers.get(timeout=30) for _ in asking}
    for process in asking:
        process.join()
    assert given == {host_id(str(path))}
    assert {host_id(str(path)) for _ in range(3)} == given


def test_a_copy_of_a_home_is_another_host_and_a_moved_one_is_not(tmp_path: Path) -> None:
    """Broken once: `stop --now` of a copy ended the firings of the original."""
    home, copy, moved = tmp_path / "home", tmp_path / "copy", tmp_path / "moved"
    home.mkdir()
    first = host_id(str(home / "host.json"))
    shutil.copytree(home, copy)
    assert host_id(str(copy / "host.json")) != first
    home.rename(moved)
    assert host_id(str(moved / "host.json")) == first


def test_an_id_of_an_older_program_stays_and_is_bound_to_its_home_from_then_on(tmp_path: Path) -> None:
    path = tmp_path / "host.json"
    first = host_id(str(path))
    known = json.loads(path.read_text())
    bound = known.pop("home")
    path.write_text(json.dumps(known))
    assert host_id(str(path)) == first
    assert json.loads(path.read_text()) == {**known, "home": bound}


@pytest.mark.parametrize("key", ["machine", "pid_namespace"])
def test_a_home_that_was_copied_elsewhere_is_another_host(tmp_path: Path, key: str) -> None:
    path = tmp_path / "host.json"
    first = host_id(str(path))
    path.write_text(json.dumps({**json.loads(path.read_text()), key: "elsewhere"}))
    second = host_id(str(path))
    assert second != first
    assert host_id(str(path)) == second
