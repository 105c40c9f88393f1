"""A repository over each transport, hosts that compete for it, and a git that can be made to misbehave."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from support import repos
from support.repos import fenced
from watchbill import git
from watchbill.claims.record import ClaimRecord
from watchbill.claims.refs import ClaimRefs, Move, Seen, Verdict
from watchbill.git import Remote
from watchbill.mirror import Mirror
from watchbill.practice import githttp


class Origin(NamedTuple):
    """The repository that the claims are in."""

    bare: Path
    url: str
    place: Path  # where the hosts keep their mirrors

    def host(self, name: str, **changes: float) -> Host:
        mirror = Mirror(str(self.place / name / "acme__api.git"), Remote(self.url))
        naps: list[float] = []
        return Host(name, ClaimRefs(mirror, Remote(self.url), sleep=naps.append, **changes), mirror.refresh("main"))

    def at(self, ref: str) -> str | None:
        return repos.tip(self.bare, ref)


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


@pytest.fixture(params=["file", "http"])
def origin(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Origin]:
    bare = tmp_path / "served" / "acme" / "api.git"
    bare.parent.mkdir(parents=True)
    repos.make_bare(bare, {"README": "read me\n"})
    place = tmp_path / "hosts"
    if request.param == "file":
        yield Origin(bare, str(bare), place)
    else:
        with githttp.serve(str(tmp_path / "served")) as url:
            yield Origin(bare, f"{url}/acme/api.git", place)


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
            f"#!/bin/sh\ncat > /dev/null\nunset $(env | grep -o '^GIT_[A-Z_0-9]*')\n{what}\n"
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
