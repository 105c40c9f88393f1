"""command: the JSON lines of a program we do not know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.engines import a_task, run
from watchbill.engines import command
from watchbill.engines.base import Event, Filled, Tokens, Usage
from watchbill.errors import Fixable


def read(**said: Any) -> Event | None:
    return command.read(json.dumps(said).encode(), Usage(1, 2, 3, 4))


def test_a_usage_line_is_an_increment() -> None:
    event = read(type="usage", input_tokens=10, output_tokens=20, cost_usd=0.41)
    assert event == Event("usage", usage=Usage(11, 22, 4, 410_004))


@pytest.mark.parametrize(
    ("usd", "micro"),
    [(0.41, 410_000), (1, 1_000_000), (0.1 + 0.2, 300_000), (1e-6, 1), (1.0000005, 1_000_001), (0, 0)],
)
def test_dollars_become_micro_dollars_as_they_are_written(usd: float, micro: int) -> None:
    event = command.read(json.dumps({"type": "usage", "cost_usd": usd}).encode(), Usage())
    assert event is not None
    assert event.usage is not None
    assert event.usage.cost_micro == micro


@pytest.mark.parametrize(
    "bad", ["-1", "-0.5", "NaN", "Infinity", "1e999", '"7"', "true", "null", "[]", "{}", "1" * 900]
)
def test_a_bad_number_is_passed_over_and_the_rest_of_the_line_is_not(bad: str) -> None:
    line = f'{{"type": "usage", "input_tokens": {bad}, "cost_usd": {bad}, "output_tokens": 5}}'.encode()
    unpriced = ((None, Tokens(0, 5)),)
    assert command.read(line, Usage(1, 2, 3, 4)) == Event("usage", usage=Usage(1, 7, 4, 4, unpriced))
    assert command.read(line, Usage()) == Event("usage", usage=Usage(0, 5, 1, None, unpriced))


def test_tokens_without_dollars_are_kept_by_model_and_cached_ones_are_part_of_the_input() -> None:
    usage = Usage()
    for line in (
        {"input_tokens": 100, "output_tokens": 5, "cache_read_tokens": 60, "model": "m"},
        {"input_tokens": 10, "cache_read_tokens": 60, "cache_write_tokens": 7, "model": "m"},  # counted apart
        {"output_tokens": 3},
        {"input_tokens": 1, "cost_usd": 0.5, "model": "m"},
    ):
        event = command.read(json.dumps({"type": "usage", **line}).encode(), usage)
        assert event is not None
        assert event.usage is not None
        usage = event.usage
    assert usage == Usage(168, 8, 4, 500_000, (("m", Tokens(167, 5, 120, 7)), (None, Tokens(0, 3))))


@pytest.mark.parametrize("kind", ["overloaded", "billing", "auth"])
def test_what_the_account_is_refused_for(kind: str) -> None:
    assert read(type=kind) == Event(kind)
    assert read(type=kind, until=1790000000) == Event(kind, until=1790000000)


def test_how_full_a_window_is() -> None:
    line = {"type": "window", "name": "five_hour", "utilization": 0.93, "resets_at": 1790000000}
    assert read(**line) == Event("window", windows=(Filled("five_hour", 930_000, 1790000000),))
    for bad in ({"name": 5}, {"utilization": -1}, {"utilization": "0.9"}, {"resets_at": None}, {"resets_at": "soon"}):
        assert read(**{**line, **bad}) is None


def test_messages_and_limits() -> None:
    assert read(type="message", text="hello") == Event("message", text="hello")
    assert read(type="message", text=7) is None
    assert read(type="rate_limited", until=1790000000) == Event("rate_limited", until=1790000000)
    assert read(type="rate_limited", until=1790000000.9) == Event("rate_limited", until=1790000000)
    for bad in (-1, True, "soon", None, 1790000000000, float("nan")):
        assert read(type="rate_limited", until=bad) == Event("rate_limited", until=None)


def test_of_several_resets_the_latest_counts(tmp_path: Path) -> None:
    text = 'say("rate_limited", until=1790000500)\nsay("rate_limited", until=1790000000.5)\nsys.exit(1)'
    done = run(a_task(tmp_path, "command", text), "command")
    assert (done.verdict, done.until) == ("rate_limited", 1790000500)


def test_a_trouble_that_the_protocol_does_not_know_is_a_line_like_any_other(tmp_path: Path) -> None:
    done = run(a_task(tmp_path, "command", 'say("context")\nsay("final", ok=True)\nsys.exit(1)'), "command")
    assert (done.verdict, done.until) == ("crash", None)


def test_a_missing_program_names_itself_and_where_it_was_looked_for(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("PATH", f"rel:{tmp_path}:/usr/bin")
    task = a_task(tmp_path, "command", "")._replace(options={"argv": ["no-such-engine", "--fast"]})
    with pytest.raises(Fixable) as caught:
        command.launch(task)
    problem = caught.value
    assert (problem.id, problem.outcome) == ("WB-ENGINE-01", "invalid")
    assert "no-such-engine" in problem.what
    assert f"{tmp_path}:/usr/bin" in problem.why
    assert "rel" not in problem.why
    assert problem.fix


def test_where_a_program_is_found(tmp_path: Path, monkeypatch: Any) -> None:
    task = a_task(tmp_path, "command", "")
    for folder in (tmp_path / "bin", Path(task.workdir)):
        folder.mkdir(exist_ok=True)
        tool = folder / "tool"
        tool.write_text("#!/bin/sh\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin")

    def found(word: str, env: dict[str, str] | None = None) -> str:
        return command.launch(task._replace(options={"argv": [word, "x"]}, env=env or {})).argv[0]

    assert found("tool") == f"{tmp_path}/bin/tool"
    assert found("./tool") == f"{task.workdir}/./tool"
    assert found(f"{tmp_path}/bin/tool") == f"{tmp_path}/bin/tool"
    assert found("tool", {"PATH": task.workdir}) == f"{task.workdir}/tool"
    with pytest.raises(Fixable, match="missing"):
        found("/etc/passwd")


@pytest.mark.parametrize("argv", [None, [], "make test", [1], [""], {}])
def test_an_argv_that_is_none(tmp_path: Path, argv: object) -> None:
    with pytest.raises(Fixable) as caught:
        command.launch(a_task(tmp_path, "command", "")._replace(options={"argv": argv}))
    assert caught.value.id == "WB-ENGINE-03"
