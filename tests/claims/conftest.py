"""A repository over each transport, hosts that compete for it, and a git that can be made to misbehave."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from support import repos
from support.repos import fenced
from watchbill import git
from watchbill.claims.record import ClaimRecord
from watchbill.claims.refs import NAMESPACE, ClaimRefs, Move, Seen, Verdict
from watchbill.git import Remote
from watchbill.mirror import Mirror
from watchbill.practice import githttp, loopback


class Origin(NamedTuple):
    """The repository that the claims are in."""

    bare: Path
    url: str
    place: Path  # where the hosts keep their mirrors
    door: Path  # what the server does to a push that comes over the network: one of MODES

    def host(self, name: str, namespace: str = NAMESPACE, **changes: Any) -> Host:
        mirror = Mirror(str(self.place / name / "acme__api.git"), Remote(self.url))
        naps: list[float] = []
        sleep = changes.pop("sleep", naps.append)
        refs = ClaimRefs(mirror, Remote(self.url), namespace, sleep, **changes)
        return Host(name, refs, mirror.refresh("main"))

    def at(self, ref: str) -> str | None:
        return repos.tip(self.bare, ref)

    def published_by_its_second_owner(self) -> tuple[str, str, str, str]:
        """#41 is claimed by host a, taken over and published by b: the three claim commits in turn, and the work's."""
        a, b = self.host("a"), self.host("b")
        first, _ = a.claim()
        second = b.takeover(b.refs.read(41))
        assert b.refs.swap(Move(b.refs.ref(41), first, second)).kind == "ok"
        seen, head = b.refs.read(41), b.work()
        assert isinstance(seen.record, ClaimRecord)
        third = b.published(seen.record, second, head)
        assert fenced(b.refs, 41, second, third, head).kind == "ok"
        return first, second, third, head


class Host(NamedTuple):
    """One that wants to own an issue."""

    name: str
    refs: ClaimRefs
    base: str

    @property
    def mirror(self) -> Mirror:
        return self.refs.mirror

    def record(self, **changes: object) -> ClaimRecord:
        nonce = os.urandom(8).hex()
        first = {"generation": 1, "sequence": 0, "host": self.name, "firing": f"f-{self.name}", "nonce": nonce}
        return repos.claim_record(**{**first, "base": self.base, **changes})

    def claim(self, number: int = 41) -> tuple[str, ClaimRecord]:
        record = self.record(number=number)
        commit = self.refs.write(record, None, None)
        assert self.refs.swap(Move(self.refs.ref(number), "", commit)).kind == "ok"
        return commit, record

    def takeover(self, seen: Seen) -> str:
        """The commit of a new generation, ready to be pushed."""
        assert isinstance(seen.record, ClaimRecord)
        record = self.record(number=seen.record.number, generation=seen.record.generation + 1)
        return self.refs.write(record, seen.tip, None)

    def work(self) -> str:
        """A commit of work, in this host's mirror."""
        path = self.mirror.path
        index = f"{path}-{os.urandom(4).hex()}"
        git.run("read-tree", self.base, git_dir=path, index=index)
        blob = git.hash_object(path, f"by {self.name}\n".encode())
        git.run("update-index", "--add", "--cacheinfo", f"100644,{blob},new", git_dir=path, index=index)
        return self.mirror.commit(git.write_tree(path, index), self.base, "Work\n", self.name, 1)

    def published(self, record: ClaimRecord, tip: str, head: str) -> str:
        """The commit that says so, ready to be pushed."""
        said = record._replace(sequence=record.sequence + 1, state="published", nonce=os.urandom(8).hex(), head=head,
                               title="t", body="b")  # fmt: skip
        return self.refs.write(said, tip, head)

    def publish(self, record: ClaimRecord, tip: str, head: str) -> Verdict:
        commit = self.published(record, tip, head)
        return fenced(self.refs, record.number, tip, commit, head)


#: The push is real; or its connection is cut before it arrives, or after it was applied; or it is turned away; or
#: nobody answers.
MODES = ("real", "cut before", "cut after", "denied", "silent", "heads only", "502 after", "401")


@pytest.fixture(params=["file", "http"])
def origin(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Origin]:
    bare = tmp_path / "served" / "acme" / "api.git"
    bare.parent.mkdir(parents=True)
    repos.make_bare(bare, {"README": "read me\n"})
    door = tmp_path / "door"
    door.write_text("real")
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", request.param)
    with _SERVED[request.param](bare, door, monkeypatch) as url:
        yield Origin(bare, url, tmp_path / "hosts", door)


@contextlib.contextmanager
def _file(bare: Path, _door: Path, _patch: pytest.MonkeyPatch) -> Iterator[str]:
    yield str(bare)


class _Web(loopback.Handler):
    """Smart HTTP, with a door."""

    bare: Path
    door: Path

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        found = githttp.split(path)
        repository, mode = str(self.bare), self.door.read_text()
        pushing = found is not None and githttp.writes(found[1], query)
        if found is None or not self.bare.is_dir():
            self._turn_away(404)
        elif mode == "401":
            self._turn_away(401)
        elif mode == "denied" and pushing:
            self._turn_away(403)
        elif mode == "real" or not pushing or self.command == "GET":
            githttp.answer(self, repository, found[1], query)
        elif mode == "heads only":
            self._turn_away(403)
        elif mode == "silent":
            self.server.closing.wait(60)
            self.hang_up()
        else:
            if mode.endswith("after"):
                githttp.answer(self, repository, found[1], query, deliver=False)
            if mode == "502 after":
                self.send(502, {}, b"bad gateway\n")
            else:
                self.hang_up()

    def _turn_away(self, status: int) -> None:
        with loopback.request_body(self):
            self.send(status, {"WWW-Authenticate": "Basic"} if status == 401 else {}, b"no\n")

    do_POST = do_GET


@contextlib.contextmanager
def _http(bare: Path, door: Path, _patch: pytest.MonkeyPatch, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    server = loopback.Server(type("Web", (_Web,), {"bare": bare, "door": door}), tls=tls)
    try:
        yield f"{server.url}/acme/api.git"
    finally:
        server.close()


@contextlib.contextmanager
def _https(bare: Path, door: Path, patch: pytest.MonkeyPatch) -> Iterator[str]:
    """Behind TLS, with a certificate of an authority that only this test knows."""
    place = door.parent / "tls"
    place.mkdir()
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=test")
    (place / "names").write_text("subjectAltName=IP:127.0.0.1")
    for argv in (
        ("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-addext", "basicConstraints=critical,CA:TRUE"),
        ("req", *key, "-keyout", "key.pem", "-out", "request.pem"),
        ("x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
         "-extfile", "names", "-out", "certificate.pem"),
    ):  # fmt: skip
        subprocess.run(["openssl", *argv], cwd=place, check=True, capture_output=True)
    patch.setenv("SSL_CERT_FILE", str(place / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place / "certificate.pem", place / "key.pem")
    with _http(bare, door, patch, context) as url:
        yield url


#: What sshd runs for every command it is asked for. `git-receive-pack` shows its refs, then reads; its last words are
#: the report that a client waits for. Killing the session above it is what cuts the connection.
_DOOR = """#!/bin/sh
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null
mode=$(cat {door})
case "$SSH_ORIGINAL_COMMAND" in git-receive-pack*) ;; *) mode=real ;; esac
case "$mode" in
real) exec sh -c "$SSH_ORIGINAL_COMMAND" ;;
denied) echo "ERROR: Permission to acme/api.git denied to bot." >&2; exit 1 ;;
"cut before") sh -c "$SSH_ORIGINAL_COMMAND" < /dev/null | head -c 20; kill -9 $PPID ;;
"cut after") sh -c "$SSH_ORIGINAL_COMMAND" | {python} {shows}; kill -9 $PPID ;;
silent) sh -c "$SSH_ORIGINAL_COMMAND" < /dev/null | {python} {shows}; while kill -0 $PPID; do sleep 0.1; done ;;
esac
"""
_SHOWS = """import os, sys
while (size := sys.stdin.buffer.read(4)) and size != b"0000":  # packets, up to the end of the refs
    sys.stdout.buffer.write(size + sys.stdin.buffer.read(int(size, 16) - 4))
sys.stdout.buffer.write(b"0000")
sys.stdout.flush()
sys.stdin.buffer.read()
"""
_CONFIGURATION = """ListenAddress 127.0.0.1:{port}
HostKey {place}/host
AuthorizedKeysFile {place}/authorized
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
LogLevel QUIET
PrintMotd no
PrintLastLog no
MaxStartups 100
"""


@contextlib.contextmanager
def _ssh(bare: Path, door: Path, patch: pytest.MonkeyPatch) -> Iterator[str]:
    """A real sshd, run by this very user, with keys that only this test knows."""
    if os.getuid() == 0 and not os.path.isdir("/run/sshd"):
        text = "missing: /run/sshd, which an sshd started by root needs"
        (pytest.fail if os.environ.get("WATCHBILL_REQUIRE") else pytest.skip)(text)
    place = door.parent / "ssh"
    place.mkdir(mode=0o700)
    for name in ("host", "ours"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", name], cwd=place, check=True)
    (place / "shows.py").write_text(_SHOWS)
    (place / "door").write_text(_DOOR.format(door=door, python=sys.executable, shows=place / "shows.py"))
    (place / "door").chmod(0o755)
    (place / "authorized").write_text(f'restrict,command="{place}/door" {(place / "ours.pub").read_text()}')
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (place / "sshd_config").write_text(_CONFIGURATION.format(port=port, place=place))
    (place / "known").write_text(f"[127.0.0.1]:{port} {(place / 'host.pub').read_text()}")
    # ssh reads its files from the password database's home, whatever HOME says: hence -F.
    (place / "ssh_config").write_text(
        f"IdentityFile {place}/ours\nIdentitiesOnly yes\nIdentityAgent none\nUserKnownHostsFile {place}/known\n"
        "KexAlgorithms curve25519-sha256\nGlobalKnownHostsFile /dev/null\nStrictHostKeyChecking yes\n"
    )
    (place / "bin").mkdir()
    (place / "bin" / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {place}/ssh_config "$@"\n')
    (place / "bin" / "ssh").chmod(0o755)
    patch.setenv("PATH", f"{place}/bin{os.pathsep}{os.environ['PATH']}")
    daemon = subprocess.Popen([str(shutil.which("sshd")), "-D", "-e", "-f", str(place / "sshd_config")])
    try:
        _answers(port, daemon)
        yield f"ssh://{getpass.getuser()}@127.0.0.1:{port}{bare}"
    finally:
        daemon.terminate()
        daemon.wait()


def _answers(port: int, daemon: subprocess.Popen[bytes]) -> None:
    for _ in range(500):
        assert daemon.poll() is None, "sshd ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.recv(4)
            return
        time.sleep(0.01)
    raise AssertionError("sshd does not answer")


_SERVED = {"file": _file, "http": _http, "https": _https, "ssh": _ssh}


class Pushes:
    """Stands before git on PATH and decides what becomes of its pushes; everything else goes through."""

    def __init__(self, place: Path) -> None:
        place.mkdir()
        self.real = shutil.which("git")
        self._log = place / "pushes"
        self._script = place / "push"
        self.hooks = place / "hooks"
        self.hooks.mkdir()
        self.do("real")
        (place / "git").write_text(
            "#!/bin/sh\n"
            f'real() {{ {self.real} "$@"; }}\n'
            'for word in "$@"; do\n'
            f'  if [ "$word" = push ]; then echo >> {self._log}; . {self._script}; fi\n'
            "done\n"
            f'exec {self.real} "$@"\n'
        )
        (place / "git").chmod(0o755)
        os.environ["PATH"] = f"{place}{os.pathsep}{os.environ['PATH']}"

    @property
    def count(self) -> int:
        return len(self._log.read_text()) if self._log.exists() else 0

    def do(self, what: str) -> None:
        """A line of shell, run instead of a push; with no `exit` in it the push goes on after it."""
        self._script.write_text({"real": ":\n"}.get(what, what + "\n"))

    def freeze_for(self, what: str) -> None:
        """Run `what` between a push's reading of the refs and its sending: in git's pre-push hook, for once allowed."""
        (self.hooks / "pre-push").write_text(
            f"#!/bin/sh\ncat > /dev/null\nunset $(env | grep -o '^GIT_[A-Z_0-9]*' | grep -v SSL)\n{what}\n"
        )
        (self.hooks / "pre-push").chmod(0o755)
        self.do(
            "n=$#\n"
            "while [ $n -gt 0 ]; do\n"
            '  a=$1; shift; n=$((n-1)); if [ "$a" = push ]; then\n'
            f'    set -- "$@" -c core.hooksPath={self.hooks} push; else set -- "$@" "$a"; fi\n'
            "done\n"
            f'exec {self.real} "$@"'
        )


@pytest.fixture
def pushes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pushes:
    monkeypatch.setenv("PATH", os.environ["PATH"])
    return Pushes(tmp_path / "before-git")
