"""Secrets by reference. Programs are real ones, on a PATH of the test's own."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from watchbill import secrets
from watchbill.errors import Fixable
from watchbill.secrets import gh_token, resolve

VALUE = "s3cret-Value-of-the-test"


def refused(reference: str, environ: dict[str, str]) -> Fixable:
    with pytest.raises(Fixable) as found:
        resolve(reference, environ)
    error = found.value
    assert error.outcome == "unauthorized"
    assert error.fix
    assert VALUE not in str(error)
    return error


def program(folder: Path, name: str, body: str) -> dict[str, str]:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(f"  {VALUE}\n\n")
    path.chmod(0o600)
    return path


def test_env() -> None:
    assert resolve("env:TOKEN", {"TOKEN": f" {VALUE}\n"}) == VALUE
    assert "env:TOKEN: the environment has no TOKEN" in refused("env:TOKEN", {"HOME": VALUE}).what
    assert "env:TOKEN: what lies there is empty" in refused("env:TOKEN", {"TOKEN": " \n"}).what


def test_file(file: Path) -> None:
    assert resolve(f"file:{file}", {}) == VALUE
    assert resolve("file:~/key", {"HOME": str(file.parent)}) == VALUE
    assert "the path is not absolute" in refused("file:key", {}).what
    assert "No such file" in refused(f"file:{file}x", {}).what
    assert "Is a directory" in refused(f"file:{file.parent}", {}).what
    file.write_bytes(b"\xff")
    assert "not UTF-8 (byte 0)" in refused(f"file:{file}", {}).what
    file.write_bytes(b"x" * 70_000)
    assert "more than 65536 bytes" in refused(f"file:{file}", {}).what


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_file_that_others_may_read_is_refused(file: Path, mode: int) -> None:
    """Broken on purpose: with the mask 0o044 a file that others may write was taken."""
    file.chmod(mode)
    error = refused(f"file:{file}", {})
    assert (error.id, error.fix.split(";")[0]) == ("WB-SECRET-03", f"chmod 600 {file}")
    assert f"(mode {mode:04o})" in error.what


def test_a_pipe_in_place_of_a_file_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "not a regular file" in refused(f"file:{tmp_path}/pipe", {}).what


def test_systemd(file: Path) -> None:
    environ = {"CREDENTIALS_DIRECTORY": str(file.parent)}
    assert resolve("systemd:key", environ) == VALUE
    assert "no $CREDENTIALS_DIRECTORY" in refused("systemd:key", {}).what
    assert "No such file" in refused("systemd:other", environ).what
    assert "has no '/'" in refused("systemd:../key", environ).what


def test_cmd(tmp_path: Path) -> None:
    environ = program(tmp_path, "pass", f'[ "$1 $2" = "show a;b c" ] && echo {VALUE}')
    assert resolve('cmd:pass show "a;b c"', environ) == VALUE
    assert "pass ended with status 1" in refused("cmd:pass other", environ).what
    assert "cannot start nowhere" in refused("cmd:nowhere", environ).what
    assert "No closing quotation" in refused('cmd:pass "', environ).what


def test_a_program_that_fails_is_quoted_without_the_secret(tmp_path: Path) -> None:
    environ = program(
        tmp_path, "pass", f"echo {VALUE}; echo first >&2; echo no such entry {VALUE} ghp_{'a' * 36} >&2; exit 3"
    )
    error = refused("cmd:pass", environ)
    assert "status 3" in error.what
    assert error.why == "no such entry [redacted secret] [redacted github-token]"


def test_a_program_that_gives_no_answer_is_ended_with_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken on purpose: killing only the program itself waited for its child, who held stdout, for a minute."""
    monkeypatch.setattr(secrets, "TIMEOUT_S", 0.3)
    environ = program(tmp_path, "pass", "sleep 60 & sleep 60")
    began = time.monotonic()
    assert "gave no answer within" in refused("cmd:pass", environ).what
    assert time.monotonic() - began < 30


def test_gh(tmp_path: Path) -> None:
    environ = program(tmp_path, "gh", f'[ "$*" = "auth token" ] && echo {VALUE}')
    assert gh_token(environ) == VALUE
    with pytest.raises(Fixable, match="cannot start gh") as found:
        gh_token({"PATH": str(tmp_path / "empty")})
    assert "gh auth login" in found.value.fix
    assert found.value.outcome == "unauthorized"


def test_op(tmp_path: Path) -> None:
    environ = program(tmp_path, "op", f'[ "$*" = "read --no-newline op://vault/item/field" ] && printf {VALUE}')
    assert resolve("op://vault/item/field", environ) == VALUE
    assert resolve("op:vault/item/field", environ) == VALUE


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has one")
def test_what_this_host_or_version_does_not_have() -> None:
    assert "only macOS has this keychain" in refused("keychain:watchbill/slack", {}).what
    assert "not in this version" in refused("aws-sm:fleet/slack", {}).what


@pytest.mark.parametrize("reference", [VALUE, f"ghp:{VALUE}", "", "env", "env:", "file: "])
def test_a_secret_in_place_of_a_reference_is_not_repeated(reference: str) -> None:
    error = refused(reference, {"": VALUE})
    assert error.id == "WB-SECRET-01"
    assert "ghp" not in str(error)
