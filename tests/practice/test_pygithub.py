"""What the practice forge answers is whole: the real PyGithub reads every field without coming back for more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import github
import pytest

from support.forge import REPO, World, practice_forge


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with practice_forge(tmp_path) as world:
        yield world


@pytest.fixture
def client(world: World) -> Iterator[github.Github]:
    auth = github.Auth.Token(world.tokens["octocat"])
    client = github.Github(
        auth=auth,
        base_url=world.url,
        retry=None,
        per_page=100,
        seconds_between_requests=None,
        seconds_between_writes=None,
    )
    yield client
    client.close()


def asked(world: World) -> list[str]:
    return [f"{one.method} {one.path}" for one in world.practice.log]


def test_listed_issues_are_whole(world: World, client: github.Github) -> None:
    world.issue("stranger", "x", "body")
    world.ask("octocat", "POST", f"/repos/{REPO}/issues/1/labels", ["agent:implement"])
    repo = client.get_repo(REPO)
    world.practice.log.clear()
    (issue,) = list(repo.get_issues(state="open", labels=["agent:implement"]))
    told: tuple[object, ...] = (
        issue.number,
        issue.title,
        issue.body,
        issue.state,
        issue.locked,
        issue.comments,
        issue.user.login,
        issue.user.type,
        issue.labels[0].name,
        issue.labels[0].color,
        issue.author_association,
        issue.assignees,
        issue.milestone,
        issue.state_reason,
    )
    assert told == (
        1,
        "x",
        "body",
        "open",
        False,
        0,
        "stranger",
        "User",
        "agent:implement",
        "ededed",
        "NONE",
        [],
        None,
        None,
    )
    assert issue.created_at.microsecond == 0
    assert issue.html_url.endswith("/acme/api/issues/1")
    assert len(asked(world)) == 1, asked(world)


def test_comments_events_and_permission_are_whole(world: World, client: github.Github) -> None:
    world.issue("octocat", "x", labels=["agent:implement"])
    repo = client.get_repo(REPO)
    issue = repo.get_issue(1)
    world.practice.log.clear()
    comment = issue.create_comment("hello")
    comment.edit("hello again")
    (listed,) = list(issue.get_comments())
    assert (listed.id, listed.body, listed.user.login) == (comment.id, "hello again", "octocat")
    (event,) = list(issue.get_events())
    assert (event.event, event.label.name, event.actor.login) == ("labeled", "agent:implement", "octocat")
    timeline = list(issue.get_timeline())
    assert [one.event for one in timeline] == ["labeled", "commented"]
    assert repo.get_collaborator_permission("stranger") == "read"
    assert len(asked(world)) == 6, asked(world)


def test_pull_requests_are_whole_and_merge(world: World, client: github.Github) -> None:
    sha = world.branch("work", {"a.py": "1\n"})
    repo = client.get_repo(REPO)
    world.practice.log.clear()
    made = repo.create_pull(base="main", head="work", title="t", body="b", draft=False)
    assert (made.mergeable, made.merged, made.commits, made.changed_files) == (True, False, 1, 1)
    assert (made.head.ref, made.head.sha, made.head.repo.id, made.head.label) == ("work", sha, repo.id, "acme:work")
    (listed,) = list(repo.get_pulls(state="all", head="acme:work"))
    assert (listed.number, listed.title, listed.draft, listed.user.login) == (made.number, "t", False, "octocat")
    assert made.merge(sha=sha).merged
    assert len(asked(world)) == 3, asked(world)
    assert repo.get_git_ref("heads/main").object.sha != sha


def test_repository_and_account_are_whole(world: World, client: github.Github) -> None:
    me = client.get_user()
    assert (me.login, me.type, me.id) == ("octocat", "User", 1001)
    repo = client.get_repo(REPO)
    assert (repo.default_branch, repo.archived, repo.has_issues, repo.permissions.push) == ("main", False, True, True)
    assert repo.owner.login == "acme"
    world.practice.log.clear()
    assert {label.name for label in repo.get_labels()} >= {"agent:implement", "needs:human"}
    assert repo.create_label("new", "00ff00").name == "new"
    assert client.get_repo(repo.id).full_name == REPO
    assert len(asked(world)) == 3, asked(world)
