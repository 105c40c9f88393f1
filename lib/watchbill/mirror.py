"""The bare mirror of one repository on this host, and the worktrees that come out of it.

One kernel lock a mirror is held around fetch, worktree add and prune, because git itself fails when these meet
(concurrent fetches of one moved branch: most; concurrent adds: some). Checking files out, which takes the time, happens
outside it. A worktree belongs to an engine from the moment it is made: from then on nothing of git's in it is read.
"""

from __future__ import annotations

import functools
import glob
import os
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from watchbill import git, lock
from watchbill.errors import Fixable
from watchbill.git import GitError, Identity, Remote
from watchbill.scan import DEFAULT, Change, Policy

KEPT = "refs/watchbill/kept/"
_TRACKING = "refs/remotes/origin/"
#: Only a mirror that was made to its end has this file.
_MARK = "watchbill-mirror"
#: git holds a ref's lock file for milliseconds: one of this age was left by a git that was killed.
_STALE_S = 60.0
_BLOBS = ("100644", "100755", "120000")
_FAR = 4


class Mirror:
    """A session with one mirror. Paths are absolute."""

    def __init__(self, path: str, remote: Remote, lock_timeout_s: float = 600.0) -> None:
        self.path = os.path.abspath(path)
        self.remote = remote
        self._lock_timeout_s = lock_timeout_s
        self._trash = os.path.join(os.path.dirname(self.path), ".trash")

    # What the remote has

    def tip(self, branch: str) -> str:
        """The commit a branch of the remote is at now; Fixable when there is no such branch."""
        ref = f"refs/heads/{branch}"
        sha = git.ls_remote(self.remote, ref).refs.get(ref)
        if sha is None:
            raise Fixable("WB-GIT-04", f"{self.remote.url} has no branch {branch}", outcome="unavailable")
        return sha

    def default_branch(self) -> str:
        """The branch that the remote's HEAD names."""
        shown = git.ls_remote(self.remote, "HEAD")
        if shown.head is None or "HEAD" not in shown.refs:
            raise Fixable("WB-GIT-05", f"{self.remote.url} has no commit on its default branch",
                          fix="push a first commit", outcome="unavailable")  # fmt: skip
        return shown.head

    def refresh(self, branch: str | None = None) -> str:
        """Bring the tip of `branch` here and name it; of the default branch when it is None or has been renamed."""
        ref = f"refs/heads/{branch}"
        sha = git.ls_remote(self.remote, ref).refs.get(ref) if branch else None
        if sha is None:
            branch = self.default_branch()
            sha = self.tip(branch)
        assert branch is not None
        return self.bring(branch, sha)

    def bring(self, branch: str, sha: str) -> str:
        """Have `sha`, the tip of the remote's `branch` as just listed, or a newer one; the commit that is here."""
        self.ensure()
        if git.find(self.path, _TRACKING + branch) == sha:
            return sha
        with self._locked():
            if git.find(self.path, _TRACKING + branch) == sha:
                return sha
            self._fetch_or_remake(branch)
        found = git.find(self.path, _TRACKING + branch)
        if found is None or (found != sha and not git.has_commit(self.path, sha)):
            # git takes no new tip from a repository whose history is cut off, and calls that a success.
            raise Fixable("WB-GIT-06", f"{self.remote.url} gives only part of its history (it is shallow)",
                          fix="name a full repository in [repo.\"...\"] remote, or unshallow that one")  # fmt: skip
        return found

    def _fetch_or_remake(self, branch: str) -> None:
        spec = f"+refs/heads/{branch}:{_TRACKING}{branch}"
        try:
            git.fetch(self.path, self.remote, spec)
        except GitError:
            git.ls_remote(self.remote, "HEAD")  # an outage says nothing about the mirror, and raises here
            if not self._unlock_stale(branch):
                if self._sound():
                    raise
                self._remake()
            git.fetch(self.path, self.remote, spec)

    # The mirror itself

    def ensure(self) -> None:
        """Make it if it is not there, or was not made to its end."""
        if self._made():
            return
        with self._locked():
            if not self._made():
                self._remake()

    def _made(self) -> bool:
        if os.path.exists(os.path.join(self.path, "shallow")):
            raise Fixable("WB-GIT-07", f"{self.path} has only part of the history", fix=f"remove {self.path}")
        return all(
            os.path.exists(os.path.join(self.path, name)) for name in (_MARK, "HEAD", "config", "objects", "refs")
        )

    def _remake(self) -> None:
        """Under the lock: an empty mirror in place of whatever is there; kept work is carried over, or stays aside."""
        aside = None
        if os.path.lexists(self.path):
            aside = f"{self.path}.broken-{os.urandom(4).hex()}"
            os.rename(self.path, aside)
        for left in glob.glob(glob.escape(self.path) + ".new-*"):
            _remove(left)
        new = f"{self.path}.new-{os.urandom(4).hex()}"
        git.init_bare(new)
        for key, value in (
            ("remote.origin.url", self.remote.url),
            ("remote.origin.fetch", f"+refs/heads/*:{_TRACKING}*"),
        ):
            git.run("config", key, value, git_dir=new)
        with open(os.path.join(new, _MARK), "w", encoding="ascii") as file:
            file.write("1\n")
        os.rename(new, self.path)
        if aside is not None and self._rescued(aside):
            self._bin(aside)

    def _rescued(self, aside: str) -> bool:
        """Is every kept commit of a broken mirror in the new one? If not, the broken one stays for a person."""
        if not os.path.exists(os.path.join(aside, "HEAD")):
            return True
        try:
            for ref in git.refs(aside, KEPT):
                git.bring(self.path, aside, ref, ref)
        except GitError:
            return False
        return True

    def _sound(self) -> bool:
        """Is everything here that the refs need?"""
        done = git.run("fsck", "--connectivity-only", "--no-dangling", "--no-progress", git_dir=self.path,
                       timeout_s=1800.0, check=False)  # fmt: skip
        return done.exit == 0

    def _unlock_stale(self, branch: str) -> bool:
        """Under the lock: take away lock files that a killed git left; were there any?"""
        found = False
        for name in (_TRACKING + branch, "packed-refs", "shallow", "config"):
            path = os.path.join(self.path, name + ".lock")
            try:
                if time.time() - os.stat(path).st_mtime > _STALE_S:
                    os.unlink(path)
                    found = True
            except FileNotFoundError:
                continue
        return found

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            with lock.mirror_lock(self.path + ".lock", self._lock_timeout_s):
                yield
        except lock.Busy as busy:
            raise Fixable("WB-GIT-08", f"{self.path} was busy for {self._lock_timeout_s:.0f} s",
                          why="another firing is fetching", outcome="unavailable") from busy  # fmt: skip

    # Worktrees

    def add_worktree(self, path: str, commit: str, index_copy: str) -> None:
        """The files of `commit` at `path`, and the index of just that at `index_copy`, where no engine can write."""
        try:
            with self._locked():
                git.run("worktree", "add", "--quiet", "--no-checkout", "--detach", path, commit, git_dir=self.path)
            with open(os.path.join(path, ".git"), encoding="utf-8", errors="surrogateescape") as file:
                own = file.read().removeprefix("gitdir: ").rstrip("\n")
            git.run("-c", "checkout.workers=0", "reset", "--quiet", "--hard", "--no-recurse-submodules", commit,
                    git_dir=own, work_tree=path)  # fmt: skip
            shutil.copy2(os.path.join(own, "index"), index_copy)  # with its time: git compares it with the files'
        except BaseException:
            self.drop_worktree(path)
            raise

    def drop_worktree(self, path: str) -> None:
        """Gone from `path` on return, in milliseconds; its files are deleted afterwards, by a thread."""
        if os.path.lexists(path):
            self._bin(path)
        if not os.path.exists(self.path):
            return
        with self._locked():
            # This also forgets others' worktrees whose `.git` their engine deleted; nothing here needs them known.
            git.run("worktree", "prune", "--expire=now", git_dir=self.path)
        threading.Thread(target=self.empty_trash, name="watchbill-trash").start()

    def _bin(self, path: str) -> None:
        name = f"{os.path.basename(path)}-{os.urandom(6).hex()}"
        os.makedirs(self._trash, mode=0o700, exist_ok=True)
        try:
            os.rename(path, os.path.join(self._trash, name))
        except OSError:  # another file system
            _remove(path)

    def empty_trash(self) -> None:
        """Delete what was dropped, also by firings that died before they could."""
        for name in os.listdir(self._trash) if os.path.isdir(self._trash) else []:
            _remove(os.path.join(self._trash, name))

    def freeze(self, worktree: str, base: str, index_copy: str) -> str:
        """The tree of exactly what is in the worktree, as `git add --all` would have it; its id.

        By our own index and an explicit GIT_DIR: the worktree's `.git`, its config and the commits made in it do not
        count. `git add` itself is not used: it runs `git status` inside whatever looks like a submodule, and with that
        the programs its config names. Submodules stay as they were; a nested repository with a commit is a gitlink, one
        without is its files. GitError names a file that cannot be read.
        """
        if not os.path.isdir(worktree):
            raise Fixable("WB-GIT-09", f"the worktree {worktree} is gone", outcome="engine_failed")
        with tempfile.TemporaryDirectory(prefix="freeze-", dir=os.path.dirname(index_copy)) as place:
            index = os.path.join(place, "index")
            if os.path.exists(index_copy):
                shutil.copy2(index_copy, index)
            else:
                git.run("read-tree", base, git_dir=self.path, index=index)
            gone, present = self._worktree_paths(worktree, index)
            self._update_index(worktree, index, gone, present)
            return git.write_tree(self.path, index)

    def _worktree_paths(self, worktree: str, index: str) -> tuple[list[str], list[str]]:
        """(paths to take out of the index, paths to take in)."""

        def listed(*argv: str) -> list[str]:
            done = git.run("ls-files", "-z", *argv, git_dir=self.path, work_tree=worktree, index=index)
            if "could not open directory" in done.stderr:  # git calls that a success and leaves its files out
                raise GitError(("ls-files", *argv), done.exit, "", done.stderr)
            return git.zsplit(done.stdout)

        rows = [line.partition("\t") for line in listed("--stage")]
        links = {path for facts, _, path in rows if facts.startswith("160000 ")}
        gone = set(listed("--deleted")) | _behind_links(worktree, (path for _, _, path in rows))
        gone -= links
        present: set[str] = set()
        for path in set(listed("--modified")) - gone - links:
            # A directory, socket or the like where a file was: the file is gone.
            kind = os.lstat(os.path.join(worktree, path)).st_mode
            (present if stat.S_ISREG(kind) or stat.S_ISLNK(kind) else gone).add(path)
        for path in listed("--others", "--exclude-standard"):
            name = path.rstrip("/")
            if not path.endswith("/") or _has_commit(os.path.join(worktree, name)):
                present.add(name)
            elif name not in links:
                present.update(self._not_ignored(worktree, index, _files_below(worktree, name)))
        return sorted(gone), sorted(present)

    def _not_ignored(self, worktree: str, index: str, paths: list[str]) -> set[str]:
        argv = ("check-ignore", "-z", "--no-index", "--stdin")
        env = {"GIT_LITERAL_PATHSPECS": "0"}  # which it does not support; "./" keeps any name from being a pattern
        given = git.zjoin(f"./{path}" for path in paths)
        done = git.run(*argv, git_dir=self.path, work_tree=worktree, index=index, env=env, stdin=given, check=False)
        if done.exit > 1:  # 1: none is ignored
            raise GitError(argv, done.exit, "", done.stderr)
        return set(paths) - {path.removeprefix("./") for path in git.zsplit(done.stdout)}

    def _update_index(self, worktree: str, index: str, gone: Sequence[str], present: Sequence[str]) -> None:
        # Both with the worktree: whenever git writes an index it looks again at files as young as the index before it.
        update = functools.partial(git.run, git_dir=self.path, work_tree=worktree, index=index)
        if gone:
            removed = git.zjoin(f"0 {'0' * 40}\t{path}" for path in gone)
            update("update-index", "-z", "--index-info", stdin=removed)
        argv = ("update-index", "--add", "--remove", "--replace", "-z", "--stdin")
        done = update(*argv, stdin=git.zjoin(present))
        if "Ignoring path " in done.stderr:  # a name git does not store, such as "git~1": left out without an error
            raise GitError(argv, done.exit, "", done.stderr)

    # Objects and refs

    def tree_of(self, commit: str) -> str:
        return git.rev_parse(self.path, f"{commit}^{{tree}}")

    def changes(self, base: str, tree: str, policy: Policy = DEFAULT) -> list[Change]:
        """What differs, path by path, with the contents that the scan looks at.

        Of a change far above the policy's total, which the scan holds back whatever is in it, no content is read.
        """
        pairs = git.diff_tree(self.path, base, tree)
        ids = {sha for p in pairs for sha, mode in ((p.old_id, p.old_mode), (p.new_id, p.new_mode)) if mode in _BLOBS}
        sizes = git.sizes(self.path, ids)
        total = sum(sizes.get(p.new_id, 0) for p in pairs)
        far_above = total > _FAR * policy.max_total_bytes
        read = {} if far_above else git.blobs(self.path, ids, policy.max_file_bytes)
        found = []
        for p in pairs:
            link = p.new_mode == "120000"
            content = b"" if far_above and sizes.get(p.new_id, 0) <= policy.max_file_bytes else read.get(p.new_id)
            found.append(Change(p.path, p.status, p.old_mode, p.new_mode, sizes.get(p.new_id, 0),
                                content if p.new_mode in _BLOBS and not link else None,
                                os.fsdecode(content or b"") if link else None, read.get(p.old_id)))  # fmt: skip
        return found

    def diff(self, base: str, tree: str) -> tuple[str, int, int]:
        """The patch for people to read, lines added, lines removed."""
        return git.diff(self.path, base, tree)

    def commit(self, tree: str, base: str, message: str, author: str, when: int) -> str:
        """The tree as one commit on `base`, on no branch."""
        who = Identity(author, f"{author}@watchbill.invalid")
        return git.commit_tree(self.path, tree, [base], message, who, when)

    def have(self, commit: str, ref: str) -> None:
        """Have a commit that a ref of the remote leads to; GitError when it does not lead there any more."""
        self.ensure()
        if not git.has_commit(self.path, commit):
            git.fetch(self.path, self.remote, ref)
            git.rev_parse(self.path, f"{commit}^{{commit}}")

    def merge(self, ours: str, theirs: str) -> str | None:
        """The tree of both commits' changes since what they have in common; None when they conflict.

        git-merge-tree(1), "--write-tree": exit 1 is a conflict, and nothing in a worktree is touched.
        """
        done = git.run("merge-tree", "--write-tree", "--no-messages", ours, theirs, git_dir=self.path, check=False)
        if done.exit > 1:
            raise GitError(("merge-tree", ours, theirs), done.exit, done.text, done.stderr)
        return done.text.splitlines()[0] if done.exit == 0 else None

    def keep(self, firing: str, commit: str) -> str:
        """Name a commit so that it stays; the ref."""
        git.update_ref(self.path, KEPT + firing, commit)
        return KEPT + firing

    def kept(self) -> list[str]:
        """The firings whose work is kept here."""
        if not os.path.exists(self.path):
            return []
        return [ref.removeprefix(KEPT) for ref in git.refs(self.path, KEPT)]

    def forget(self, firing: str) -> None:
        """Let a firing's kept work go."""
        git.run("update-ref", "-d", KEPT + firing, git_dir=self.path)


def _has_commit(repository: str) -> bool:
    """Does HEAD of a nested repository lead to a commit? Read as files: no program of ours starts in there."""
    place = os.path.join(repository, ".git")
    try:
        if os.path.isfile(place):
            with open(place, encoding="utf-8", errors="replace") as file:
                place = os.path.join(repository, file.read(4096).removeprefix("gitdir:").strip())
        with open(os.path.join(place, "HEAD"), encoding="ascii", errors="replace") as file:
            head = file.read(4096).strip()
        if not head.startswith("ref: "):
            return bool(head)
        ref, packed = head.removeprefix("ref: "), os.path.join(place, "packed-refs")
        if os.path.isfile(os.path.join(place, ref)) or not os.path.isfile(packed):
            return os.path.isfile(os.path.join(place, ref))
        with open(packed, encoding="ascii", errors="replace") as file:
            return any(line.split()[-1:] == [ref] for line in file)
    except OSError:
        return False


def _behind_links(worktree: str, paths: Iterable[str]) -> set[str]:
    """The paths that lie in a directory which is a symbolic link by now: what is read there is not the worktree's."""
    known = {"": False}

    def behind(directory: str) -> bool:
        if directory not in known:
            above = behind(os.path.dirname(directory))
            known[directory] = above or os.path.islink(os.path.join(worktree, directory))
        return known[directory]

    return {path for path in paths if behind(os.path.dirname(path))}


def _files_below(worktree: str, name: str) -> list[str]:
    found = []
    for place, directories, files in os.walk(os.path.join(worktree, name)):
        directories[:] = [d for d in directories if d != ".git"]
        links = [d for d in directories if os.path.islink(os.path.join(place, d))]
        found += [os.path.relpath(os.path.join(place, f), worktree) for f in (*files, *links) if f != ".git"]
    return found


def _remove(path: str) -> None:
    """Delete a tree, also one whose directories were made unreadable. What cannot be deleted stays."""
    shutil.rmtree(path, ignore_errors=True)
    if os.path.isdir(path) and not os.path.islink(path):
        for place, _, _ in os.walk(path, onerror=lambda error: os.chmod(error.filename, 0o700)):
            os.chmod(place, 0o700)
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.lexists(path):
        os.unlink(path)
