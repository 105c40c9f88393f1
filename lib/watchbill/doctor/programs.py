"""Versions of what every firing needs: git, SQLite, Python."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

from watchbill.doctor.finding import Finding, Look, with_folder_of
from watchbill.isolation.base import program_path
from watchbill.ledger import db

_GIT = (2, 38)  # `merge-tree --write-tree` (git 2.38 release notes)
_SQLITE = (3, 37)  # STRICT tables (https://sqlite.org/changes.html)
TIMEOUT_S = 10.0


def git(it: Look) -> Iterator[Finding]:
    found = shutil.which("git", path=program_path(os.environ))
    if found is None:
        theirs = it.in_shell("git")
        also = f"; your shell finds {theirs}" if theirs else ""
        fix = with_folder_of(theirs) if theirs else "install git 2.38 or newer"
        yield Finding("programs", "git", "wrong", f"git is not on PATH{also}", "WB-GIT-01", fix)
        return
    said = _said(found)
    number = re.search(r"\d+(?:\.\d+)+", said)
    if number is None:
        what = f"{found} does not tell its version: {said[:200] or 'nothing'}"
        yield Finding("programs", "git", "wrong", what, "WB-DOCTOR-08", f"see what `{found} --version` says")
    elif tuple(map(int, number[0].split(".")[:2])) < _GIT:
        what = f"{found} is version {number[0]}, and merges in memory came with 2.38"
        yield Finding("programs", "git", "wrong", what, "WB-DOCTOR-08", "install git 2.38 or newer")
    else:
        yield Finding("programs", "git", "ok", f"{found} is version {number[0]}")


def _said(program: str) -> str:
    """What it prints of its version; of what hangs or does not start, why."""
    env = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    try:
        done = subprocess.run([program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              errors="replace", timeout=TIMEOUT_S, env=env, check=False)  # fmt: skip
    except OSError as error:
        return f"it cannot be started ({error.strerror})"
    except subprocess.TimeoutExpired:
        return f"it gave no answer within {TIMEOUT_S:.0f} s"
    return done.stdout


def sqlite(_it: Look, version: tuple[int, ...] = db.SQLITE) -> Iterator[Finding]:
    """The library that this Python was built with.

    A writer that begins the write-ahead log anew while another checkpoints it can damage the file, in releases before
    3.51.3, 3.50.7 and 3.44.6 (https://sqlite.org/wal.html, "The WAL-Reset Bug"): rare, and nobody's fault here.
    """
    text = ".".join(map(str, version))
    if version < _SQLITE:
        what, fix = f"SQLite is {text}, and the ledger needs 3.37", "use a Python that is built with a newer SQLite"
        yield Finding("programs", "SQLite", "wrong", what, "WB-DOCTOR-08", fix)
    elif version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45):
        yield Finding("programs", "SQLite", "ok", f"version {text}")
    else:
        what = f"version {text} has a rare fault of write-ahead logs (WAL-reset), which 3.51.3 mended"
        fix = "update your system's SQLite, or Python, when it has one; `watchbill ledger verify` finds damage"
        yield Finding("programs", "SQLite", "note", what, "WB-DOCTOR-08", fix)


def python(_it: Look) -> Iterator[Finding]:
    yield Finding("programs", "Python", "ok", f"{sys.executable} is version {platform.python_version()}")
