"""The registry of engines."""

from __future__ import annotations

from pathlib import Path

import pytest

from watchbill import engines
from watchbill.engines import command, scripted
from watchbill.errors import Fixable


def test_by_name() -> None:
    assert engines.named("command") is command
    assert engines.named("scripted") is scripted
    assert all(engine.name == name for name, engine in engines.ENGINES.items())


def test_somebody_elses_by_dotted_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "good.py").write_text("from watchbill.engines.command import *\n"
        "from watchbill.engines.command import name, has_budget, headroom_micro, unmetered_basis\n")  # fmt: skip
    (tmp_path / "outside" / "bad.py").write_text("name = 'bad'\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert engines.named("outside.good").launch is command.launch
    with pytest.raises(Fixable, match="is no engine") as caught:
        engines.named("outside.bad")
    assert "launch" in caught.value.why


@pytest.mark.parametrize("name", ["claud", "no.such.module", ""])
def test_a_name_that_is_nobodys(name: str) -> None:
    with pytest.raises(Fixable) as caught:
        engines.named(name)
    assert (caught.value.id, caught.value.outcome) == ("WB-ENGINE-02", "invalid")
    assert "command" in caught.value.fix
