"""Bare repositories to test against, made and read by git itself and not by the code under test; and a claim record."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from watchbill.claims.record import VERSION, ClaimRecord
from watchbill.claims.refs import ClaimRefs, Move, Verdict

SHA = "5" * 40
_WHO = {f"GIT_{role}_{part}": value for role in ("AUTHOR", "COMMITTER")
        for part, value in (("NAME", "Alice"), ("EMAIL", "alice@example.com"))}  # fmt: skip


def git(path: Path | str, *argv: str, given: bytes = b"", **env: str) -> str:
    """git in a bare repository ("": none); what it printed, without the last newline."""
    clean = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_GLOBAL": os.devnull, "LC_ALL": "C"}
    done = subprocess.run(
        ["git", *argv], input=given, capture_output=True, check=False,
        env={**clean, **_WHO, "GIT_CONFIG_NOSYSTEM": "1", **({"GIT_DIR": str(path)} if path else {}), **env},
    )  # fmt: skip
    assert done.returncode == 0, f"git {argv}: {done.stderr.decode()}"
    return os.fsdecode(done.stdout).removesuffix("\n")


def make_bare(path: Path | str, files: Mapping[str, str | bytes], *, branch: str = "main") -> str:
    """A bare repository with one commit of `files` on its default branch; the commit."""
    git(path, "init", "--quiet", "--bare", "--template=", f"--initial-branch={branch}", str(path))
    with open(os.path.join(path, "config"), "a", encoding="utf-8") as file:
        file.write("[http]\n\treceivepack = true\n[receive]\n\tautogc = false\n[gc]\n\tauto = 0\n")
    return commit_on(path, branch, files)


def commit_on(path: Path | str, branch: str, files: Mapping[str, str | bytes | None], message: str = "Change") -> str:
    """One more commit on a branch, as a person would push it: `files` added or replaced, None deleted."""
    ref = f"refs/heads/{branch}"
    before = tip(path, ref)
    said = [f"commit {ref}\ncommitter Alice <alice@example.com> now\ndata {len(message)}\n{message}\n".encode()]
    if before:
        said.append(f"from {before}\n".encode())
    for name, content in files.items():
        quoted = b'"' + b"".join(b"\\%03o" % byte for byte in os.fsencode(name)) + b'"'
        if content is None:
            said.append(b"D " + quoted + b"\n")
        else:
            data = content.encode() if isinstance(content, str) else content
            said.append(b"M 100644 inline " + quoted + b"\ndata %d\n" % len(data) + data + b"\n")
    git(path, "fast-import", "--quiet", "--date-format=now", given=b"".join(said))
    commit = tip(path, ref)
    assert commit is not None
    return commit


def tip(path: Path | str, ref: str) -> str | None:
    """What a ref is at."""
    return refs(path).get(ref)


def refs(path: Path | str) -> dict[str, str]:
    lines = git(path, "for-each-ref", "--format=%(objectname) %(refname)").splitlines()
    return {name: sha for sha, name in (line.split(" ") for line in lines)}


def listing(path: Path | str, tree: str) -> dict[str, str]:
    """path -> mode of everything in a tree."""
    rows = [row.partition("\t") for row in git(path, "ls-tree", "-r", "-z", "--full-tree", tree).split("\0") if row]
    return {name: facts.split(" ")[0] for facts, _, name in rows}


def content(path: Path | str, tree: str, name: str) -> str:
    return git(path, "cat-file", "blob", f"{tree}:{name}")


def hook(path: Path | str, name: str, script: str) -> None:
    """A hook of the server's, such as the rules a forge enforces."""
    place = Path(path) / "hooks"
    place.mkdir(exist_ok=True)
    (place / name).write_text("#!/bin/sh\n" + script)
    (place / name).chmod(0o755)


def claim_record(**changes: Any) -> ClaimRecord:
    """A whole record of a claim in the middle of its life; a first one: generation=1, sequence=0."""
    return ClaimRecord(
        version=VERSION, repo_id=7, number=41, generation=7, sequence=3, state="active", role="implement", firing="f1",
        agent="bosun", host="h1", boot="b1", pid=4711, nonce="0123456789abcdef", ttl=2700, issued=1_790_000_000,
        label_event=99, base=SHA, head=None, pr_floor=0, pr=None, attempt=2, spent=410_000, outcome=None, title=None,
        body=None,
    )._replace(**changes)  # fmt: skip


def fenced(refs: ClaimRefs, number: int, tip: str, published: str, head: str) -> Verdict:
    """The publishing push, as a firing makes it: claim and work branch move together, or neither does."""
    branch = Move(refs.branch_ref(number), "", head)
    return refs.swap(Move(refs.ref(number), tip, published), branch)
