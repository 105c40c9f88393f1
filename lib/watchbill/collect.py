"""collect: freeze what changed as a git tree id, by our own index and an explicit GIT_DIR; then scan it.

Nothing the engine left in or for git is believed: not the worktree's `.git`, not commits it made, not its config. The
files are the work; the runner commits.
"""

from __future__ import annotations

import os

from watchbill import evidence, scan, wording
from watchbill.git import GitError
from watchbill.live import Firing, Target, Tree, Work
from watchbill.outcomes import Ended


def _credentials(f: Firing, changes: list[scan.Change]) -> list[scan.Finding]:
    """The very credentials that this process holds, whatever they look like."""
    held = [secret.encode() for secret in f.ports.secrets()]
    hit = [c for c in changes if c.content is not None and any(secret in c.content for secret in held)]
    return [scan.Finding("secret", scan.shown(c.path), "a credential of this fleet") for c in hit]


def only_files(root: str) -> None:
    """Raise Ended when there is a pipe, socket or device: opening one could wait for ever."""
    todo = [root]
    while todo:
        with os.scandir(todo.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)
                elif not (entry.is_file(follow_symlinks=False) or entry.is_symlink()):
                    name = os.path.relpath(entry.path, root)
                    raise Ended("engine_failed", f"the engine left {name!r}, which is no file", "engine-special-file")


def freeze(f: Firing, target: Target, tree: Tree) -> Work:
    """The work as one commit on the base. Raises Ended (no_change, needs_human)."""
    mirror = f.ports.mirror(target.repo)
    only_files(tree.path)
    try:
        frozen = mirror.freeze(tree.path, tree.base, tree.index_copy)
    except GitError as error:
        raise Ended("engine_failed", f"what the engine left cannot be frozen: {error}", "engine-tree") from error
    if frozen == mirror.tree_of(tree.base):
        raise Ended("no_change", "the engine ended well and changed no file", "no-change")
    return scanned(f, target, tree, frozen)


def scanned(f: Firing, target: Target, tree: Tree, frozen: str) -> Work:
    """A tree as one commit on its base, on record, once nothing in it is held back. Raises Ended (needs_human)."""
    mirror = f.ports.mirror(target.repo)
    policy = scan.Policy(protected=target.repo.protected)
    changes = mirror.changes(tree.base, frozen, policy)
    diff, added, removed = mirror.diff(tree.base, frozen)
    summary = {"files": len(changes), "added": added, "removed": removed, "tree": frozen, "base": tree.base}
    digest = evidence.keep(f, "diff", diff, summary)
    commit = mirror.commit(frozen, tree.base, wording.commit_message(f, target), f.agent.name, f.now)
    work = Work(frozen, commit, len(changes), added, removed, digest)
    f.work = work
    f.note("collected", **summary)
    listed = findings(f, target, changes)
    if listed:
        said = [f"{found.kind} in {found.path}: {found.detail}" for found in listed]
        evidence.keep(f, "scan", "\n".join(said), {"findings": len(said), "first": said[0]})
        more = f" (and {len(said) - 1} more)" if len(said) > 1 else ""
        raise Ended("needs_human", f"the scan holds the work back: {said[0]}{more}", f"scan-{listed[0].kind}")
    return work


def findings(f: Firing, target: Target, changes: list[scan.Change]) -> list[scan.Finding]:
    """What may not leave this host."""
    return [*_credentials(f, changes), *scan.findings(changes, scan.Policy(protected=target.repo.protected))]
