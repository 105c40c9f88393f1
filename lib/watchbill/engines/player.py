"""Plays the script of `scripted.py`, in the current directory. Run by path as `python -I -S player.py`.

Standard library only: it runs inside the jail, where nothing else needs to be there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any


def play(step: dict[str, Any]) -> int:
    """One step; its exit status."""
    ((kind, what),) = step.items()
    if kind in ("write", "append", "replace"):
        return _edit(kind, what)
    if kind == "delete":
        os.unlink(what)
    elif kind == "sleep":
        time.sleep(what)
    elif kind == "run":
        # Only the step's own status counts: a child ended by a signal says so as a shell does.
        status = subprocess.call(["/bin/sh", "-c", what], stdin=subprocess.DEVNULL)
        return status if status >= 0 else 128 - status
    elif kind == "usage":
        _say({"type": "usage", **what})
    elif kind == "message":
        _say({"type": "message", "text": what})
    elif kind == "say":
        _say(what)
    elif kind == "rate_limited":
        _say({"type": "rate_limited", "until": what})
    return 0


def _edit(kind: str, what: dict[str, str]) -> int:
    path = what["path"]
    if kind == "replace":
        with open(path, encoding="utf-8", newline="") as file:
            text = file.read()
        if what["old"] not in text:
            print(f"{path}: there is no {what['old']!r} to replace", file=sys.stderr)
            return 1
        content, mode = text.replace(what["old"], what["new"], 1), "w"
    else:
        content, mode = what["content"], "w" if kind == "write" else "a"
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, mode, encoding="utf-8", newline="") as file:
        file.write(content)
    return 0


def _say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


def main() -> int:
    for step in json.loads(sys.stdin.buffer.readline()):
        if "exit" in step:
            return int(step["exit"])
        try:
            status = play(step)
        except OSError as error:
            print(error, file=sys.stderr)
            return 1
        if status != 0:
            return status
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
