"""Guards that hold for every test: its own HOME, no network beyond loopback, nothing left running."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

_KEEP = {
    "PATH",
    "LANG",
    "LC_ALL",
    "TERM",
    "TMPDIR",
    "VIRTUAL_ENV",
    "CI",
    "PYTEST_CURRENT_TEST",
    "WATCHBILL_REQUIRE",
    "WATCHBILL_PROJECTS",
    "WATCHBILL_ENGINES",
}
PROJECTS = Path(os.environ.get("WATCHBILL_PROJECTS", "/nowhere"))


@pytest.fixture(autouse=True)
def own_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment that knows nothing of the person who runs the tests."""
    for name in list(os.environ):
        if name not in _KEEP:
            monkeypatch.delenv(name)
    home = tmp_path / "person"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("WATCHBILL_HOME", str(tmp_path / "YOU-FORGOT-TO-CHOOSE-A-HOME" / "x"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "file:http")
    monkeypatch.setenv("NO_COLOR", "1")
    return home


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches beyond loopback fails at the connect."""
    real = socket.socket.connect

    def connect(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and address[0] not in {"127.0.0.1", "::1", "localhost"}:
            raise AssertionError(f"a test tried to reach {address!r}")
        real(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture(autouse=True)
def no_children_left() -> Iterator[None]:
    """Whatever a test started has ended when the test ends."""
    yield
    left = _children_of(os.getpid())
    assert not left, f"left running: {left}"


def _children_of(pid: int) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


def _where(program: str) -> str | None:
    if program in ("claude", "codex"):
        from support import real  # only where it is needed: it imports most of the package

        return real.program(program)
    return shutil.which(program)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """`needs("bwrap")` skips, naming what is missing; under WATCHBILL_REQUIRE (as .ci/run sets it) it fails."""
    for mark in item.iter_markers("needs"):
        missing = [program for program in mark.args if _where(program) is None]
        if missing:
            text = f"missing: {', '.join(missing)}"
            if os.environ.get("WATCHBILL_REQUIRE"):
                pytest.fail(text)
            pytest.skip(text)
    thorough = os.environ.get("WATCHBILL_REQUIRE") or os.environ.get("WATCHBILL_CRASH_THOROUGH")
    if item.get_closest_marker("thorough") and not thorough:
        pytest.skip("thorough: .ci/run and make crash run it")
    if item.get_closest_marker("needs_projects") and not (PROJECTS / "complete").exists():
        text = "missing: real projects (tests/real/fetch DIR, then WATCHBILL_PROJECTS=DIR)"
        if os.environ.get("WATCHBILL_REQUIRE"):
            pytest.fail(text)
        pytest.skip(text)
