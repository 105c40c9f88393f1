"""`watchbill labels`: what each repository has, and creating what is missing; nothing that is there is changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.fleet import Fleet, agent, fleet, write_agent
from support.forge import REPO, World, practice_forge
from watchbill.cli import main
from watchbill.practice.faults import Rule

OWN = '[labels]\nimplement = "go"\ndone = "AGENT:DONE"\nneeds_human = "help"\n'


def run(it: Fleet, capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    """The verb in this process: exit status, stdout, stderr."""
    status = main.run(["--home", str(it.home), "labels", *argv])
    return status, *capsys.readouterr()


def states(it: Fleet, capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, str]:
    status, out, err = run(it, capsys, *argv, "--json")
    assert status == 0, err
    found = json.loads(out)
    assert (found["schema"], found["failures"]) == (1, [])
    return {row["label"]: row["state"] for row in found["labels"]}


def there(world: World) -> dict[str, dict[str, Any]]:
    return {label["name"]: label for label in world.ask("octocat", "GET", f"/repos/{REPO}/labels?per_page=100").body}


def test_the_missing_ones_are_created_once_and_nothing_else_is_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Broken on purpose: with names compared as they are written, `help` was missing beside `Help`; with `dry_run` not
    looked at, the first sync created."""
    agents = {"bosun": agent(), "web": agent(labels={"takes": "go-web"})}
    with fleet(tmp_path, agents, toml=OWN) as it:
        it.world.ask("octocat", "POST", f"/repos/{REPO}/labels", {"name": "Help", "color": "ff0000"})
        before = there(it.world)
        listed = states(it, capsys)
        missing = {"go", "go-web"}
        assert {name for name, state in listed.items() if state == "missing"} == missing
        assert (listed["AGENT:DONE"], listed["help"]) == ("spelt agent:done", "spelt Help")
        status, out, err = run(it, capsys)
        assert (status, "2 labels missing: watchbill labels sync" in err) == (0, True)
        assert [line.split("\t")[2] for line in out.splitlines() if line.split("\t")[1] == "go"] == ["missing"]

        assert states(it, capsys, "sync", "--dry-run")["go"] == "would be created"
        assert there(it.world) == before
        made = states(it, capsys, "sync")
        assert {name for name, state in made.items() if state == "created"} == missing
        after = there(it.world)
        assert {name: after[name] for name in before} == before
        assert set(after) - set(before) == missing
        assert after["go"]["color"] == "0e8a16"
        assert all(0 < len(after[name]["description"]) <= 100 for name in missing)
        assert not {"missing", "created"} & set(states(it, capsys, "sync").values())
        assert there(it.world) == after


def test_whoever_may_not_write_creates_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with fleet(tmp_path, toml=OWN) as it:
        (it.home / "token").write_text(it.world.tokens["stranger"])
        assert states(it, capsys)["go"] == "missing"  # reading it may
        status, out, err = run(it, capsys, "sync")
        assert (status, out) == (77, "")
        assert "may not write" in err
        (it.home / "token").write_text("no-token-of-anybody")
        status, _, err = run(it, capsys)
        assert (status, "refused this account" in err) == (77, True), err
        assert "go" not in there(it.world)


def test_an_answer_that_does_not_come_is_not_none_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with fleet(tmp_path, toml=OWN) as it:
        it.world.practice.faults.add(Rule("status", status=503, path="labels", times=None))
        status, out, err = run(it, capsys, "sync")
        assert (status, out) == (69, ""), err
        assert f"{REPO}: the forge did not answer" in err
        status, out, _ = run(it, capsys, "--json")
        assert [one["outcome"] for one in json.loads(out)["failures"]] == ["unavailable"]
        it.world.practice.faults.clear()
        assert run(it, capsys, "--repo", "acme/nope")[0] == 78


def test_an_archived_repository_is_named_and_the_others_are_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with practice_forge(tmp_path, archived=True) as world:
        home = tmp_path / "home"
        (home / "agents").mkdir(parents=True)
        (home / "token").write_text(world.tokens["watchbill-bot"])
        (home / "token").chmod(0o600)
        (home / "fleet.toml").write_text(
            f'[fleet]\nrepos = ["acme/gone", "{REPO}"]\n[github]\napi_url = "{world.url}"\n'
            f'auth = "token:file:{home / "token"}"\n{OWN}'
        )
        write_agent(home, "bosun", agent())
        it = Fleet(home, world)
        assert run(it, capsys)[0] == 78  # acme/gone
        status, out, err = run(it, capsys, "--repo", REPO)
        assert (status, "missing" in out) == (0, True), err
        status, out, err = run(it, capsys, "sync")
        assert (status, out) == (78, "")
        assert "acme/gone: there is no repository acme/gone, or this account may not see it" in err
        assert f"{REPO}: {REPO} is archived" in err
