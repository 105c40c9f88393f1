"""The fault plan: each kind does exactly what it says, to exactly the requests it names."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.forge import REPO, World, practice_forge
from watchbill.practice.faults import Rule

ISSUES = f"/repos/{REPO}/issues"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with practice_forge(tmp_path) as world:
        world.issue("octocat", "x")
        yield world


def comment(world: World) -> int:
    try:
        return world.ask("octocat", "POST", f"{ISSUES}/1/comments", {"body": "hi"}).status
    except (http.client.RemoteDisconnected, ConnectionError):
        return 0


def comments(world: World) -> int:
    return len(world.practice.snapshot().repos[world.ask("", "GET", f"/repos/{REPO}").body["id"]].comments)


@pytest.mark.parametrize(
    ("rule", "status", "done"),
    [
        (Rule("status", status=503), 503, 0),
        (Rule("lost_before"), 0, 0),
        (Rule("lost_after"), 0, 1),
        (Rule("5xx_after"), 502, 1),
        (Rule("rate_primary"), 403, 0),
        (Rule("rate_secondary"), 403, 0),
        (Rule("delay", delay_s=0.05), 201, 1),
    ],
    ids=lambda value: value.kind if isinstance(value, Rule) else str(value),
)
def test_what_a_write_meets_and_whether_it_was_done(world: World, rule: Rule, status: int, done: int) -> None:
    world.practice.faults.add(rule._replace(method="POST", path="comments$"))
    assert comment(world) == status
    assert comments(world) == done
    logged = [one for one in world.practice.log if one.method == "POST"][-1]
    assert (logged.fault, logged.status, logged.login) == (rule.kind, status, "octocat")
    assert comment(world) == 201  # once only


def test_limits_say_until_when(world: World) -> None:
    world.practice.faults.add(Rule("rate_primary", seconds=90), Rule("rate_secondary", nth=2, seconds=7))
    primary = world.ask("octocat", "GET", ISSUES)
    assert primary.headers["x-ratelimit-remaining"] == "0"
    assert primary.body["message"].startswith("API rate limit exceeded")
    secondary = world.ask("octocat", "GET", ISSUES)
    assert (secondary.status, secondary.headers["retry-after"]) == (403, "7")
    assert "secondary rate limit" in secondary.body["message"]


def test_nth_and_times_and_who(world: World) -> None:
    world.practice.faults.add(Rule("status", path="/issues$", method="GET", nth=2, times=2, login="octocat"))
    assert world.ask("stranger", "GET", ISSUES).status == 200
    assert [world.ask("octocat", "GET", ISSUES).status for _ in range(4)] == [200, 502, 502, 200]


def test_a_stale_list_is_that_of_some_writes_ago_and_a_read_by_number_is_not(world: World) -> None:
    world.issue("octocat", "y")
    world.practice.faults.add(Rule("stale", path="/issues$", writes=1))
    assert [one["number"] for one in world.ask("", "GET", ISSUES).body] == [1]
    assert world.ask("", "GET", f"{ISSUES}/2").status == 200
    assert [one["number"] for one in world.ask("", "GET", ISSUES).body] == [2, 1]
    world.practice.faults.add(Rule("stale", path="/issues$", seconds=3600))
    assert world.ask("", "GET", ISSUES).body == []


def test_a_stale_list_of_pull_requests_does_not_look_at_the_branches(world: World) -> None:
    sha = world.branch("work", {"a": "b"})
    world.ask("watchbill-bot", "POST", f"/repos/{REPO}/pulls", {"title": "t", "head": "work", "base": "main"})
    moved = world.branch("work", {"a": "c"}, "work")
    world.practice.faults.add(Rule("stale", path="/pulls$", seconds=0))
    assert world.ask("", "GET", f"/repos/{REPO}/pulls").body[0]["head"]["sha"] == sha
    assert world.ask("", "GET", f"/repos/{REPO}/pulls").body[0]["head"]["sha"] == moved


def test_faults_and_log_over_http(world: World) -> None:
    assert world.ask("", "POST", "/_practice/faults", {"kind": "status", "path": "/user$", "status": 500}).status == 204
    assert world.ask("octocat", "GET", "/user").status == 500
    assert world.ask("", "POST", "/_practice/faults", [{"kind": "status", "times": None}]).status == 204
    assert world.ask("octocat", "GET", "/user").status == 502
    assert world.ask("", "DELETE", "/_practice/faults").status == 204
    assert world.ask("octocat", "GET", "/user").status == 200
    for wrong in ({"kind": "gremlins"}, {"kynd": "status"}, {"kind": "status", "path": "("}):
        assert world.ask("", "POST", "/_practice/faults", wrong).status == 400
    log = world.ask("", "GET", "/_practice/log").body
    assert [(one["path"], one["status"], one["login"]) for one in log[-3:]] == [
        ("/user", 500, "octocat"),
        ("/user", 502, "octocat"),
        ("/user", 200, "octocat"),
    ]


def test_closing_does_not_wait_for_a_delay(tmp_path: Path) -> None:
    """Broken: the delay as a plain sleep; closing took its 30 seconds."""
    with practice_forge(tmp_path / "second") as world:
        world.practice.faults.add(Rule("delay", delay_s=30, path="/user$"))
        connection = http.client.HTTPConnection("127.0.0.1", world.practice.port, timeout=20)
        waiting = threading.Thread(target=_ask_user, args=(connection,))
        waiting.start()
        while not world.practice.faults.fitted():
            time.sleep(0.005)
        began = time.monotonic()
    assert time.monotonic() - began < 10
    waiting.join()
    connection.close()


def _ask_user(connection: http.client.HTTPConnection) -> None:
    # Answered after all, or hung up on: both are an end.
    with contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/user")
        connection.getresponse()
