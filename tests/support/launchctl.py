"""What a test holds of the stand-in for launchctl (`launchctl_program.py`): it is put on PATH, told how to fail, asked.

double = launchctl.install(tmp_path)          # and PATH=double.bin:...
"""

from __future__ import annotations

import ast
import marshal
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple


class Double(NamedTuple):
    """What a test holds of it."""

    root: Path

    @property
    def bin(self) -> Path:
        return self.root / "bin"

    def knob(self, name: str, value: object) -> None:
        (self.root / "knobs" / name).write_text(str(value))

    def calls(self, verb: str = "") -> list[list[str]]:
        """Every call so far, each with its status as the last word."""
        path = self.root / "calls"
        every = [ast.literal_eval(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [call for call in every if verb in ("", call[0])]

    def mutations(self) -> list[list[str]]:
        return [call for call in self.calls() if call[0] in ("bootstrap", "bootout", "enable", "disable", "kickstart")]

    def forget_calls(self) -> None:
        (self.root / "calls").unlink(missing_ok=True)

    def ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(self.bin / "launchctl"), *words], capture_output=True, text=True, check=False)

    def loaded(self, session: str = "gui") -> dict[str, dict[str, Any]]:
        return {path.name: marshal.loads(path.read_bytes()) for path in (self.root / session).iterdir()}

    def begin(self, label: str, session: str = "gui") -> None:
        """From now on a firing of it is at work (none really is)."""
        self._edit(label, session, pid=4242, state="running")

    def end(self, label: str, code: int = 0, session: str = "gui") -> None:
        runs = self.loaded(session)[label]["runs"] + 1
        self._edit(label, session, pid=None, state="not running", exit=code, runs=runs)

    def reboot(self, session: str = "gui") -> None:
        """Everything is unloaded; what lies in LaunchAgents and is not disabled is loaded at login."""
        for path in (self.root / session).iterdir():
            path.unlink()
        folder = Path(os.environ["HOME"]) / "Library" / "LaunchAgents"
        for plist in sorted(folder.glob("*.plist")):
            self.ask("bootstrap", f"{session}/{os.getuid()}", str(plist))

    def killed(self) -> list[str]:
        """Units that were booted out while a firing of theirs was at work."""
        path = self.root / "killed"
        return path.read_text().split() if path.exists() else []

    def _edit(self, label: str, session: str, **changed: Any) -> None:
        job = {**self.loaded(session)[label], **changed}
        (self.root / session / label).write_bytes(marshal.dumps(job))


def install(room: Path) -> Double:
    """Put it into `room`, which it makes."""
    root = room / "launchd"
    for folder in ("bin", "knobs", "gui", "user"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    program = root / "bin" / "launchctl"
    here = os.path.dirname(os.path.abspath(__file__))
    start = f"import sys; sys.path.insert(0, {here!r}); import launchctl_program as p; sys.exit(p.main(sys.argv[1:]))"
    words = " ".join(shlex.quote(word) for word in (sys.executable, "-I", "-S", "-c", start, str(root)))
    program.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    program.chmod(0o755)
    return Double(root)
