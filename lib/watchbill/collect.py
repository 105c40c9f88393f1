"""collect: freeze what changed as a git tree id, by our own index and an explicit GIT_DIR; then scan it.

Nothing the engine left in or for git is believed: not the worktree's `.git`, not commits it made, not its config. The
files are the work; the runner commits.
"""

from __future__ import annotations

from watchbill import evidence, git, render, scan
from watchbill.live import Firing, Target, Tree, Work
from watchbill.mirror import Mirror
from watchbill.outcomes import Ended


_LINK = "120000"
_BLOBS = ("100644", "100755", _LINK)


def _changes(mirror: Mirror, base: str, frozen: str) -> list[scan.Change]:
    """What differs, with as much of the contents as the scan reads."""
    raw = mirror.changes(base, frozen)
    files = {id for c in raw for id, mode in ((c.new_id, c.new_mode), (c.old_id, c.old_mode)) if mode in _BLOBS}
    sizes, contents = git.sizes(mirror.path, files), git.blobs(mirror.path, files, scan.Policy().max_file_bytes)
    return [
        scan.Change(
            path=c.path,
            status=c.status,
            old_mode=c.old_mode,
            new_mode=c.new_mode,
            size=sizes.get(c.new_id, 0),
            content=None if c.new_mode == _LINK else contents.get(c.new_id),
            link_target=contents.get(c.new_id) if c.new_mode == _LINK else None,
            old_content=contents.get(c.old_id),
        )
        for c in raw
    ]


def freeze(f: Firing, target: Target, tree: Tree) -> Work:
    """The work as one commit on the base. Raises Ended (no_change, needs_human)."""
    mirror = f.ports.mirror(target.repo)
    frozen = mirror.freeze(tree.path, tree.base, tree.index_copy)
    if frozen == mirror.tree_of(tree.base):
        raise Ended("no_change", "the engine ended well and changed no file", "no-change")
    changes = _changes(mirror, tree.base, frozen)
    diff, added, removed = mirror.diff(tree.base, frozen)
    summary = {"files": len(changes), "added": added, "removed": removed, "tree": frozen, "base": tree.base}
    digest = evidence.keep(f, "diff", diff, summary)
    commit = mirror.commit(frozen, tree.base, render.commit_message(f, target), f.agent.name, f.now)
    work = Work(frozen, commit, len(changes), added, removed, digest)
    f.work = work
    f.note("collected", **summary)
    findings = scan.findings(changes, scan.Policy(protected=target.repo.protected))
    if findings:
        listed = [f"{found.kind} in {found.path}: {found.detail}" for found in findings]
        evidence.keep(f, "scan", "\n".join(listed), {"findings": len(findings), "first": listed[0]})
        more = f" (and {len(listed) - 1} more)" if len(listed) > 1 else ""
        raise Ended("needs_human", f"the scan holds the work back: {listed[0]}{more}", f"scan-{findings[0].kind}")
    return work
