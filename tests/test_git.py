"""The seam to git: what a child may see, how long it may take, what an error says."""

from __future__ import annotations

import base64
import contextlib
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from support import repos
from watchbill import git
from watchbill.cli import checkout
from watchbill.errors import Fixable
from watchbill.git import GitError, Identity, Remote
from watchbill.practice import loopback

TOKEN = "s3cr3t-t0ken-of-a-test"
BASIC = base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()


def test_a_version_new_enough() -> None:
    assert git.version() >= (2, 38)


def program(directory: Path, script: str) -> None:
    """A `git` that stands before the real one on PATH."""
    directory.mkdir(exist_ok=True)
    (directory / "git").write_text("#!/bin/sh\n" + script)
    (directory / "git").chmod(0o755)
    os.environ["PATH"] = f"{directory}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture
def path_before(monkeypatch: pytest.MonkeyPatch) -> None:
    git.version()  # GitPython asks the first git it meets for its version, once
    monkeypatch.setenv("PATH", os.environ["PATH"])


@pytest.mark.usefixtures("path_before")
def test_a_child_sees_nothing_of_the_operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken on purpose: `env -u` left out of argv; then all ten reached the child."""
    for name in ("GIT_DIR", "GIT_SSH_COMMAND", "GIT_ASKPASS", "GIT_CONFIG_PARAMETERS", "GIT_TRACE_CURL", "AWS_SECRET",
                 "SLACK_TOKEN", "SSH_AUTH_SOCK", "XDG_CONFIG_HOME", "GIT_EXEC_PATH"):  # fmt: skip
        monkeypatch.setenv(name, "/operator")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:1")
    program(tmp_path / "bin", "env | sort")
    seen = dict(line.split("=", 1) for line in git.run("version").text.splitlines())
    assert "/operator" not in seen.values()
    assert seen["HTTPS_PROXY"] == "http://proxy:1"
    assert seen["HOME"] == "/nonexistent"
    assert set(seen) - {"PWD", "_", "SHLVL", "OLDPWD"} <= {
        "PATH", "HOME", "LANG", "LC_ALL", "LANGUAGE", "TMPDIR", "HTTPS_PROXY", "GIT_ADVICE", "GIT_ALLOW_PROTOCOL",
        "GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM", "GIT_LITERAL_PATHSPECS", "GIT_TERMINAL_PROMPT",
    }  # fmt: skip


@pytest.mark.usefixtures("path_before")
@pytest.mark.parametrize(
    ("url", "ssh"),
    [("ssh://git@host/x.git", True), ("git@host:x.git", True), ("https://host/x.git", False), ("/srv/x.git", False),
     ("file:///srv/x.git", False)],
)  # fmt: skip
def test_the_ssh_agent_is_for_ssh_remotes_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, ssh: bool
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/agent")
    program(tmp_path / "bin", "env")
    said = git.run("ls-remote", remote=Remote(url, TOKEN)).text
    assert ("SSH_AUTH_SOCK=/agent" in said) is ssh
    assert (BASIC in said) is url.startswith("https://")


@pytest.mark.usefixtures("path_before")
def test_certificates_to_trust_are_named_in_gits_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """git over GnuTLS does not know the usual names; its own win. tests/claims has the handshake itself."""
    program(tmp_path / "bin", "env")
    monkeypatch.setenv("SSL_CERT_FILE", "/usual.pem")
    monkeypatch.setenv("SSL_CERT_DIR", "/usual")
    said = git.run("version").text.splitlines()
    assert {"GIT_SSL_CAINFO=/usual.pem", "GIT_SSL_CAPATH=/usual"} <= set(said)
    monkeypatch.setenv("GIT_SSL_CAINFO", "/gits.pem")
    assert "GIT_SSL_CAINFO=/gits.pem" in git.run("version").text.splitlines()


@pytest.mark.parametrize(
    ("url", "local"),
    [("/srv/x.git", True), ("file:///srv/x.git", True), ("http://127.0.0.1:80/x.git", True),
     ("ssh://me@[::1]:22/x", True), ("https://localhost/x.git", True), ("me@localhost:x.git", True),
     ("https://github.com/a/b.git", False),
     ("git@github.com:a/b.git", False), ("ssh://git@ssh.github.com:443/a/b.git", False),
     ("https://127.0.0.1.example/x.git", False)],
)  # fmt: skip
def test_what_is_on_this_host(url: str, local: bool) -> None:
    assert git.is_local(url) is local


@pytest.mark.usefixtures("path_before")
def test_every_command_disarms_hooks_monitors_and_ext(tmp_path: Path) -> None:
    program(tmp_path / "bin", 'printf "%s\\n" "$@"')
    said = git.run("status", "-z").text.split("\n")
    options = [said[i + 1] for i, word in enumerate(said) if word == "-c"]
    assert {"core.hooksPath=/dev/null", "core.fsmonitor=false", "gc.auto=0", "protocol.ext.allow=never"} <= set(options)
    assert said[-2:] == ["status", "-z"]


def test_ext_remotes_run_nothing(tmp_path: Path) -> None:
    with pytest.raises(GitError):
        git.ls_remote(Remote(f"ext::touch {tmp_path}/pwned"))
    assert not (tmp_path / "pwned").exists()


@pytest.mark.usefixtures("path_before")
def test_an_error_shows_command_status_and_both_streams(tmp_path: Path) -> None:
    program(tmp_path / "bin", "echo to stdout; echo to stderr >&2; exit 7")
    with pytest.raises(GitError) as caught:
        git.run("fsck", "--full")
    assert caught.value.exit == 7
    for part in ("git fsck --full", "exit 7", "stdout: to stdout", "stderr: to stderr"):
        assert part in str(caught.value)


def test_a_missing_git_is_for_the_operator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Fixable, match="not on PATH"):
        git.version()


@pytest.mark.usefixtures("path_before")
@pytest.mark.parametrize(
    "script", ["sleep 600 & echo begun; wait", "trap '' TERM; echo begun; while :; do sleep 1; done"]
)
def test_a_command_that_hangs_is_ended_with_its_helpers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    """Broken on purpose: only the child itself ended, not its group; the `sleep` was still there."""
    monkeypatch.setattr(git, "_TERMINATE_S", 0.3)
    program(tmp_path / "bin", f"echo $$ > {tmp_path}/pid; {script}")
    began = time.monotonic()
    with pytest.raises(GitError, match="no answer in time") as caught:
        git.run("fetch", timeout_s=0.5)
    assert time.monotonic() - began < 20
    assert caught.value.exit is None
    group = (tmp_path / "pid").read_text().strip()
    while _running_in_group(group) and time.monotonic() - began < 20:  # a killed process takes a moment to be gone
        time.sleep(0.02)
    assert not _running_in_group(group)


def _running_in_group(group: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rsplit(")", 1)[1].split()
            if fields[2] == group and fields[0] != "Z":
                found.append(path.parent.name)
    return found


@pytest.mark.parametrize(
    "url", ["https://x:pw@host/a.git", "https://token@host/a.git", "-oProxyCommand=x", "", "some/where"]
)
def test_a_remote_with_a_credential_or_without_sense_is_refused(url: str) -> None:
    with pytest.raises(Fixable) as caught:
        git.ls_remote(Remote(url))
    assert "pw" not in str(caught.value)
    assert "token@" not in str(caught.value)


def test_a_remote_does_not_show_its_token() -> None:
    assert TOKEN not in f"{Remote('https://host/a.git', TOKEN)!r}{Remote('https://host/a.git', TOKEN)}"


class Door(loopback.Handler):
    """A server that wants a credential, and answers only when told to."""

    def do_GET(self) -> None:
        given = self.headers.get("Authorization")
        self.server.__dict__.setdefault("given", []).append(given)
        if given is None:
            self.send(401, {"WWW-Authenticate": "Basic"}, b"")
        else:
            self.server.__dict__["asked"].set()
            self.server.__dict__["go"].wait(20)
            self.send(403, {}, b"")


@contextlib.contextmanager
def door(handler: type[BaseHTTPRequestHandler]) -> Iterator[loopback.Server]:
    server = loopback.Server(handler)
    server.__dict__["asked"], server.__dict__["go"] = threading.Event(), threading.Event()
    try:
        yield server
    finally:
        server.__dict__["go"].set()
        server.close()


def test_a_token_travels_in_the_environment_and_is_in_no_command_line_and_no_file(tmp_path: Path) -> None:
    """Looked at from outside while git is waiting for an answer to its push.

    Broken on purpose: the header given by `-c http.extraHeader=`; then three command lines showed it.
    """
    bare = tmp_path / "a.git"
    commit = repos.make_bare(bare, {"a": "1"})
    with door(Door) as server:
        remote = Remote(f"{server.url}/a.git", TOKEN)
        answers: list[git.Pushed] = []
        ref = "refs/heads/x"
        pushing = threading.Thread(
            target=lambda: answers.append(git.push(str(bare), remote, [f"{commit}:{ref}"], {ref: ""}))
        )
        pushing.start()
        assert server.__dict__["asked"].wait(20)
        lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if _readable(path)]
        server.__dict__["go"].set()
        pushing.join()
    ours = [line for line in lines if server.url.encode() in line]
    assert any(b"git-remote-http" in line or b"remote-http" in line for line in ours)
    assert not [line for line in lines if TOKEN.encode() in line or BASIC.encode() in line]
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and BASIC.encode() in p.read_bytes()]
    assert server.__dict__["given"][-1] == f"Basic {BASIC}"
    assert answers[0].exit != 0
    assert "403" in answers[0].stderr
    assert TOKEN not in answers[0].stderr
    assert BASIC not in answers[0].stderr


def _readable(path: Path) -> bool:
    try:
        return bool(path.read_bytes())
    except OSError:
        return False


def test_without_a_token_git_asks_nobody(tmp_path: Path) -> None:
    (tmp_path / "person" / ".netrc").write_text("machine 127.0.0.1 login eve password eve\n")
    with door(Door) as server, pytest.raises(GitError):
        git.ls_remote(Remote(f"{server.url}/a.git"))
    assert set(server.__dict__["given"]) == {None}


# The verbs


@pytest.fixture
def bare(tmp_path: Path) -> str:
    path = tmp_path / "a.git"
    repos.make_bare(path, {"a": "1\n", "d/b": "2\n"})
    return str(path)


ALICE = Identity("Alice", "alice@example.com")


def test_commits_are_equal_when_their_facts_are(bare: str) -> None:
    tree = git.rev_parse(bare, "main^{tree}")
    made = {git.commit_tree(bare, tree, [git.rev_parse(bare, "main")], "m\n\nä\n", ALICE, 1_790_000_000) for _ in "ab"}
    assert len(made) == 1
    assert git.message_of(bare, made.pop()) == "m\n\nä\n".encode()


def test_refs_move_only_from_where_they_are_expected(bare: str) -> None:
    main = git.rev_parse(bare, "main")
    other = repos.commit_on(bare, "main", {"a": "2"})
    assert git.update_ref(bare, "refs/x/1", main, "")
    assert not git.update_ref(bare, "refs/x/1", other, "")
    assert not git.update_ref(bare, "refs/x/1", other, other)
    assert git.update_ref(bare, "refs/x/1", other, main)
    assert git.refs(bare, "refs/x/") == {"refs/x/1": other}
    assert git.find(bare, "refs/x/2") is None


ODD = "line\nbreak\t'\"\\"
NOT_UTF8 = os.fsdecode(b"caf\xe9")


def test_differences_of_trees_with_names_of_any_kind(bare: str) -> None:
    before = git.rev_parse(bare, "main")
    after = repos.commit_on(bare, "main", {"a": "3\n", "d/b": None, ODD: "x\n", NOT_UTF8: b"\xff\0"})
    changes = git.diff_tree(bare, before, after)
    assert {(c.path, c.status, c.old_mode, c.new_mode) for c in changes} == {
        ("a", "M", "100644", "100644"), ("d/b", "D", "100644", "000000"), (ODD, "A", "000000", "100644"),
        (NOT_UTF8, "A", "000000", "100644"),
    }  # fmt: skip
    patch, added, removed = git.diff(bare, before, after)
    assert (added, removed) == (2, 2)
    assert "-1\n+3\n" in patch
    assert git.show(bare, after, ODD) == b"x\n"
    assert git.show(bare, after, NOT_UTF8) == b"\xff\0"
    assert git.show(bare, after, "d/b") is None
    assert git.show(bare, before, "d") is None
    assert git.show(bare, after, "*") is None  # a name, not a pattern


def test_contents_are_read_in_one_go_up_to_a_size(bare: str) -> None:
    rev = repos.commit_on(bare, "main", {"large": "x" * 5000, "small": "y\n\n"})
    ids = {c.path: c.new_id for c in git.diff_tree(bare, f"{rev}~1", rev)}
    assert git.blobs(bare, ids.values(), 4999) == {ids["small"]: b"y\n\n"}
    assert git.blobs(bare, ids.values(), 5000)[ids["large"]] == b"x" * 5000
    assert git.blobs(bare, ["0" * 40], 10) == {}
    assert git.sizes(bare, [ids["small"], "0" * 40]) == {ids["small"]: 3}


def test_a_remote_shows_exactly_what_was_asked_for(bare: str) -> None:
    main = git.rev_parse(bare, "main")
    for ref in ("refs/x/1", "refs/x/12", "refs/heads/refs/x/1"):
        repos.git(bare, "update-ref", ref, main)
    assert git.ls_remote(Remote(bare), "refs/x/1").refs == {"refs/x/1": main}
    assert set(git.ls_remote(Remote(bare), "refs/x/*").refs) == {"refs/x/1", "refs/x/12"}
    shown = git.ls_remote(Remote(bare), "HEAD")
    assert (shown.head, shown.refs) == ("main", {"HEAD": main})
    assert git.ls_remote(Remote(bare), "refs/none").refs == {}
    with pytest.raises(GitError):
        git.ls_remote(Remote(bare + "-gone"), "refs/x/1")


def test_a_push_says_ref_by_ref_what_became_of_it(tmp_path: Path, bare: str) -> None:
    other = tmp_path / "b.git"
    there = repos.make_bare(other, {"z": "1"})
    main = git.rev_parse(bare, "main")
    repos.git(other, "update-ref", "refs/heads/old", there)
    done = git.push(bare, Remote(str(other)), [f"{main}:refs/x/1", f"{main}:refs/heads/main"],
                    {"refs/x/1": "", "refs/heads/main": main})  # fmt: skip
    assert done.exit == 1
    assert {ref: status.flag for ref, status in done.refs.items()} == {"refs/x/1": "!", "refs/heads/main": "!"}
    assert "stale info" in done.refs["refs/heads/main"].summary
    assert repos.refs(other) == {"refs/heads/main": there, "refs/heads/old": there}
    done = git.push(bare, Remote(str(other)), [f"{main}:refs/x/1", ":refs/heads/old"],
                    {"refs/x/1": "", "refs/heads/old": there})  # fmt: skip
    assert {ref: status.flag for ref, status in done.refs.items()} == {"refs/x/1": "*", "refs/heads/old": "-"}
    assert repos.refs(other) == {"refs/heads/main": there, "refs/x/1": main}


def test_repositories_for_try_and_demo(tmp_path: Path) -> None:
    made, cloned = str(tmp_path / "made.git"), str(tmp_path / "cloned.git")
    commit = checkout.make_bare(made, {"a/b.py": "x = 1\n", "c": ""}, "Begin")
    assert repos.listing(made, commit) == {"a/b.py": "100644", "c": "100644"}
    later = repos.commit_on(made, "main", {"c": "later"})
    checkout.clone_bare(made, cloned, commit, "trunk")
    assert repos.refs(cloned) == {"refs/heads/trunk": commit}
    assert git.ls_remote(Remote(cloned), "HEAD").head == "trunk"
    git.bring(cloned, made, "refs/heads/main", "refs/heads/watchbill/try-1")
    assert repos.refs(cloned) == {"refs/heads/trunk": commit, "refs/heads/watchbill/try-1": later}


def test_a_checkout_of_a_persons(tmp_path: Path, bare: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "checkout"
    repos.git(bare, "worktree", "add", "--quiet", str(place), "main")
    monkeypatch.chdir(place)
    assert os.path.realpath(checkout.common_dir(".")) == os.path.realpath(bare)
    assert checkout.head_of(".") == git.rev_parse(bare, "main")
    assert checkout.branch_of(".") == "main"
    repos.git(bare, "--work-tree", str(place), "checkout", "--quiet", "--detach", GIT_DIR=f"{bare}/worktrees/checkout")
    assert checkout.branch_of(".") is None
    with pytest.raises(GitError):
        checkout.head_of(str(tmp_path))
