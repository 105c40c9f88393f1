"""tidy: the worktree goes away, unless it holds work that is nowhere else."""

from __future__ import annotations

import os
import shutil

from watchbill.errors import Fixable
from watchbill.git import GitError
from watchbill.live import Firing
from watchbill.mirror import Mirror

#: A file beside a worktree whose work could not be kept as a commit: nobody removes that tree.
HOLDS_WORK = "holds-work"
_CHECKOUTS = ("tree", "base", "verify", "verify-again")


def away(f: Firing) -> None:
    """What this firing had on disk."""
    if f.tree is not None and f.claim is not None:
        mirror = f.ports.mirror(f.claim.target.repo)
        remove(f.tree.root, mirror, f)
        mirror.empty_trash()


def hold(root: str, why: str) -> None:
    """From here on nobody removes this tree."""
    with open(os.path.join(root, HOLDS_WORK), "w", encoding="utf-8") as file:
        file.write(f"{why}\n")


def remove(root: str, mirror: Mirror, f: Firing) -> None:
    """Never fails a firing: what could not be removed is named in the log, and a later one takes it."""
    if os.path.exists(os.path.join(root, HOLDS_WORK)):
        f.note("the worktree stays: it holds work that is nowhere else", path=root)
        return
    for place in _CHECKOUTS:
        path = os.path.join(root, place)
        if os.path.lexists(path):
            try:
                mirror.drop_worktree(path)
            except (OSError, GitError, Fixable) as error:
                f.note("a worktree could not be removed", path=path, error=str(error))
    shutil.rmtree(root, ignore_errors=True)
