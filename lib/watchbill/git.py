"""git, through one seam: argv lists, a cleaned environment, a deadline, both streams in every error.

The child sees nothing of the operator: no GIT_* variable, no configuration outside the repository it is pointed at, no
hooks, no file-system monitor, no prompt. What git does read is therefore written by us: a bare mirror's own config.
Paths are `str` in the file system's encoding (surrogateescape), so that names which are no UTF-8 survive.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from watchbill.errors import Fixable

#: Given to every command. `protocol.ext` runs programs named in a URL; hooks and fsmonitor run programs named in files.
_ALWAYS = ("core.hooksPath=/dev/null", "core.fsmonitor=false", "gc.auto=0", "maintenance.auto=false",
           "protocol.ext.allow=never", "core.excludesFile=/dev/null", "core.attributesFile=/dev/null",
           "credential.helper=", "submodule.recurse=false")  # fmt: skip
_PROXY = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
#: What a child may know of the operator's environment.
_PASSED = ("PATH", "LANG", "TMPDIR", *_PROXY)
#: Certificates to trust, in git's words and in everybody else's, which git over GnuTLS does not know.
_CERTIFICATES = {"GIT_SSL_CAINFO": "SSL_CERT_FILE", "GIT_SSL_CAPATH": "SSL_CERT_DIR"}
#: For ssh remotes only. HOME too: elsewhere git would read `~/.config/git/ignore`, and curl `~/.netrc`.
_PASSED_TO_SSH = ("HOME", "SSH_AUTH_SOCK", "USER", "LOGNAME")
_FIXED = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_ADVICE": "0",
    "LC_ALL": "C",
}
_PROTOCOLS = "file:http:https:ssh"
_TERMINATE_S = 2.0


class GitError(Exception):
    """git failed. `exit` is None when it did not end within its time."""

    def __init__(self, argv: Sequence[str], exit: int | None, stdout: str, stderr: str) -> None:
        super().__init__(argv, exit, stdout, stderr)
        self.argv = tuple(argv)
        self.exit = exit
        self.stdout = stdout
        self.stderr = stderr

    def __str__(self) -> str:
        end = "gave no answer in time" if self.exit is None else f"exit {self.exit}"
        lines = [f"`git {' '.join(self.argv)}`: {end}"]
        for name, text in (("stdout", self.stdout), ("stderr", self.stderr)):
            lines += [f"  {name}: {line}" for line in text.strip()[:4000].splitlines()]
        return "\n".join(lines)


class Remote(NamedTuple):
    """Another repository. The token goes into a child's environment: never into argv, a file or a URL."""

    url: str  # https://, http://, ssh://, file://, host:path or an absolute path
    token: str | None = None  # for http(s) only

    def __repr__(self) -> str:
        return f"Remote({self.url!r}, {'***' if self.token else None})"


class Identity(NamedTuple):
    """Who a commit names."""

    name: str
    email: str


class Done(NamedTuple):
    """What a command answered."""

    exit: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        return os.fsdecode(self.stdout).strip()


class RefStatus(NamedTuple):
    """One ref of a push, as `git push --porcelain` has it (git-push(1), OUTPUT)."""

    flag: str  # " " fast-forward, "+" forced, "-" deleted, "*" new, "!" rejected, "=" up to date
    summary: str  # "[remote rejected] (pre-receive hook declined)"


class Pushed(NamedTuple):
    """What a push answered; `exit` None: nothing in time."""

    exit: int | None
    refs: dict[str, RefStatus]
    stderr: str


class Advertised(NamedTuple):
    """The refs a remote shows."""

    refs: dict[str, str]  # full name -> object id; "HEAD" as well when asked for
    head: str | None  # the branch HEAD names, without refs/heads/


class PathDiff(NamedTuple):
    """One path that differs between two trees; renames are a deletion and an addition."""

    path: str
    status: str  # A | M | D | T
    old_mode: str  # "100644", "000000" when absent
    new_mode: str
    old_id: str
    new_id: str


def run(
    *argv: str,
    git_dir: str | None = None,
    work_tree: str | None = None,
    index: str | None = None,
    env: dict[str, str] | None = None,
    remote: Remote | None = None,
    stdin: bytes | None = None,
    timeout_s: float = 300.0,
    check: bool = True,
) -> Done:
    """Run one git command to its end. GitError when it fails (and `check`) or outlives `timeout_s`.

    It runs in `work_tree`, else in "/", so that no repository is found by accident.
    """
    given = _environment(remote)
    given |= {name: path for name, path in (("GIT_DIR", git_dir), ("GIT_WORK_TREE", work_tree),
                                            ("GIT_INDEX_FILE", index)) if path is not None}  # fmt: skip
    given |= env or {}
    options = [part for option in _ALWAYS for part in ("-c", option)]
    # GitPython copies os.environ and takes only additions; env(1) takes away, and only names stand in its argv.
    absent = [part for name in os.environ if name and name not in given for part in ("-u", name)]
    program = _program(given["PATH"])  # first: GitPython's import fails without a git
    child = _gitpython()(work_tree or "/").execute(
        ["/usr/bin/env", *absent, program, *options, *argv],
        as_process=True,
        shell=False,
        env=given,
        istream=None if stdin is None else subprocess.PIPE,
        start_new_session=True,  # so that its helpers (git-remote-https, ssh) can be ended with it
    )
    try:
        out, err = child.communicate(stdin, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        out, err = _end(child)
        raise GitError(argv, None, _words(out), _words(err)) from None
    except BaseException:
        _end(child)
        raise
    done = Done(child.returncode, out, _words(err))
    if check and done.exit != 0:
        raise GitError(argv, done.exit, _words(out), done.stderr)
    return done


@cache
def _gitpython() -> Any:
    from git.cmd import Git  # 90 ms: not before something is asked of git

    return Git


@cache
def _program(path: str) -> str:
    found = shutil.which("git", path=path)
    if found is None:
        raise Fixable("WB-GIT-01", "git is not on PATH", why=f"PATH is {path}",
                      fix="install git 2.38 or newer", outcome="unavailable")  # fmt: skip
    return found


def _end(child: Any) -> tuple[bytes, bytes]:
    """Terminate, then kill, the command and its helpers; what it had said. Its pipes are closed either way."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired, ValueError):
            out, err = child.communicate(timeout=_TERMINATE_S)
            return out or b"", err or b""
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()
    return b"", b""


def _environment(remote: Remote | None) -> dict[str, str]:
    url = _checked(remote.url) if remote else ""
    ssh = url.startswith("ssh://") or bool(re.match(r"[^/]+:(?!//)", url))
    names = _PASSED + (_PASSED_TO_SSH if ssh else ())
    given = {"PATH": os.defpath, "HOME": "/nonexistent"}
    given |= {name: os.environ[name] for name in names if name in os.environ} | _FIXED
    for name, usual in _CERTIFICATES.items():
        if path := os.environ.get(name) or os.environ.get(usual):
            given[name] = path
    given["GIT_ALLOW_PROTOCOL"] = os.environ.get("GIT_ALLOW_PROTOCOL", _PROTOCOLS)
    if ssh:
        given["GIT_SSH_COMMAND"] = "ssh -o BatchMode=yes"
    if remote and remote.token and url.startswith(("http://", "https://")):
        basic = base64.b64encode(f"x-access-token:{remote.token}".encode()).decode()
        given |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"http.{url}.extraHeader",
                  "GIT_CONFIG_VALUE_0": f"Authorization: Basic {basic}"}  # fmt: skip
    return given


def _checked(url: str) -> str:
    if url.startswith("-") or not url:
        raise Fixable("WB-GIT-02", f"remote {url!r} is no URL", fix='[repo."..."] remote = an absolute path or a URL')
    if url.startswith(("http://", "https://")) and "@" in urlsplit(url).netloc:
        host = urlsplit(url).hostname
        raise Fixable("WB-GIT-03", f"the remote at {host} carries a credential in its URL",
                      why="URLs are shown in process lists, logs and errors",
                      fix="take it out of [repo.\"...\"] remote and name it in [github] auth")  # fmt: skip
    if not url.startswith("/") and ":" not in url:
        raise Fixable("WB-GIT-02", f"remote {url!r} is a relative path", fix="write it as an absolute path")
    return url


def is_local(url: str) -> bool:
    """Is the remote on this host: a path, or an address of the loopback interface?"""
    scheme, there, _ = url.partition("://")
    if url.startswith("/") or scheme == "file":
        return True
    host = (urlsplit(url).hostname or "") if there else url.partition(":")[0].rpartition("@")[2]
    return host in ("localhost", "::1") or re.fullmatch(r"127(\.[0-9]+){3}", host) is not None


def _words(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def zsplit(raw: bytes) -> list[str]:
    """The entries of a listing made with -z."""
    return [os.fsdecode(entry) for entry in raw.split(b"\0") if entry]


def zjoin(entries: Iterable[str]) -> bytes:
    return b"".join(os.fsencode(entry) + b"\0" for entry in entries)


# What a repository knows


def version() -> tuple[int, ...]:
    found = re.search(r"\d+(\.\d+)+", run("version").text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def rev_parse(git_dir: str, rev: str) -> str:
    """The object a revision names; GitError when there is none."""
    return run("rev-parse", "--verify", "--quiet", "--end-of-options", rev, git_dir=git_dir).text


def find(git_dir: str, rev: str) -> str | None:
    """The same, None when there is none."""
    done = run("rev-parse", "--verify", "--quiet", "--end-of-options", rev, git_dir=git_dir, check=False)
    return done.text if done.exit == 0 else None


def has_commit(git_dir: str, sha: str) -> bool:
    return run("cat-file", "-e", f"{sha}^{{commit}}", git_dir=git_dir, check=False).exit == 0


def message_of(git_dir: str, commit: str) -> bytes:
    """A commit's message, byte for byte."""
    return run("cat-file", "commit", commit, git_dir=git_dir).stdout.partition(b"\n\n")[2]


def messages(git_dir: str, ids: Iterable[str], most_bytes: int = 1 << 20) -> dict[str, bytes]:
    """Commit -> its message, of those ids that are commits here, of at most `most_bytes` each; two processes."""
    asked = "".join(f"{sha}\n" for sha in ids).encode()
    rows = run("cat-file", "--batch-check", git_dir=git_dir, stdin=asked).text.splitlines() if asked else []
    facts = [row.split(" ") for row in rows]
    small = [row[0] for row in facts if row[1] == "commit" and int(row[2]) <= most_bytes]
    return {sha: raw.partition(b"\n\n")[2] for sha, raw in _contents(git_dir, small).items()}


def refs(git_dir: str, prefix: str) -> dict[str, str]:
    """Every ref below `prefix`, a full name that ends at a slash."""
    lines = run("for-each-ref", "--format=%(objectname) %(refname)", prefix, git_dir=git_dir).text.splitlines()
    return {name: sha for sha, _, name in (line.partition(" ") for line in lines)}


def diff_tree(git_dir: str, old: str, new: str) -> list[PathDiff]:
    """What differs between two trees or commits."""
    raw = run("diff-tree", "-r", "-z", "--raw", "--no-renames", "--no-abbrev", old, new, git_dir=git_dir).stdout
    found, entries = [], iter(zsplit(raw))
    for facts in entries:
        old_mode, new_mode, old_id, new_id, status = facts.lstrip(":").split(" ")
        found.append(PathDiff(next(entries), status, old_mode, new_mode, old_id, new_id))
    return found


def diff(git_dir: str, old: str, new: str) -> tuple[str, int, int]:
    """The patch from one tree to another for people to read, and the lines added and removed (binary files: none)."""
    calm = ("-r", "--no-renames", "--no-ext-diff", "--no-textconv", old, new)
    patch = run("-c", "core.bigFileThreshold=4m", "diff-tree", "-p", *calm, git_dir=git_dir).stdout
    counts = run("-c", "core.bigFileThreshold=4m", "diff-tree", "-z", "--numstat", *calm, git_dir=git_dir).stdout
    pairs = [entry.split("\t")[:2] for entry in zsplit(counts)]
    added = sum(int(pair[0]) for pair in pairs if pair[0] != "-")
    return _words(patch), added, sum(int(pair[1]) for pair in pairs if pair[1] != "-")


def sizes(git_dir: str, ids: Iterable[str]) -> dict[str, int]:
    """Bytes of each object that is there."""
    asked = "".join(f"{sha}\n" for sha in ids).encode()
    rows = run("cat-file", "--batch-check=%(objectname) %(objectsize)", git_dir=git_dir, stdin=asked).text.splitlines()
    return {sha: int(size) for sha, _, size in (row.partition(" ") for row in rows) if size.isdigit()}


def blobs(git_dir: str, ids: Iterable[str], most_bytes: int) -> dict[str, bytes]:
    """The contents of objects that are there and hold at most `most_bytes` each."""
    small = [sha for sha, size in sizes(git_dir, ids).items() if size <= most_bytes]
    return _contents(git_dir, small)


def _contents(git_dir: str, ids: Sequence[str]) -> dict[str, bytes]:
    """Objects that are there, byte for byte."""
    if not ids:
        return {}
    raw = run("cat-file", "--batch", git_dir=git_dir, stdin="".join(f"{sha}\n" for sha in ids).encode()).stdout
    found, at = {}, 0
    while at < len(raw):
        end = raw.index(b"\n", at)
        sha, _, size = raw[at:end].split(b" ")
        found[sha.decode()] = raw[end + 1 : end + 1 + int(size)]
        at = end + 1 + int(size) + 1
    return found


#: Modes of files; a symbolic link's content is the path that it names.
_REGULAR = ("100644", "100755")


def show(git_dir: str, rev: str, path: str, most_bytes: int = 1 << 20) -> bytes | None:
    """A regular file of a commit or tree; None when there is none, or it is larger."""
    listed = run("ls-tree", "-z", "--full-tree", rev, "--", path, git_dir=git_dir).stdout
    facts = listed.partition(b"\t")[0].decode().split(" ")
    return blobs(git_dir, [facts[2]], most_bytes).get(facts[2]) if facts[0] in _REGULAR else None


# What makes objects and moves refs


def hash_object(git_dir: str, data: bytes, kind: str = "blob") -> str:
    return run("hash-object", "-t", kind, "-w", "--stdin", git_dir=git_dir, stdin=data).text


def write_tree(git_dir: str, index: str) -> str:
    return run("write-tree", git_dir=git_dir, index=index).text


def commit_tree(git_dir: str, tree: str, parents: Sequence[str], message: str, who: Identity, when: int) -> str:
    """A commit object, on no branch. `when` is UTC epoch seconds: equal arguments make an equal commit."""
    env = {f"GIT_{role}_{part}": value for role in ("AUTHOR", "COMMITTER")
           for part, value in (("NAME", who.name), ("EMAIL", who.email), ("DATE", f"@{when} +0000"))}  # fmt: skip
    above = [part for parent in parents for part in ("-p", parent)]
    return run("commit-tree", tree, *above, git_dir=git_dir, env=env, stdin=message.encode()).text


def update_ref(git_dir: str, ref: str, new: str, expected: str | None = None) -> bool:
    """Set a ref; only if it is at `expected` ("" : absent) when that is given. False: it was not."""
    old = [] if expected is None else [expected or "0" * 40]
    return run("update-ref", "--no-deref", ref, new, *old, git_dir=git_dir, check=expected is None).exit == 0


# What talks to another repository


def ls_remote(remote: Remote, *patterns: str, timeout_s: float = 60.0) -> Advertised:
    """Refs of a remote by full name or pattern (`refs/x/*`). An empty answer is an answer; a failure raises."""
    done = run("ls-remote", "--symref", "--", remote.url, *patterns, remote=remote, timeout_s=timeout_s)
    found: dict[str, str] = {}
    head = None
    for line in done.text.splitlines():
        sha, _, name = line.partition("\t")
        if name == "HEAD" and sha.startswith("ref: refs/heads/"):
            head = sha.removeprefix("ref: refs/heads/")
        elif not sha.startswith("ref: ") and not name.endswith("^{}"):
            found[name] = sha
    # Patterns match at any slash: asked for refs/x/1, a remote also shows refs/heads/refs/x/1.
    exact = {pattern for pattern in patterns if not pattern.endswith("*")}
    begins = tuple(pattern[:-1] for pattern in patterns if pattern.endswith("*"))
    wanted = {n: s for n, s in found.items() if n in exact or n.startswith(begins)} if patterns else found
    return Advertised(wanted, head)


def fetch(git_dir: str, remote: Remote, *refspecs: str, timeout_s: float = 1800.0) -> None:
    """Objects and exactly these refs: no tags, no FETCH_HEAD, no maintenance."""
    run("fetch", "--quiet", "--refmap=", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance",
        "--no-recurse-submodules", "--", remote.url, *refspecs,
        git_dir=git_dir, remote=remote, timeout_s=timeout_s)  # fmt: skip


def push(git_dir: str, remote: Remote, refspecs: Sequence[str], leases: dict[str, str], *,
         timeout_s: float = 120.0) -> Pushed:  # fmt: skip
    """One atomic push; `leases`: every ref's expected value, "" for one that must not exist. Raises no GitError."""
    expected = [f"--force-with-lease={ref}:{value}" for ref, value in leases.items()]
    argv = ("push", "--porcelain", "--atomic", "--no-recurse-submodules", *expected, "--", remote.url, *refspecs)
    try:
        done = run(*argv, git_dir=git_dir, remote=remote, timeout_s=timeout_s, check=False)
    except GitError as late:
        return Pushed(None, {}, late.stderr)
    statuses = {}
    for line in _words(done.stdout).splitlines():
        flag, _, rest = line.partition("\t")
        pair, tab, summary = rest.partition("\t")
        if len(flag) == 1 and tab:
            statuses[pair.rpartition(":")[2]] = RefStatus(flag, summary)
    return Pushed(done.exit, statuses, done.stderr)


# Whole repositories


def init_bare(path: str, branch: str = "main") -> None:
    run("init", "--quiet", "--bare", "--template=", f"--initial-branch={branch}", path)


def bring(git_dir: str, source: str, ref: str, to: str) -> None:
    """Fetch one ref of the repository `source` into a ref of ours that must not exist; nothing else is touched."""
    run("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--refmap=",
        "--", source, f"{ref}:{to}", git_dir=git_dir)  # fmt: skip
