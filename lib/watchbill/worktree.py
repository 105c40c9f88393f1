"""worktree: a fresh one, from the default branch, out of the shared mirror."""

from __future__ import annotations

import os

from watchbill.claims import rules
from watchbill.git import GitError
from watchbill.live import Firing, Target, Tree


def fresh(f: Firing, target: Target) -> Tree:
    """The worktree of this firing, and the engine's own home and temporary directory beside it."""
    tree = places(f, target.base)
    for place in (tree.root, tree.home, tree.tmp):
        os.makedirs(place, mode=0o700)
    f.tree = tree
    f.ports.mirror(target.repo).add_worktree(tree.path, _start(f, target), tree.index_copy)
    f.note("worktree", path=tree.path, base=target.base, earlier_work=f.earlier)
    return tree


def _start(f: Firing, target: Target) -> str:
    """The base, with the work in progress that a stopped firing of the same word left, if it still applies."""
    wip, before = target.wip_tip, target.previous
    if wip is None or before is None or rules.begins_anew(before):
        return target.base
    mirror = f.ports.mirror(target.repo)
    try:
        mirror.have(wip, f.ports.claim_refs(target.repo).wip_ref(target.issue.number))
        merged = mirror.merge(target.base, wip)
    except GitError as error:
        f.note("earlier work could not be read; beginning anew", commit=wip, error=str(error))
        return target.base
    f.earlier = "applied" if merged else "conflicts"
    if merged is None:
        return target.base
    return str(mirror.commit(merged, target.base, "Work in progress of an earlier firing\n", f.agent.name, f.now))


def places(f: Firing, base: str) -> Tree:
    """Where a firing's files lie: named by the firing, so that a later one can tell whose they are."""
    root = os.path.join(f.ports.home.worktrees, f.id)
    return Tree(root, f"{root}/tree", f"{root}/index", f"{root}/home", f"{root}/tmp", base)
