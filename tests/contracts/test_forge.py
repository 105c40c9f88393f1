"""The contract of `forge.base`, kept by the GitHub adapter: the real PyGithub against the practice forge.

A further adapter is one more entry in `FORGES`.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.forge import REPO, World, practice_forge
from watchbill.forge import base
from watchbill.forge.github import GitHub, open_forge
from watchbill.practice.faults import Rule


class Hurried:
    """The system's clock, on which waiting is noted and takes no time."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> float:
        return time.time()

    def elapsed(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


FORGES: dict[str, Callable[[World, str], GitHub]] = {
    "github": lambda world, login: world.forge(login, Hurried()),
}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with practice_forge(tmp_path) as world:
        yield world


@pytest.fixture(params=sorted(FORGES))
def forge(world: World, request: pytest.FixtureRequest) -> Iterator[GitHub]:
    with FORGES[request.param](world, "watchbill-bot") as forge:
        yield forge


def asked(world: World) -> list[str]:
    return [f"{one.method} {one.path.removeprefix('/api/v3').split('?')[0]}" for one in world.practice.log]


# Issues


def test_an_issue_is_read_whole(world: World, forge: GitHub) -> None:
    before = int(time.time())
    number = world.issue("stranger", "add() subtracts", "see calc.py")
    world.ask("octocat", "POST", f"/repos/{REPO}/issues/{number}/labels", ["agent:implement"])
    issue = forge.issues.read(REPO, number)
    assert (issue.number, issue.title, issue.body, issue.state) == (1, "add() subtracts", "see calc.py", "open")
    assert (issue.labels, issue.association, issue.comments, issue.locked, issue.is_pull) == (
        ("agent:implement",),
        "NONE",
        0,
        False,
        False,
    )
    assert (issue.author.login, issue.author.kind) == ("stranger", "User")
    assert before <= issue.created_at <= issue.updated_at <= time.time()
    assert issue.url == f"{world.url}/acme/api/issues/1"


def test_a_list_leaves_pull_requests_out_oldest_first(world: World, forge: GitHub) -> None:
    labels = ["agent:implement"]
    for title in ("one", "two", "three"):
        world.issue("octocat", title, labels=labels)
    world.branch("work", {"a": "b"})
    world.ask("octocat", "POST", f"/repos/{REPO}/pulls", {"title": "pr", "head": "work", "base": "main"})
    world.ask("octocat", "POST", f"/repos/{REPO}/issues/4/labels", labels)
    world.ask("octocat", "PATCH", f"/repos/{REPO}/issues/2", {"state": "closed"})
    world.practice.log.clear()
    listing = forge.issues.listed(REPO, "agent:implement", None)
    assert listing.issues is not None
    assert [one.number for one in listing.issues] == [1, 3]
    assert (listing.calls, forge.calls, len(world.practice.log)) == (1, 1, 1)


def test_an_unchanged_list_costs_a_304(world: World, forge: GitHub) -> None:
    world.issue("octocat", "one", labels=["agent:implement"])
    first = forge.issues.listed(REPO, "agent:implement", None)
    assert first.validator
    again = forge.issues.listed(REPO, "agent:implement", first.validator)
    assert again == base.Listing(None, first.validator, 1)
    assert world.practice.log[-1].status == 304
    world.issue("octocat", "two", labels=["agent:implement"])
    changed = forge.issues.listed(REPO, "agent:implement", first.validator)
    assert [one.number for one in changed.issues or ()] == [1, 2]
    assert changed.validator != first.validator


def test_a_long_list_takes_a_request_a_hundred_and_gets_no_validator(world: World, forge: GitHub) -> None:
    """A validator of the first page would hide a change on the second. Broken: it was given out; the last assert."""
    for index in range(201):
        world.issue("octocat", str(index), labels=["agent:implement"])
    world.practice.log.clear()
    listing = forge.issues.listed(REPO, "agent:implement", None)
    assert [one.number for one in listing.issues or ()] == list(range(1, 202))
    assert (listing.calls, len(world.practice.log)) == (3, 3)
    assert listing.validator is None


def test_comments_and_events_are_followed_over_pages(world: World, forge: GitHub) -> None:
    number = world.issue("octocat", "x", labels=["agent:implement"])
    for index in range(101):
        world.ask("stranger", "POST", f"/repos/{REPO}/issues/{number}/comments", {"body": str(index)})
    comments = forge.issues.comments(REPO, number)
    assert [one.body for one in comments] == [str(index) for index in range(101)]
    assert comments[0].author.login == "stranger"
    assert forge.calls == 2
    forge.issues.add_labels(REPO, number, ("agent:in-flight", "needs:human"))
    forge.issues.remove_label(REPO, number, "agent:implement")
    world.ask("octocat", "PATCH", f"/repos/{REPO}/issues/{number}", {"state": "closed", "title": "y"})
    events = forge.issues.label_events(REPO, number)
    assert [(one.label, one.added, one.actor.login) for one in events] == [
        ("agent:implement", True, "octocat"),
        ("agent:in-flight", True, "watchbill-bot"),
        ("needs:human", True, "watchbill-bot"),
        ("agent:implement", False, "watchbill-bot"),
    ]
    assert [one.id for one in events] == sorted(one.id for one in events)
    assert forge.calls == len([one for one in world.practice.log if one.login == "watchbill-bot"]) == 5


def test_a_label_that_is_not_there_is_removed_already_but_an_issue_must_be(world: World, forge: GitHub) -> None:
    number = world.issue("octocat", "x")
    forge.issues.remove_label(REPO, number, "agent:implement")
    with pytest.raises(base.NotFound):
        forge.issues.remove_label(REPO, 999, "agent:implement")


def test_one_comment_is_edited_in_place(world: World, forge: GitHub) -> None:
    number = world.issue("octocat", "x")
    made = forge.issues.comment(REPO, number, "claimed")
    assert (made.body, made.author.login, made.author.kind) == ("claimed", "watchbill-bot", "Bot")
    edited = forge.issues.edit_comment(REPO, made.id, number, "done")
    assert (edited.id, edited.body) == (made.id, "done")
    assert [one.body for one in forge.issues.comments(REPO, number)] == ["done"]
    assert forge.issues.read(REPO, number).comments == 1


# Pull requests


def test_a_pull_request_is_opened_found_and_read(world: World, forge: GitHub) -> None:
    sha = world.branch("watchbill/issue-1", {"a": "b"})
    made = forge.pulls.create(REPO, head="watchbill/issue-1", base="main", title="Fix", body="b", draft=True)
    facts = forge.repository.facts(REPO)
    assert made._replace(author=made.author._replace(id=0)) == base.Pull(
        number=1,
        head_ref="watchbill/issue-1",
        head_sha=sha,
        head_repo_id=facts.id,
        base_ref="main",
        state="open",
        merged=False,
        draft=True,
        title="Fix",
        body="b",
        author=base.Person(0, "watchbill-bot", "Bot"),
        url=f"{world.url}/acme/api/pull/1",
    )
    assert forge.pulls.by_head(REPO, "watchbill/issue-1") == (made,)
    assert forge.pulls.by_head(REPO, "watchbill/issue-2") == ()
    assert forge.pulls.read(REPO, 1) == made
    assert forge.issues.read(REPO, 1).is_pull
    with pytest.raises(base.Refused, match="already exists for acme:watchbill/issue-1") as refused:
        forge.pulls.create(REPO, head="watchbill/issue-1", base="main", title="Fix", body="b", draft=False)
    assert refused.value.status == 422


def test_by_head_sees_closed_ones_and_every_base_newest_first(world: World, forge: GitHub) -> None:
    world.branch("release", {"r": "r"})
    world.branch("work", {"a": "b"})
    world.branch("work-2", {"a": "b"})
    first = forge.pulls.create(REPO, head="work", base="main", title="1", body="", draft=False)
    second = forge.pulls.create(REPO, head="work", base="release", title="2", body="", draft=False)
    forge.pulls.create(REPO, head="work-2", base="main", title="3", body="", draft=False)
    world.ask("octocat", "PUT", f"/repos/{REPO}/pulls/{first.number}/merge", {})
    found = forge.pulls.by_head(REPO, "work")
    assert [(one.number, one.state, one.merged) for one in found] == [
        (second.number, "open", False),
        (first.number, "closed", True),
    ]


# The repository


def test_facts_permissions_account_and_labels(world: World, forge: GitHub) -> None:
    facts = forge.repository.facts(REPO)
    assert facts == base.RepositoryFacts(facts.id, "acme/api", "main", False, True, True)
    assert forge.repository.whoami().kind == "Bot"
    roles = {login: forge.repository.permission(REPO, login) for login in ("octocat", "stranger")}
    assert roles == {"octocat": "write", "stranger": "read"}
    forge.repository.create_label(REPO, "agent:new", "00ff00", "a new one")
    forge.repository.create_label(REPO, "agent:new", "00ff00", "a new one")
    assert "agent:new" in forge.repository.labels(REPO)
    with pytest.raises(base.Refused):
        forge.repository.create_label(REPO, "bad color", "red", "")
    with FORGES["github"](world, "stranger") as theirs:
        assert theirs.repository.facts(REPO).can_push is False


def test_triage_and_maintain_are_told_apart(tmp_path: Path) -> None:
    roles = {"octocat": "maintain", "stranger": "triage", "watchbill-bot": "write"}
    with practice_forge(tmp_path, permissions=roles) as world, world.forge() as forge:
        assert forge.repository.permission(REPO, "octocat") == "maintain"
        assert forge.repository.permission(REPO, "stranger") == "triage"


# What goes wrong


READS: dict[str, Callable[[GitHub], object]] = {
    "listed": lambda forge: forge.issues.listed(REPO, "agent:implement", None),
    "read": lambda forge: forge.issues.read(REPO, 1),
    "comments": lambda forge: forge.issues.comments(REPO, 1),
    "events": lambda forge: forge.issues.label_events(REPO, 1),
    "by_head": lambda forge: forge.pulls.by_head(REPO, "work"),
    "pull": lambda forge: forge.pulls.read(REPO, 2),
    "facts": lambda forge: forge.repository.facts(REPO),
    "permission": lambda forge: forge.repository.permission(REPO, "octocat"),
    "whoami": lambda forge: forge.repository.whoami(),
    "labels": lambda forge: forge.repository.labels(REPO),
}


@pytest.fixture
def furnished(world: World) -> World:
    world.issue("octocat", "x", labels=["agent:implement"])
    world.branch("work", {"a": "b"})
    world.ask("octocat", "POST", f"/repos/{REPO}/pulls", {"title": "pr", "head": "work", "base": "main"})
    world.practice.log.clear()
    return world


@pytest.mark.parametrize("read", sorted(READS))
@pytest.mark.parametrize("rule", [Rule("lost_before"), Rule("status", status=503)], ids=lambda rule: rule.kind)
def test_a_read_that_fails_twice_is_no_answer(furnished: World, forge: GitHub, read: str, rule: Rule) -> None:
    """Broken: a 5xx taken as an empty list; the second try was not made."""
    furnished.practice.faults.add(rule)
    READS[read](forge)  # once is mended by the second try
    assert forge.calls == 2
    furnished.practice.faults.add(rule._replace(times=None))
    with pytest.raises(base.Unreachable) as raised:
        READS[read](forge)
    assert raised.value.status == (503 if rule.kind == "status" else 0)
    assert forge.calls == len(furnished.practice.log) == 4


@pytest.mark.parametrize("kind", ["lost_before", "lost_after", "5xx_after", "status"])
def test_a_comment_is_asked_for_once_and_may_have_happened(furnished: World, forge: GitHub, kind: str) -> None:
    """Broken: comments repeated as if idempotent; Unknown was not raised, and after lost_after two stood there."""
    furnished.practice.faults.add(Rule(kind, method="POST"))
    with pytest.raises(base.Unknown) as raised:
        forge.issues.comment(REPO, 1, "hello")
    assert raised.value.status == (0 if kind.startswith("lost") else 502)
    assert asked(furnished) == [f"POST /repos/{REPO}/issues/1/comments"]
    done = 0 if kind in {"lost_before", "status"} else 1
    assert [one.body for one in forge.issues.comments(REPO, 1)] == ["hello"] * done


@pytest.mark.parametrize("kind", ["lost_before", "lost_after", "5xx_after"])
def test_a_pull_request_is_asked_for_once_and_may_have_happened(furnished: World, forge: GitHub, kind: str) -> None:
    """Broken: creation repeated; Unknown was not raised, and lost_after ended in Refused (422) for our own."""
    furnished.branch("more", {"m": "m"})
    furnished.practice.faults.add(Rule(kind, method="POST"))
    with pytest.raises(base.Unknown):
        forge.pulls.create(REPO, head="more", base="main", title="t", body="b", draft=False)
    assert len(furnished.practice.log) == 1
    assert len(forge.pulls.by_head(REPO, "more")) == (0 if kind == "lost_before" else 1)


@pytest.mark.parametrize("kind", ["lost_before", "lost_after", "5xx_after"])
def test_writes_that_may_be_repeated_are_once(furnished: World, forge: GitHub, kind: str) -> None:
    comment = forge.issues.comment(REPO, 1, "one")
    faults = furnished.practice.faults
    faults.add(Rule(kind, method="POST"), Rule(kind, method="DELETE"), Rule(kind, method="PATCH"))
    forge.issues.add_labels(REPO, 1, ("needs:human",))
    forge.issues.remove_label(REPO, 1, "agent:implement")
    assert forge.issues.edit_comment(REPO, comment.id, 1, "two").body == "two"
    assert forge.issues.read(REPO, 1).labels == ("needs:human",)
    faults.clear()
    faults.add(Rule("status", method="POST", times=None))
    with pytest.raises(base.Unknown):
        forge.issues.add_labels(REPO, 1, ("agent:done",))


def test_a_secondary_limit_says_how_long(furnished: World, forge: GitHub) -> None:
    furnished.practice.faults.add(Rule("rate_secondary", seconds=90))
    with pytest.raises(base.RateLimited) as raised:
        forge.issues.comment(REPO, 1, "x")
    assert raised.value.secondary
    assert raised.value.until == pytest.approx(time.time() + 90, abs=5)
    assert raised.value.status == 403
    assert len(furnished.practice.log) == 1  # never tried again


def test_a_primary_limit_says_until_when(furnished: World, forge: GitHub) -> None:
    furnished.practice.faults.add(Rule("rate_primary", seconds=900))
    with pytest.raises(base.RateLimited) as raised:
        forge.issues.read(REPO, 1)
    assert not raised.value.secondary
    assert raised.value.until == pytest.approx(time.time() + 900, abs=5)


@pytest.mark.parametrize(
    ("rule", "until_known"),
    [
        (Rule("status", status=403, body='{"message": "You have exceeded a secondary rate limit."}'), False),
        (Rule("status", status=429, headers={"Retry-After": "5"}), True),
        (Rule("status", status=429), False),
    ],
)
def test_a_limit_in_other_clothes(furnished: World, forge: GitHub, rule: Rule, until_known: bool) -> None:
    furnished.practice.faults.add(rule)
    with pytest.raises(base.RateLimited) as raised:
        forge.issues.read(REPO, 1)
    assert raised.value.secondary
    assert (raised.value.until is not None) is until_known


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (301, base.NotFound),
        (307, base.NotFound),
        (401, base.Unauthorized),
        (403, base.Unauthorized),
        (404, base.NotFound),
        (409, base.Refused),
        (410, base.NotFound),
        (422, base.Refused),
    ],
)
def test_every_refusal_has_its_error(
    furnished: World, forge: GitHub, status: int, error: type[base.ForgeError]
) -> None:
    furnished.practice.faults.add(Rule("status", status=status, times=None))
    for ask in (lambda: forge.issues.read(REPO, 1), lambda: forge.issues.comment(REPO, 1, "x")):
        with pytest.raises(error) as raised:
            ask()
        assert raised.value.status == status
    assert forge.calls == 2  # none is tried again


def test_whose_token_it_is_decides(tmp_path: Path) -> None:
    with practice_forge(tmp_path, private=True, permissions={"octocat": "write"}) as world:
        world.tokens["impostor"] = "wrong"
        with world.forge("stranger") as forge, pytest.raises(base.NotFound):
            forge.issues.listed(REPO, "agent:implement", None)
        with world.forge("impostor") as forge, pytest.raises(base.Unauthorized):
            forge.repository.whoami()


def test_a_reader_may_not_label(furnished: World) -> None:
    with furnished.forge("stranger") as forge, pytest.raises(base.Unauthorized) as raised:
        forge.issues.add_labels(REPO, 1, ("agent:implement",))
    assert raised.value.status == 403


def test_a_forge_that_is_not_there_is_unreachable_and_a_write_to_it_unknown() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        clock = Hurried()
        with open_forge(f"http://127.0.0.1:{taken.getsockname()[1]}", "token", clock) as forge:
            with pytest.raises(base.Unreachable) as raised:
                forge.issues.listed(REPO, "agent:implement", None)
            assert raised.value.status == 0
            assert (forge.calls, len(clock.slept)) == (2, 1)
            with pytest.raises(base.Unknown):
                forge.issues.comment(REPO, 1, "x")


@pytest.mark.parametrize("body", ["<html>log in to the Wi-Fi</html>", '{"cut": ', "null", '{"message": "a dict"}'])
def test_what_is_not_the_forges_answer_is_no_answer(furnished: World, forge: GitHub, body: str) -> None:
    """Broken: a 200 that is no list taken as an empty one; nothing was raised."""
    furnished.practice.faults.add(Rule("status", status=200, body=body, times=None))
    with pytest.raises(base.Unreachable):
        forge.issues.listed(REPO, "agent:implement", None)


def test_the_client_library_neither_sleeps_nor_asks_more(furnished: World, forge: GitHub) -> None:
    """Eight writes and two reads; PyGithub's own pacing would take 1 s a write. Broken: its defaults left on; 7.5 s."""
    began = time.monotonic()
    for index in range(8):
        forge.issues.add_labels(REPO, 1, (f"label-{index}",))
    forge.issues.read(REPO, 1)
    forge.pulls.by_head(REPO, "work")
    assert time.monotonic() - began < 5
    assert forge.calls == len(furnished.practice.log) == 10


def test_a_connection_gone_cold_is_not_used_for_a_write(furnished: World) -> None:
    """What lies between may have forgotten it, and the write would end in Unknown. Broken: the idle rule left out."""
    clock = Cold()
    with furnished.forge(clock=clock) as forge:
        forge.issues.read(REPO, 1)
        forge.issues.comment(REPO, 1, "at once")
        clock.passed += 31
        forge.issues.comment(REPO, 1, "after an engine ran")
    first, second, third = (one.connection for one in furnished.practice.log)
    assert first == second != third


class Cold(Hurried):
    """A clock that a test moves on."""

    passed = 0.0

    def elapsed(self) -> float:
        return self.passed


@pytest.mark.parametrize(("url", "token"), [("http://127.0.0.1:1", ""), ("api.github.com", "t"), ("ftp://x", "t")])
def test_what_cannot_be_a_forge_is_said_at_once(url: str, token: str) -> None:
    with pytest.raises(ValueError):
        open_forge(url, token)


def test_the_netrc_of_the_person_is_not_asked(furnished: World, own_world: Path) -> None:
    (own_world / ".netrc").write_text("machine 127.0.0.1 login octocat password octocat-token\n")
    with furnished.forge() as forge:
        assert forge.repository.whoami().login == "watchbill-bot"


def test_an_enterprise_address_is_kept_over_pages(world: World) -> None:
    for index in range(101):
        world.issue("octocat", str(index), labels=["agent:implement"])
    world.practice.log.clear()
    with open_forge(f"{world.url}/api/v3/", world.tokens["watchbill-bot"]) as forge:
        assert len(forge.issues.listed(REPO, "agent:implement", None).issues or ()) == 101
    assert [one.path.startswith("/api/v3/repos/") for one in world.practice.log] == [True, True]
