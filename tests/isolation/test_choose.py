"""isolation.choose: what an agent's `isolation:` becomes on this host."""

from __future__ import annotations

from pathlib import Path

import pytest

from watchbill import isolation
from watchbill.errors import Fixable
from watchbill.isolation import bwrap, landlock, none


@pytest.mark.needs("bwrap")
@pytest.mark.parametrize("wanted", ["auto", "required"])
def test_bwrap_is_first(wanted: str) -> None:
    assert isolation.choose(wanted) is bwrap


def test_none_is_what_was_asked_for() -> None:
    assert isolation.choose("none") is none


def test_without_bwrap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if landlock.abi() < 1:
        pytest.skip("missing: Landlock in this kernel")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert isolation.choose("auto") is landlock
    assert isolation.choose("required") is landlock


def test_a_bwrap_that_is_there_and_does_not_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on a host that forbids user namespaces."""
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'setting up uid map: Permission denied' >&2; exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "setting up uid map: Permission denied" in str(bwrap.unavailable())
    assert isolation.choose("auto") is not bwrap


def test_required_and_nothing_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(landlock, "_CREATE_RULESET", 100_000)  # no such system call: as an older kernel answers
    assert isolation.choose("auto") is none
    with pytest.raises(Fixable) as caught:
        isolation.choose("required")
    assert (caught.value.id, caught.value.outcome) == ("WB-ISOLATION-01", "invalid")
    assert "bwrap is not installed" in caught.value.why
    assert "Landlock" in caught.value.why
    assert "apt install bubblewrap" in caught.value.fix
