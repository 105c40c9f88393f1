"""A seed becomes exactly that forge, and a mistake in one names its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.forge import make_repository, seed
from watchbill.errors import Fixable
from watchbill.practice.seed import load, plant
from watchbill.practice.server import serve


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "api.git", {"a": "a"})


def test_a_seed_is_planted_with_its_events(bare: Path) -> None:
    issues = [
        {"title": "one", "body": "b", "labels": ["agent:implement"], "author": "stranger", "labeled_by": "octocat"},
        {"title": "two", "labels": ["new"], "author": "octocat"},
    ]
    state = plant(seed(bare, issues=issues), 1000)
    (repo,) = state.repos.values()
    assert [(one.number, one.title, one.author, one.labels) for one in repo.issues.values()] == [
        (1, "one", "stranger", ("agent:implement",)),
        (2, "two", "octocat", ("new",)),
    ]
    assert [(one.kind, one.label, one.actor, one.at) for one in repo.events] == [
        ("labeled", "agent:implement", "octocat", 1000),
        ("labeled", "new", "octocat", 1000),
    ]
    assert "do-not-pickup" in repo.labels
    assert state.users["watchbill-bot"].kind == "Bot"
    assert state.users["acme"].kind == "Organization"


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"issues": [{"title": "x", "author": "nobody"}]}, "repos[0].issues[0].author there is no user 'nobody'"),
        ({"issues": [{"title": "", "author": "octocat"}]}, "repos[0].issues[0].title"),
        ({"issues": [{"titel": "x", "author": "octocat"}]}, "repos[0].issues[0].titel is no key"),
        ({"permissions": {"octocat": "god"}}, "repos[0].permissions.octocat must be one of none, read"),
        ({"permissions": {"ghost": "read"}}, "repos[0].permissions.ghost there is no user"),
        ({"git": "/nowhere/at/all"}, "repos[0].git /nowhere/at/all is no directory"),
        ({"full_name": "api"}, "repos[0].full_name must be OWNER/NAME"),
        ({"labels": "x"}, "repos[0].labels must be a list"),
    ],
)
def test_a_mistake_names_its_place(bare: Path, change: dict[str, Any], place: str) -> None:
    wrong = seed(bare, **change)
    with pytest.raises(Fixable) as raised:
        serve(wrong)
    assert raised.value.id == "WB-PRACTICE-01"
    assert place in raised.value.what
    assert raised.value.outcome == "invalid"


def test_a_worktree_is_no_bare_repository(tmp_path: Path) -> None:
    with pytest.raises(Fixable, match="is no bare repository"):
        plant(seed(tmp_path), 0)


def test_users_are_told_apart(bare: Path) -> None:
    wrong = seed(bare)
    wrong["users"].append({"login": "other", "token": "bot-token"})
    with pytest.raises(Fixable, match=r"users\[3\].token another user has the same token"):
        plant(wrong, 0)


@pytest.mark.parametrize(("text", "why"), [(None, "cannot be read"), ("{", "is no JSON"), ("[]", "must be a JSON")])
def test_a_file_that_is_no_seed(tmp_path: Path, text: str | None, why: str) -> None:
    path = tmp_path / "seed.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(Fixable, match=why):
        load(str(path))


def test_a_file_that_is_one(tmp_path: Path, bare: Path) -> None:
    path = tmp_path / "seed.json"
    path.write_text(json.dumps(seed(bare)))
    with serve(load(str(path))) as practice:
        assert practice.git_url("acme/api") == f"http://127.0.0.1:{practice.port}/acme/api.git"
        assert len(practice.snapshot().repos) == 1
