"""Where an engine's program is installed: what has to be started so that our pipes and signals reach it.

npm puts a script of its own before Codex (bin/codex.js of @openai/codex 0.169.0). It starts the program with three
streams and no further descriptor: a key that comes through a pipe would never arrive. So the program itself is started;
that is also one process less.
"""

from __future__ import annotations

import glob
import os
import platform

from watchbill.engines.base import Task
from watchbill.engines.command import find_program
from watchbill.errors import Fixable

#: Engine -> the npm package that brings its program.
PACKAGES = {"claude": "@anthropic-ai/claude-code", "codex": "@openai/codex"}
_NATIVE = (b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")  # of Linux; of macOS, for one architecture and several


def find(engine: str, task: Task) -> str:
    """The path of an engine's program: `program` of its options, or its name on PATH.

    Fixable WB-ENGINE-01 when there is none.
    """
    try:
        found = find_program(str(task.options.get("program") or engine), task)
    except Fixable as missing:
        raise Fixable(missing.id, missing.what, why=missing.why, fix=f"npm install -g {PACKAGES[engine]}, or"
                      f" {_by_path(engine)}") from None  # fmt: skip
    real = os.path.realpath(found)
    if real.endswith(".js") and engine == "codex":
        return _behind_npm(engine, found, real)
    # Where a link lies is no place that a jail need show. But a version manager's shim goes by the name it is called
    # by; the path of the program itself says its name (claude/versions/2.1.329, claude-code/bin/claude.exe).
    beyond = os.path.relpath(real, os.path.commonpath([os.path.dirname(os.path.abspath(found)), real]))
    return real if engine in beyond and _native(real) else found


def own_words(engine: str, task: Task, example: str) -> list[str]:
    """`args` of its options: further words of its command line. Fixable WB-ENGINE-09."""
    words = task.options.get("args") or []
    if not isinstance(words, (list, tuple)) or not all(isinstance(word, str) and "\0" not in word for word in words):
        raise malformed(engine, f"args is {words!r}", f"args = {example}")
    return list(words)


def malformed(engine: str, why: str, fix: str) -> Fixable:
    what = f"engine {engine}: this is no list of words for its command line"
    return Fixable("WB-ENGINE-09", what, why=why, fix=fix)


def _behind_npm(engine: str, found: str, script: str) -> str:
    """As the script itself looks for it: in a package beside it or above, or in its own folder."""
    folder = os.path.dirname(os.path.dirname(script))
    while folder != os.path.dirname(folder):
        for pattern in ("node_modules/@openai/codex-*/vendor/*/bin/codex", "vendor/*/bin/codex"):
            for path in sorted(glob.glob(os.path.join(glob.escape(folder), pattern)), key=_of_others):
                if os.access(path, os.X_OK) and _native(path):
                    return os.path.realpath(path)
        folder = os.path.dirname(folder)
    raise Fixable(
        "WB-ENGINE-01",
        f"the engine's program behind {found} is missing",
        why=f"{script} starts another program, and that is nowhere beside it",
        fix=f"npm install -g {PACKAGES[engine]}, with its optional packages; or {_by_path(engine)}",
    )


def _of_others(path: str) -> bool:
    """Whether it is for another kind of machine, as it may lie beside ours on a disk that several share."""
    machine = {"arm64": "aarch64"}.get(platform.machine(), platform.machine())
    return not os.path.basename(os.path.dirname(os.path.dirname(path))).startswith(machine)


def _by_path(engine: str) -> str:
    return f'name its path: [engines.{engine}] program = "/path/to/{engine}"'


def _native(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(4) in _NATIVE
    except OSError:
        return False
