"""worktree: a fresh one, from the default branch, out of the shared mirror."""

from __future__ import annotations

import os

from watchbill.live import Firing, Target, Tree


def fresh(f: Firing, target: Target) -> Tree:
    """The worktree of this firing, and the engine's own home and temporary directory beside it."""
    tree = places(f, target.base)
    for place in (tree.root, tree.home, tree.tmp):
        os.makedirs(place, mode=0o700)
    f.tree = tree
    f.ports.mirror(target.repo).add_worktree(tree.path, target.base, tree.index_copy)
    f.note("worktree", path=tree.path, base=target.base)
    return tree


def places(f: Firing, base: str) -> Tree:
    """Where a firing's files lie: named by the firing, so that a later one can tell whose they are."""
    root = os.path.join(f.ports.home.worktrees, f.id)
    return Tree(root, f"{root}/tree", f"{root}/index", f"{root}/home", f"{root}/tmp", base)
