"""A person's own repository, which `try` reads, and the new ones that `try` and `demo` work in."""

from __future__ import annotations

import os

from watchbill import git


def common_dir(path: str) -> str:
    """The git directory of the checkout at `path`, shared by its worktrees."""
    return git.run("-C", os.path.abspath(path), "rev-parse", "--path-format=absolute", "--git-common-dir").text


def head_of(path: str) -> str:
    """The commit checked out at `path`."""
    return git.run("-C", os.path.abspath(path), "rev-parse", "--verify", "--quiet", "HEAD^{commit}").text


def object_format(path: str) -> str:
    """sha1 or sha256."""
    return git.run("-C", os.path.abspath(path), "rev-parse", "--show-object-format").text


def branch_of(path: str) -> str | None:
    """The branch checked out at `path`; None when HEAD is detached."""
    done = git.run("-C", os.path.abspath(path), "symbolic-ref", "--quiet", "--short", "HEAD", check=False)
    return done.text if done.exit == 0 else None


def make_bare(path: str, files: dict[str, str], message: str, *, branch: str = "main", when: int = 1767225600) -> str:
    """A bare repository with one commit of `files` on `branch`; the commit."""
    git.init_bare(path, branch)
    listing = b"".join(
        f"100644 {git.hash_object(path, text.encode())} 0\t{name}".encode() + b"\0" for name, text in files.items()
    )
    index = os.path.join(path, "watchbill-index")
    git.run("update-index", "-z", "--index-info", git_dir=path, index=index, stdin=listing)
    tree = git.write_tree(path, index)
    os.unlink(index)
    commit = git.commit_tree(
        path, tree, [], message + "\n", git.Identity("watchbill", "watchbill@watchbill.invalid"), when
    )
    git.update_ref(path, f"refs/heads/{branch}", commit, "")
    return commit


def clone_bare(source: str, path: str, commit: str, branch: str) -> None:
    """A new bare repository at `path` whose only ref is `branch` at `commit` of the git directory `source`."""
    git.init_bare(path, branch)
    aside = f"refs/watchbill/clone-{os.urandom(6).hex()}"
    git.run("-c", "uploadpack.allowAnySHA1InWant=true", "fetch", "--quiet", "--no-tags", "--no-write-fetch-head",
        "--", source, f"{commit}:{aside}", git_dir=path, env={"GIT_PROTOCOL": "version=2"})  # fmt: skip
    git.update_ref(path, f"refs/heads/{branch}", commit, "")
    git.run("update-ref", "-d", aside, git_dir=path)
