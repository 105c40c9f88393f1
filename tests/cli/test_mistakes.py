"""Roster mistakes from outside: one clear error each, exit 78; readers write nothing, `fire` puts it on record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.fleet import LABEL, Fleet, agent, fleet, write_agent
from support.tree import picture


def edit(name: str, old: str, new: str) -> Callable[[Fleet], None]:
    def change(it: Fleet) -> None:
        path = it.home / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return change


MISTAKES: dict[str, tuple[Callable[[Fleet], None], list[str]]] = {
    "unknown key": (edit("agents/bosun.md", '"timeout"', '"timeuot"'), ["agents/bosun.md:2", "timeuot", "timeout"]),
    "wrong type": (edit("agents/bosun.md", '"timeout": "30s"', '"timeout": [1]'), ["agents/bosun.md:2", "timeout"]),
    "bad schedule": (
        edit("agents/bosun.md", '"timeout"', '"every": "fortnight", "timeout"'),
        ["bosun.md:2", "fortnight", "20m"],
    ),
    "unknown engine": (
        edit("agents/bosun.md", '"scripted"', '"scriptd"'),
        ["agents/bosun.md:2", "scriptd", "scripted"],
    ),
    "missing file": (lambda it: (it.home / "fleet.toml").unlink(), ["fleet.toml"]),
    "one name twice": (
        lambda it: (it.home / "agents" / "other.md").write_text((it.home / "agents" / "bosun.md").read_text()),
        ["bosun", "agents/other.md", "agents/bosun.md"],
    ),
    "not UTF-8": (
        lambda it: (it.home / "agents" / "bosun.md").write_bytes(b"---\nname: b\xff\n---\n"),
        ["agents/bosun.md", "UTF-8"],
    ),
    "unknown key in fleet.toml": (
        edit("fleet.toml", "[github]", "[cap]\nx = 1\n[github]"),
        ["fleet.toml:3", "cap", "caps"],
    ),
    "day cap without a firing cap": (
        edit("agents/bosun.md", '"firing_usd": 1, ', ""),
        ["agents/bosun.md:2", "firing_usd"],
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("verb", [["plan"], ["apply"]])
def test_reading_says_it_and_writes_nothing(tmp_path: Path, mistake: str, verb: list[str]) -> None:
    make, words = MISTAKES[mistake]
    with fleet(tmp_path) as it:
        make(it)
        before = picture(it.home)
        done = it.run(*verb)
        assert done.returncode == 78, done.stderr
        for word in words:
            assert word in done.stderr
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) <= 4, done.stderr  # one clear error
        assert picture(it.home) == before


@pytest.mark.parametrize("mistake", ["unknown key", "missing file", "not UTF-8"])
def test_fire_is_held_on_record_and_claims_nothing(tmp_path: Path, mistake: str) -> None:
    with fleet(tmp_path) as it:
        number = it.world.issue("octocat", "Do it", labels=[LABEL])
        MISTAKES[mistake][0](it)
        ended = it.fire("bosun")
        assert (ended.outcome, ended.status) == ("invalid", 78)
        assert it.rows("SELECT agent, outcome, exit FROM firings") == [("bosun", "invalid", 78)]
        assert it.labels(number) == {LABEL}
        assert it.remote("for-each-ref", "refs/watchbill") == ""


def test_fire_with_an_invalid_roster_still_repairs_what_is_dead(tmp_path: Path) -> None:
    from support.fleet import python, wait_for

    with fleet(tmp_path, {"bosun": agent(python("import time; open('half', 'w').write('h'); time.sleep(600)"))}) as it:
        number = it.world.issue("octocat", "Do it", labels=[LABEL])
        firing = it.start("bosun")
        wait_for("the engine to work", lambda: list((it.home / "worktrees").glob("*/tree/half")))
        firing.kill()
        firing.communicate()
        assert it.labels(number) == {"agent:in-flight"}
        MISTAKES["unknown key"][0](it) if '"timeout"' in (it.home / "agents" / "bosun.md").read_text() else None
        assert it.fire("bosun").outcome == "invalid"
        assert it.labels(number) == {LABEL}
        assert it.rows("SELECT outcome FROM firings ORDER BY id") == [("died",), ("invalid",)]


def test_an_agent_that_nobody_knows(tmp_path: Path) -> None:
    with fleet(tmp_path) as it:
        write_agent(it.home, "mate", agent())
        done = it.run("fire", "bosum")
        assert done.returncode == 78
        assert "bosun, mate" in done.stderr
        assert it.run("pause", "bosum").returncode == 78
