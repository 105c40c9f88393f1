"""Which file is started for an engine, however somebody installed it."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from watchbill.engines import installed
from watchbill.engines.base import Limits, Task
from watchbill.errors import Fixable

ELF = b"\x7fELF and so on"
SCRIPT = b"#!/usr/bin/env node\n"
NATIVE = "@openai/codex-linux-x64/vendor/x86_64-unknown-linux-musl/bin/codex"


def put(path: Path, content: bytes = ELF) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o755)
    return path


def link(path: Path, to: Path | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(to)
    return path


def found(engine: str, program: Path, tmp_path: Path) -> Path:
    task = Task("f", str(tmp_path), "", "h", "t", "", None, {"program": str(program)}, {}, Limits(1))
    return Path(installed.find(engine, task))


@pytest.mark.parametrize("beside", [True, False], ids=["beside it", "in a folder of its own"])
def test_codex_by_npm_is_the_program_behind_its_script(tmp_path: Path, beside: bool) -> None:
    """The script starts the program with three streams, and its key never arrives: 401 at every request.

    Broken once: the script was started; so here, and in tests/real_engines no request had an Authorization header.
    """
    modules = tmp_path / "lib" / "node_modules"
    script = put(modules / "@openai/codex/bin/codex.js", SCRIPT)
    native = put(modules / NATIVE if beside else modules / "@openai/codex/node_modules" / NATIVE)
    on_path = link(tmp_path / "bin" / "codex", "../lib/node_modules/@openai/codex/bin/codex.js")
    assert [found("codex", program, tmp_path) for program in (on_path, script)] == [native, native]


def test_codex_of_another_machine_beside_ours(tmp_path: Path) -> None:
    """On a disk that hosts share. Broken once: the first by its name, arm64's, which no x64 host can run."""
    modules = tmp_path / "node_modules"
    script = put(modules / "@openai/codex/bin/codex.js", SCRIPT)
    kinds = {"x86_64": "x64", "aarch64": "arm64"}
    for machine, name in kinds.items():
        put(modules / f"@openai/codex-linux-{name}/vendor/{machine}-unknown-linux-musl/bin/codex")
    ours = kinds[{"arm64": "aarch64"}.get(platform.machine(), platform.machine())]
    assert f"codex-linux-{ours}" in str(found("codex", script, tmp_path))


def test_codex_by_npm_without_its_optional_packages(tmp_path: Path) -> None:
    """`npm install --omit=optional`: said before anything is claimed, and not by a run that ends with 1."""
    script = put(tmp_path / "node_modules/@openai/codex/bin/codex.js", SCRIPT)
    put(tmp_path / "node_modules" / NATIVE, b"of another system")
    with pytest.raises(Fixable) as caught:
        found("codex", link(tmp_path / "bin" / "codex", script), tmp_path)
    assert (caught.value.id, str(script) in caught.value.why) == ("WB-ENGINE-01", True)
    assert "npm install -g @openai/codex" in caught.value.fix
    assert "[engines.codex] program" in caught.value.fix


@pytest.mark.parametrize("engine", ["claude", "codex"])
def test_a_link_is_followed_to_the_program(tmp_path: Path, engine: str) -> None:
    """Where it lies may be hidden from what runs isolated; where the program lies is shown.

    Broken once: `bwrap: execvp ~/tools/claude: No such file or directory`, charged the whole reservation.
    """
    for home in (tmp_path / "ann", tmp_path / engine):
        native = put(home / "share" / engine / "versions" / "2.1.329")
        one = link(home / "local" / engine, native)
        assert found(engine, link(home / "tools" / engine, one), tmp_path) == native


@pytest.mark.parametrize("engine", ["claude", "codex"])
def test_what_asks_for_its_own_name_keeps_it(tmp_path: Path, engine: str) -> None:
    """A version manager's shim, native or a script, is one program for all that it manages.

    Broken once: every link followed, and `volta-shim` was started, which says that it is none to be started.
    """
    for shim in (put(tmp_path / "bin" / "volta-shim"), put(tmp_path / "libexec" / "asdf", b"#!/bin/sh\n")):
        path = link(shim.parent / engine, shim.name)
        assert found(engine, path, tmp_path) == path


@pytest.mark.parametrize("engine", ["claude", "codex"])
def test_also_in_the_home_of_somebody_of_that_name(tmp_path: Path, engine: str) -> None:
    """A user `claude` for the fleet is an obvious idea. What tells is what the link adds, not where all of it lies.

    Broken once: the name looked for in the whole path, and `volta-shim` was started by its own name.
    """
    shim = put(tmp_path / engine / ".volta" / "bin" / "volta-shim")
    path = link(shim.parent / engine, shim.name)
    assert found(engine, path, tmp_path) == path


@pytest.mark.parametrize("engine", ["claude", "codex"])
def test_one_that_is_missing_is_named_with_its_package(tmp_path: Path, engine: str) -> None:
    with pytest.raises(Fixable) as caught:
        found(engine, tmp_path / "nowhere", tmp_path)
    assert caught.value.id == "WB-ENGINE-01"
    assert f"npm install -g {installed.PACKAGES[engine]}" in caught.value.fix
