"""tidy: the worktree goes away, unless it holds work that is nowhere else."""

from __future__ import annotations

import os
import shutil

from watchbill.errors import Fixable
from watchbill.git import GitError
from watchbill.live import Firing


def away(f: Firing) -> None:
    """Never fails a firing: what could not be removed is named in the log, and a sweep takes it."""
    tree = f.tree
    if tree is None or f.claim is None:
        return
    if f.tree_holds_work:
        f.note("the worktree stays: it holds work that is nowhere else", path=tree.path)
        return
    mirror = f.ports.mirror(f.claim.target.repo)
    for place in ("tree", "base", "verify"):
        path = os.path.join(tree.root, place)
        if os.path.lexists(path):
            try:
                mirror.drop_worktree(path)
            except (OSError, GitError, Fixable) as error:
                f.note("a worktree could not be removed", path=path, error=str(error))
    shutil.rmtree(tree.root, ignore_errors=True)
    mirror.empty_trash()
