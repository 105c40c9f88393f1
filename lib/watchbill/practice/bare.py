"""What the practice forge reads from, and does in, a bare repository, by git itself."""

from __future__ import annotations

import os
import subprocess
from typing import NamedTuple

from watchbill.practice import githttp


class Refs(NamedTuple):
    """The branches of a repository at one moment."""

    default: str  # the branch HEAD names, also when it is not born yet
    heads: dict[str, str]  # branch -> commit


class Compared(NamedTuple):
    """How a head differs from a base."""

    commits: int
    additions: int
    deletions: int
    files: int


def _git(path: str, *argv: str, given: str | None = None, who: str = "practice") -> subprocess.CompletedProcess[str]:
    env = githttp.git_environment()
    for role in ("AUTHOR", "COMMITTER"):
        env[f"GIT_{role}_NAME"] = who
        env[f"GIT_{role}_EMAIL"] = f"{who}@users.noreply.127.0.0.1"
    return subprocess.run(
        ["git", "--git-dir", path, *argv], env=env, input=given, capture_output=True, text=True, check=False
    )


def refs(path: str) -> Refs:
    """Every branch, in one process."""
    heads = {}
    for line in _git(path, "for-each-ref", "--format=%(objectname) %(refname)", "refs/heads/").stdout.splitlines():
        sha, _, name = line.partition(" ")
        heads[name.removeprefix("refs/heads/")] = sha
    return Refs(default_branch(path), heads)


def default_branch(path: str) -> str:
    """The branch that HEAD names."""
    with open(os.path.join(path, "HEAD"), encoding="utf-8") as file:
        return file.read().strip().removeprefix("ref: refs/heads/")


def matching(path: str, prefix: str) -> dict[str, str]:
    """Full ref names that begin with `refs/<prefix>`, with the object each points at."""
    found = {}
    for line in _git(path, "for-each-ref", "--format=%(objectname) %(refname)").stdout.splitlines():
        sha, _, name = line.partition(" ")
        if name.startswith(f"refs/{prefix}"):
            found[name] = sha
    return found


def has_commit(path: str, sha: str) -> bool:
    """Is there a commit of exactly this name?"""
    return _git(path, "cat-file", "-e", f"{sha}^{{commit}}").returncode == 0


def contains(path: str, head: str, commit: str) -> bool:
    """Is `commit` the head itself or behind it?"""
    return _git(path, "merge-base", "--is-ancestor", commit, head).returncode == 0


def between(path: str, base: str, head: str) -> int:
    """How many commits `head` has that `base` has not."""
    return int(_git(path, "rev-list", "--count", f"{base}..{head}", "--").stdout.strip() or 0)


def compare(path: str, base: str, head: str) -> Compared:
    """Commits and changed lines of head since it left base."""
    lines = _git(path, "diff", "--numstat", f"{base}...{head}", "--").stdout.splitlines()
    counts = [line.split("\t")[:2] for line in lines]
    return Compared(
        between(path, base, head),
        sum(int(added) for added, _ in counts if added != "-"),
        sum(int(removed) for _, removed in counts if removed != "-"),
        len(counts),
    )


def merged_tree(path: str, base: str, head: str) -> str | None:
    """The tree of a merge without conflicts, else None."""
    done = _git(path, "merge-tree", "--write-tree", base, head)
    return done.stdout.split()[0] if done.returncode == 0 else None


def merge(
    path: str, *, branch: str, base: str, head: str, message: str, squash: bool, who: str
) -> tuple[str | None, str]:
    """Merge `head` into `branch`, which must still be at `base`: (the new commit, "") or (None, why not)."""
    tree = merged_tree(path, base, head)
    if tree is None:
        return None, "conflict"
    parents = ["-p", base] if squash else ["-p", base, "-p", head]
    commit = _git(path, "commit-tree", tree, *parents, given=message, who=who).stdout.strip()
    moved = _git(path, "update-ref", f"refs/heads/{branch}", commit, base)
    return (commit, "") if moved.returncode == 0 else (None, "moved")
