"""scripted: each step of a script, played by a real process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.engines import a_task, run
from watchbill.engines import scripted
from watchbill.engines.base import Result, Usage
from watchbill.errors import Fixable


def play(root: Path, *steps: dict[str, Any]) -> Result:
    return run(a_task(root, "scripted", "")._replace(options={"steps": list(steps)}), "scripted")


def test_every_step(tmp_path: Path) -> None:
    work = tmp_path / "work"
    done = play(
        tmp_path,
        {"write": {"path": "deep/er/a.txt", "content": "one\r\nzwei ü\n"}},
        {"append": {"path": "deep/er/a.txt", "content": "two\n"}},
        {"replace": {"path": "deep/er/a.txt", "old": "two", "new": "three"}},
        {"write": {"path": "gone", "content": ""}},
        {"delete": "gone"},
        {"usage": {"input_tokens": 3, "cost_usd": 0.25}},
        {"message": "all done"},
        {"run": "pwd > where"},
        {"sleep": 0.01},
        {"exit": 0},
        {"write": {"path": "never", "content": ""}},
    )
    assert (done.verdict, done.usage, done.message) == ("ok", Usage(3, 0, 1, 250_000), "all done")
    assert (work / "deep/er/a.txt").read_bytes() == "one\r\nzwei ü\nthree\n".encode()
    assert (work / "where").read_text() == f"{work}\n"
    assert not (work / "gone").exists()
    assert not (work / "never").exists()


@pytest.mark.parametrize(
    ("step", "status"),
    [
        ({"exit": 3}, 3),
        ({"run": "exit 4"}, 4),
        ({"replace": {"path": "engine.py", "old": "not there", "new": ""}}, 1),
        ({"replace": {"path": "no file", "old": "", "new": ""}}, 1),
        ({"delete": "no file"}, 1),
    ],
)
def test_a_failing_step_ends_the_script(tmp_path: Path, step: dict[str, Any], status: int) -> None:
    done = play(tmp_path, step, {"write": {"path": "never", "content": ""}})
    assert (done.verdict, done.exit_status) == ("crash", status)
    assert not (tmp_path / "work" / "never").exists()


def test_rate_limited(tmp_path: Path) -> None:
    done = play(tmp_path, {"rate_limited": 1790000000}, {"exit": 1})
    assert (done.verdict, done.until) == ("rate_limited", 1790000000)


def test_a_script_from_a_file_larger_than_an_argv(tmp_path: Path) -> None:
    content = "x" * 300_000
    script = tmp_path / "script.json"
    script.write_text(json.dumps([{"write": {"path": "big", "content": content}}]))
    done = run(a_task(tmp_path, "scripted", "")._replace(options={"script": str(script)}), "scripted")
    assert done.verdict == "ok"
    assert (tmp_path / "work" / "big").read_text() == content


@pytest.mark.parametrize(
    "options",
    [{}, {"script": "/no/such/file"}, {"steps": "x"}, {"steps": [{"jump": 1}]}, {"steps": [{}]}, {"steps": [7]}],
)
def test_what_is_no_script(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(Fixable) as caught:
        scripted.launch(a_task(tmp_path, "scripted", "")._replace(options=options))
    assert (caught.value.id, caught.value.outcome) == ("WB-ENGINE-04", "invalid")
