"""collect: freeze what changed as a git tree id, by our own index and an explicit GIT_DIR; then scan it.

Nothing the engine left in or for git is believed: not the worktree's `.git`, not commits it made, not its config. The
files are the work; the runner commits.
"""

from __future__ import annotations

from watchbill import evidence, render, scan
from watchbill.live import Firing, Target, Tree, Work
from watchbill.outcomes import Ended


def freeze(f: Firing, target: Target, tree: Tree) -> Work:
    """The work as one commit on the base. Raises Ended (no_change, needs_human)."""
    mirror = f.ports.mirror(target.repo)
    frozen = mirror.freeze(tree.path, tree.base, tree.index_copy)
    if frozen == mirror.tree_of(tree.base):
        raise Ended("no_change", "the engine ended well and changed no file", "no-change")
    policy = scan.Policy(protected=target.repo.protected)
    changes = mirror.changes(tree.base, frozen, policy)
    diff, added, removed = mirror.diff(tree.base, frozen)
    summary = {"files": len(changes), "added": added, "removed": removed, "tree": frozen, "base": tree.base}
    digest = evidence.keep(f, "diff", diff, summary)
    commit = mirror.commit(frozen, tree.base, render.commit_message(f, target), f.agent.name, f.now)
    work = Work(frozen, commit, len(changes), added, removed, digest)
    f.work = work
    f.note("collected", **summary)
    findings = scan.findings(changes, policy)
    if findings:
        listed = [f"{found.kind} in {found.path}: {found.detail}" for found in findings]
        evidence.keep(f, "scan", "\n".join(listed), {"findings": len(findings), "first": listed[0]})
        more = f" (and {len(listed) - 1} more)" if len(listed) > 1 else ""
        raise Ended("needs_human", f"the scan holds the work back: {listed[0]}{more}", f"scan-{findings[0].kind}")
    return work
