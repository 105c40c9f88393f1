"""What went wrong in other people's fleets, each case by its system and name: none of it happens here.

Elsewhere in these tests: two pushers of equal claim commits are not both told that they won, and a zero-padded name is
no claim (cqlite#2665, #3900; tests/claims/test_refs.py); a pull request closed without a merge goes to a person
(alfred-os; tests/firing/test_sweep.py); death between any two steps (tests/crash/test_boundaries.py).

Broken on purpose: with pushes made without their expected values C1 had two winners, and in C4, C6, brigade and loom
the old owner moved the new one's claim. With a takeover allowed at once C2, C5, C7 and C8 claimed what was being worked
on. With a renewal that does not look, cqlite's worker ran its whole minute. With open pull requests not looked at, its
adoption began a second generation. With our comment found by its marker alone, C7's stranger was written over.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crash.right import issues, wrong
from crash.room import AT_WORK, PUBLISHED, Room, Story, crossings, room
from crash.zygote import Forked
from support.fleet import LABEL, rested
from support.forge import REPO
from watchbill import render
from watchbill.practice.faults import Rule

CLAIMING = "claim (claim by FIRING): push: before"
HALF_LABELLED = "claim (label active): DELETE /repos/acme/api/issues/N/labels/agent%NAimplement: before"
LABELLED = "claim (comment active): before intent"
RELEASING = "settle (claim ref to released): push: before"
RENEWING = "engine (claim ref to active): push: before"
#: Silent for so long, a host is taken for gone (see QUICK).
GONE_S = 3.3


class Two:
    """Two hosts on one repository; `a` plays the story under test, `b` is in good health."""

    def __init__(self, here: Room) -> None:
        works = Story("a.txt", ({"sleep": 0.4},))
        here.enlist({"a": (works, ""), "long": (Story("a.txt", ({"sleep": 60},)), ""), "red": (Story("red.txt"), "")})
        here.enlist({"renews": (Story("a.txt", ({"sleep": 2.5},)), "")})
        self.a, self.b = here, here.other_host("b")
        self.world = here.it.world
        self.number = self.world.issue("octocat", "Do it", labels=[LABEL])

    def stopped(self, at: str, agent: str = "a", on: Room | None = None) -> Forked:
        """A firing that has been stopped at a boundary, and may go on or be killed."""
        host = on or self.a
        firing = host.start(agent, at=at, how="stop")
        assert host.zygote.wait(firing) == "stopped", firing.out.read_text()
        return firing

    def goes_on(self, firing: Forked) -> dict[str, Any]:
        """How it ended."""
        os.kill(firing.pid, signal.SIGCONT)
        self.a.zygote.wait(firing)
        found: dict[str, Any] = json.loads(firing.out.read_text().splitlines()[0])
        return found

    def fires(self, on: Room, agent: str = "relief") -> dict[str, Any]:
        return on.zygote.fire(on.it.home, agent)

    def silence(self) -> None:
        """`b` has seen that nothing moves for as long as it takes."""
        self.b.sweep()
        time.sleep(GONE_S)

    def given_back(self) -> None:
        """`a` is silent, and the sweep of `b` gives its claim back."""
        self.silence()
        self.b.sweep()
        assert self.labels() == {LABEL}

    def labels(self) -> set[str]:
        return self.a.it.labels(self.number)

    def comments(self) -> int:
        return len(self.a.it.comments(self.number))

    def tip(self) -> str:
        return self.a.it.remote("rev-parse", f"refs/watchbill/claims/{self.number}")

    def generation(self) -> int:
        return issues(self.world)[0].chain[0].generation

    def one_pull(self) -> None:
        """In the end: everything is right, and there is the one pull request."""
        assert wrong([self.a.it, self.b.it], self.a.ran) == []
        assert [issue.phase for issue in issues(self.world)] == ["pr"]


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    with room(tmp_path) as here:
        yield Two(here)


def test_alfred_os_c1_a_tie_in_the_same_second(two: Two) -> None:
    """Both had claimed in one second, and both went on. Here both have seen a free issue, and push: one wins."""
    first, second = two.stopped(CLAIMING), two.stopped(CLAIMING, on=two.b)
    ends = [two.goes_on(first)["outcome"], two.goes_on(second)["outcome"]]
    assert ends == ["pull_request", "lost"]
    two.one_pull()


def test_alfred_os_c2_a_claim_that_nobody_sees_yet(two: Two) -> None:
    """Comments and labels are read as they were before the claim: who owns it is not read from there."""
    owner = two.stopped(AT_WORK)
    reads = r"/repos/acme/api/issues$|/issues/\d+(/comments|/events)?$|/pulls$"
    for writes in range(1, 10):  # as it was when nobody had claimed it
        two.world.practice.faults.clear()
        two.world.practice.faults.add(Rule("stale", "GET", reads, writes=writes, times=None))
        if two.labels() == {LABEL} and two.comments() == 0:
            break
    other = two.fires(two.b)
    assert other["outcome"] == "idle", other
    assert "owns it" in other["reason"]
    two.world.practice.faults.clear()
    assert two.goes_on(owner)["outcome"] == "pull_request"
    two.one_pull()


@pytest.mark.parametrize("path", [r"/issues/\d+/events$", r"/pulls$", "claim refs"])
def test_alfred_os_c3_a_read_that_failed_is_not_an_empty_answer(two: Two, path: str) -> None:
    """A failed read was taken for "no claims there". Here nothing is claimed by who cannot see."""
    two.world.practice.faults.add(Rule("status", "GET", path, status=502, times=None))
    if path == "claim refs":
        two.world.bare.rename(f"{two.world.bare}.away")
    blind = two.fires(two.b)
    if path == "claim refs":
        Path(f"{two.world.bare}.away").rename(two.world.bare)
    assert (blind["outcome"], blind["exit"]) == ("unavailable", 69), blind
    two.world.practice.faults.clear()
    assert two.labels() == {LABEL}
    assert two.fires(two.a)["outcome"] == "pull_request"
    two.one_pull()


def test_alfred_os_c4_an_honest_loser_takes_nothing_from_the_winner(two: Two) -> None:
    """The loser's back-out removed the label that it shared with the winner, and three more firings did it again."""
    loser = two.stopped(CLAIMING, on=two.b)
    winner = two.stopped(AT_WORK)
    assert two.goes_on(loser)["outcome"] == "lost"
    before = two.tip(), two.comments()
    for _ in range(3):
        assert two.fires(two.b)["outcome"] == "idle"
    assert two.labels() == {"agent:in-flight"}
    assert (two.tip(), two.comments()) == before
    assert two.b.it.rows("SELECT count(*) FROM attempts") == [(0,)]
    assert two.goes_on(winner)["outcome"] == "pull_request"
    two.one_pull()


@pytest.mark.parametrize("between", [HALF_LABELLED, LABELLED])
def test_alfred_os_c5_a_sweep_while_labels_and_comment_are_being_written(two: Two, between: str) -> None:
    """A claim in progress looked like one without an owner, aged infinity, and was swept."""
    owner = two.stopped(between)
    two.b.sweep()
    assert two.fires(two.b)["outcome"] == "idle"
    assert two.goes_on(owner)["outcome"] == "pull_request"
    assert two.generation() == 1
    two.one_pull()


@pytest.mark.thorough
def test_alfred_os_c6_a_release_that_comes_after_the_takeover(two: Two) -> None:
    """It outlived its claim and released late: the label of whoever worked by then was gone. Here it changes nothing.

    Also brigade#1147, where the release of an orphan deleted the live claim.
    """
    late = two.stopped(RELEASING, "red")
    two.given_back()
    owner = two.stopped(AT_WORK, on=two.b)
    before = two.tip()
    two.goes_on(late)
    assert two.tip() == before
    assert two.labels() == {"agent:in-flight"}
    assert two.goes_on(owner)["outcome"] == "pull_request"
    two.a.run_on(2)
    two.one_pull()


def test_alfred_os_c7_a_stranger_claims_and_releases_by_comment(two: Two) -> None:
    """Whoever could comment could keep an issue from the fleet, or free one that was being worked on."""
    forged = f"{render.MARKER}\nclaimed by me, and released, and claimed"
    where = f"/repos/{REPO}/issues/{two.number}/comments"
    two.world.ask("stranger", "POST", where, {"body": forged})
    owner = two.stopped(AT_WORK)
    two.world.ask("stranger", "POST", where, {"body": forged})
    assert two.fires(two.b)["outcome"] == "idle"
    assert two.goes_on(owner)["outcome"] == "pull_request"
    assert two.a.it.comments(two.number).count(forged) == 2
    assert two.comments() == 3
    two.one_pull()


def test_alfred_os_c8_a_claim_beyond_fifty_comments(two: Two) -> None:
    """Only the last fifty comments were read: an earlier claim was none."""
    owner = two.stopped(AT_WORK)
    for n in range(60):
        two.world.ask("octocat", "POST", f"/repos/{REPO}/issues/{two.number}/comments", {"body": f"me too {n}"})
    assert two.fires(two.b)["outcome"] == "idle"
    assert two.goes_on(owner)["outcome"] == "pull_request"
    two.one_pull()


def test_alfred_os_an_attempt_is_not_counted_before_anything_was_tried(two: Two) -> None:
    """Its attempt label came before the claim: three crashes there, and an issue went to a person that nobody tried."""
    for _ in range(3):
        dead = two.stopped(CLAIMING)
        two.a.kill(dead)
    landed = two.fires(two.a)
    assert (landed["outcome"], landed["generation"]) == ("pull_request", 1), landed
    assert issues(two.world)[0].chain[0].attempt == 1
    two.one_pull()


@pytest.mark.parametrize("at", [PUBLISHED, "land (pull request): after act"])
def test_alfred_os_a_crash_between_push_pull_request_and_release(two: Two, at: str) -> None:
    """The agent ran again, on a second branch; or the pull request was looked for in a search index minutes old."""
    dead = two.stopped(at)
    two.a.kill(dead)
    two.world.practice.faults.add(Rule("stale", "GET", r"/pulls$", writes=1000, times=2))
    two.a.run_on(4)
    assert len(two.a.ran.read_text().split()) == 1  # the engine ran once
    two.one_pull()


def test_cqlite_3182_an_issue_with_an_open_pull_request_is_not_adopted(two: Two) -> None:
    """Its adoption looked at neither heartbeat nor pull request. (The heartbeat: test_sweep, a living host's claim.)"""
    assert two.fires(two.a)["outcome"] == "pull_request"
    two.world.ask("octocat", "POST", f"/repos/{REPO}/issues/{two.number}/labels", {"labels": [LABEL]})
    for host in (two.a, two.b):
        refused = two.fires(host)
        assert refused["outcome"] == "idle", refused
    assert two.generation() == 1


def test_cqlite_3182_a_lost_claim_is_noticed_at_the_next_renewal(two: Two) -> None:
    """Its heartbeat never read the claim again: a worker that had lost it looked fresh for hours, and worked on."""
    sleeper = two.stopped(AT_WORK, "long")
    two.given_back()
    assert two.fires(two.b)["outcome"] == "pull_request"
    woken = two.goes_on(sleeper)
    assert (woken["outcome"], woken["exit"]) == ("lost", 75), woken
    (took_ms,) = two.a.it.rows("SELECT duration_ms FROM steps WHERE firing = ? AND name = 'engine'", woken["firing"])[0]
    assert took_ms < 50_000  # it was stopped, at the next renewal, within its sixty seconds
    two.one_pull()


def test_cqlite_2665_one_name_an_issue_whatever_it_is_called(two: Two) -> None:
    """A title in the name of the lock, or zeros before the number, made two locks for one issue."""
    head = two.a.it.remote("rev-parse", "main")
    two.a.it.remote("update-ref", f"refs/watchbill/claims/000{two.number}", head)
    two.world.ask("octocat", "PATCH", f"/repos/{REPO}/issues/{two.number}", {"title": "Called otherwise"})
    first, second = two.stopped(CLAIMING), two.stopped(CLAIMING, on=two.b)
    assert [two.goes_on(second)["outcome"], two.goes_on(first)["outcome"]] == ["pull_request", "lost"]
    names = two.a.it.remote("for-each-ref", "--format=%(refname)", "refs/watchbill/claims/").split()
    assert names == [f"refs/watchbill/claims/000{two.number}", f"refs/watchbill/claims/{two.number}"]


@pytest.mark.thorough
def test_brigade_1140_a_renewal_does_not_raise_a_released_claim_from_the_dead(two: Two) -> None:
    """A heartbeat that was under way when the claim was released wrote it back."""
    frozen = two.stopped(RENEWING, "renews")
    two.given_back()
    before = two.tip()
    woken = two.goes_on(frozen)
    assert woken["outcome"] == "lost", woken
    assert two.tip() == before
    assert two.labels() == {LABEL}
    assert two.fires(two.b)["outcome"] == "pull_request"
    two.one_pull()


def test_loom_5282_stopping_one_host_does_not_release_another_s_claim(two: Two) -> None:
    """A cancel on host A took the claim from host B."""
    sleeper = two.stopped(AT_WORK, "long")
    two.given_back()
    owner = two.stopped(AT_WORK, on=two.b)
    before = two.tip()
    os.kill(sleeper.pid, signal.SIGTERM)
    assert two.goes_on(sleeper)["exit"] in (75, 143)
    assert two.tip() == before
    assert two.labels() == {"agent:in-flight"}
    assert two.goes_on(owner)["outcome"] == "pull_request"
    two.one_pull()


def test_opslane_72_one_branch_an_issue_over_all_tries(two: Two) -> None:
    """A time in the name of the branch made every crash a second pull request."""
    dead = two.stopped(AT_WORK, "long")
    two.a.kill(dead)
    two.given_back()
    assert two.fires(two.b)["generation"] == 2
    heads = two.a.it.remote("for-each-ref", "--format=%(refname)", "refs/heads/").split()
    assert heads == ["refs/heads/main", f"refs/heads/watchbill/issue-{two.number}"]
    two.a.run_on(2)
    two.one_pull()


@pytest.mark.parametrize("at", ["before claim", "claim (claim by FIRING): push: executed"])
def test_pilot_5274_a_claim_without_an_execution_does_not_wedge_its_issue(two: Two, at: str) -> None:
    """A claim row that no run ever followed kept an issue for 18 hours. Here the host's next firing takes it."""
    dead = two.stopped(at)
    assert "after worktree" not in {name for _, name in crossings(dead.log)}
    two.a.kill(dead)
    taken = two.fires(two.a)
    if taken["outcome"] == "idle":  # a dead firing is a try: the issue is free, and rests for a quarter of an hour
        assert two.labels() == {LABEL}
        ((next_at,),) = two.a.it.rows("SELECT next_at FROM attempts")
        assert next_at < time.time() + 20 * 60
        rested(two.a.it)
        taken = two.fires(two.a)
    assert taken["outcome"] == "pull_request", taken
    two.one_pull()
