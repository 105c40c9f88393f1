"""Many processes at once, let go together."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any


def together(count: int, work: Callable[[int], Any]) -> tuple[float, list[Any]]:
    """Run `work(number)` in `count` forked processes; wall seconds from the go to the last one's end, and answers."""
    go_read, go_write = os.pipe()
    children = []
    for number in range(count):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            _child(number, work, go_read, go_write, write)
        os.close(write)
        children.append((pid, read))
    os.close(go_read)
    for _, read in children:
        os.read(read, 1)  # it is ready
    began = time.perf_counter()
    os.close(go_write)
    answers = []
    for pid, read in children:
        with os.fdopen(read, "rb") as file:
            text = file.read()
        _, status = os.waitpid(pid, 0)
        assert status == 0, f"a process ended with {status}"
        answers.append(json.loads(text))
    return time.perf_counter() - began, answers


def _child(number: int, work: Callable[[int], Any], go_read: int, go_write: int, write: int) -> None:
    try:
        os.close(go_write)
        os.write(write, b" ")
        os.read(go_read, 1)  # ends when the parent closes its side
        os.write(write, json.dumps(work(number)).encode())
        os._exit(0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
