"""The sweep: what other hosts left, and what people did on the forge, is brought to its end; whoever is at work is left
alone. Role script, real git, real HTTP, several homes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from support.fleet import (
    HALF,
    LABEL,
    QUICK,
    agent,
    ask,
    at_work,
    crew,
    finish,
    fleet,
    killed_at,
    killed_at_work,
    other_host,
    scripted,
    swept,
    tree_of,
    until_swept,
    wait_for,
    write_agent,
)
from support.forge import git
from watchbill.claims import record as codec
from watchbill.practice.faults import Rule


def test_nothing_to_put_right(tmp_path: Path) -> None:
    with fleet(tmp_path, crew()) as it:
        number = it.world.issue("octocat", "Do it", labels=[LABEL])
        it.fire("bosun")
        before = len(it.world.practice.log)
        ended = swept(it)
        assert (ended.outcome, ended.status) == ("idle", 0), ended
        assert "1 claims" in ended.reason
        assert it.labels(number) == {"agent:pr-open"}
        writes = [line for line in list(it.world.practice.log)[before:] if line.method not in ("GET", "HEAD")]
        assert not [line for line in writes if line.path.startswith("/repos")], writes


@pytest.mark.parametrize(
    ("merged", "label", "state"), [(True, "agent:done", "done"), (False, "needs:human", "released")]
)
def test_what_people_did_with_the_pull_request(tmp_path: Path, merged: bool, label: str, state: str) -> None:
    """Merged is done; closed is an answer. The branch goes aside, so that nobody opens it again who wakes up late."""
    with fleet(tmp_path, crew()) as it:
        number = it.world.issue("octocat", "Do it", labels=[LABEL])
        pull = it.fire("bosun").object["pull_request"]
        head = it.remote("rev-parse", f"refs/heads/watchbill/issue-{number}")
        ask(it, *(("PUT", f"/pulls/{pull}/merge", {}) if merged else ("PATCH", f"/pulls/{pull}", {"state": "closed"})))
        ended = swept(it)
        assert ended.outcome == "published", ended
        how = "merged, so it is done" if merged else "closed unmerged, so it is released(human)"
        assert ended.reason == f"put right: acme/api#{number}: its pull request was {how} now; labels put right"
        assert it.labels(number) == {label}
        assert it.subject(number)[3] == state
        assert it.remote("for-each-ref", "refs/heads/watchbill/") == ""
        assert it.remote("rev-parse", f"refs/watchbill/kept/{number}/g1") == head
        assert swept(it).outcome == "idle"
        assert it.fire("bosun").outcome == "idle"
        (comment,) = it.comments(number)
        assert ("merged" if merged else "closed unmerged") in comment


@pytest.mark.parametrize(
    "seen", [True, pytest.param(False, marks=pytest.mark.thorough)], ids=["seen open", "not seen open"]
)
def test_a_closed_pull_request_that_is_opened_again_and_merged(tmp_path: Path, seen: bool) -> None:
    """`seen`: a sweep comes by while it is open again.

    Before: seen, the comment said "closed unmerged" for ever; not seen, the issue stayed with a person for ever.
    Broken on purpose: with the comment's ordinal always 0, "closed unmerged" stayed.
    """
    with fleet(tmp_path, crew()) as it:
        number = it.world.issue("octocat", "Do it", labels=[LABEL])
        pull = it.fire("bosun").object["pull_request"]
        ask(it, "PATCH", f"/pulls/{pull}", {"state": "closed"})
        swept(it)
        assert it.labels(number) == {"needs:human"}
        assert "closed unmerged" in it.comments(number)[0]
        # GitHub's "Restore branch", then "Reopen pull request".
        it.remote("update-ref", f"refs/heads/watchbill/issue-{number}", f"refs/watchbill/kept/{number}/g1")
        ask(it, "PATCH", f"/pulls/{pull}", {"state": "open"})
        if seen:
            swept(it)
            assert (it.labels(number), it.subject(number)[3]) == ({"agent:pr-open"}, "pr")
            assert "closed unmerged" not in it.comments(number)[0]
        ask(it, "PUT", f"/pulls/{pull}/merge", {})
        until_swept(it, "the end", lambda: it.labels(number) == {"agent:done"})
        assert it.subject(number)[3] == "done"
        assert len(it.pulls()) == 1


def test_a_label_put_back_is_not_eaten_by_the_sweep(tmp_path: Path) -> None:
    """Broken on purpose: with `new_word` always False the person's label was gone before anybody could take it."""
    with fleet(tmp_path, crew()) as it:
        number = it.world.issue("octocat", "Do it", labels=[LABEL])
        first = it.fire("bosun").object["pull_request"]
        ask(it, "PATCH", f"/pulls/{first}", {"state": "closed"})
        ask(it, "POST", f"/issues/{number}/labels", {"labels": [LABEL]})
        swept(it)
        assert it.labels(number) == {LABEL}
        again = it.fire("bosun")
        assert (again.outcome, again.object["generation"]) == ("pull_request", 2), again
        assert again.object["pull_request"] > first


def test_a_silent_host_s_claim_is_given_back_and_taken(tmp_path: Path) -> None:
    """No person is needed: after ttl and grace the sweep of any host gives it back. The zombie then lands nothing."""
    half = {"write": {"path": "half", "content": "half"}}
    zombie_engine = agent(scripted(half, {"sleep": 4}, {"write": {"path": "z", "content": "z"}}))
    with fleet(tmp_path, crew(zombie_engine), toml=QUICK) as one:
        two = other_host(one, "two")
        write_agent(two.home, "bosun", agent())
        number = one.world.issue("octocat", "Do it", labels=[LABEL])
        zombie = at_work(one)
        tree = tree_of(zombie)
        for pid in tree:
            os.kill(pid, signal.SIGSTOP)
        until_swept(two, "the claim to be given back", lambda: one.labels(number) == {LABEL})
        (comment,) = one.comments(number)
        assert "silent" in comment
        taken = two.fire("bosun")
        assert (taken.outcome, taken.object["generation"]) == ("pull_request", 2), taken
        for pid in reversed(tree):
            os.kill(pid, signal.SIGCONT)
        woken = finish(zombie)
        assert (woken.outcome, woken.status) == ("lost", 75), woken
        assert len(one.pulls()) == 1
        assert one.labels(number) == {"agent:pr-open"}


def test_a_living_host_s_claim_is_left_alone(tmp_path: Path) -> None:
    """It renews: its tip never stands still long enough. Broken on purpose: with `sightings` keyed by the issue alone
    (the tip left out) the sweep released it, and the firing ended `lost`."""
    slow = agent(scripted({"sleep": 4}, {"write": {"path": "a", "content": "a"}}))
    with fleet(tmp_path, crew(slow), toml=QUICK) as one:
        two = other_host(one, "two")
        number = one.world.issue("octocat", "Do it", labels=[LABEL])
        working = one.start("bosun")
        wait_for("the claim", lambda: "agent:in-flight" in one.labels(number))
        while working.poll() is None:
            assert swept(two).outcome == "idle"
            time.sleep(0.2)
        assert finish(working).outcome == "pull_request"


@pytest.mark.parametrize("where", ["after-intent", pytest.param("after-act", marks=pytest.mark.thorough)])
def test_published_work_is_rolled_forward_by_any_host(tmp_path: Path, where: str) -> None:
    """The host that did the work is away; another opens its pull request, once, without running an agent."""
    with fleet(tmp_path, crew(), toml=QUICK) as one:
        two = other_host(one, "two")
        number = one.world.issue("octocat", "Do it", labels=[LABEL])
        killed_at(one, "pull request", where)
        until_swept(two, "the pull request", lambda: one.subject(number)[3] == "pr")
        (pull,) = one.pulls()
        assert pull["body"].startswith(f"Closes #{number}")
        assert [label["name"] for label in pull["labels"]] == ["agent:authored"]
        assert one.labels(number) == {"agent:pr-open"}
        assert two.rows("SELECT count(*) FROM steps WHERE name = 'engine'") == [(0,)]
        # The host comes back after all: nothing is done again.
        one.fire("bosun")
        assert len(one.pulls()) == 1
        assert one.rows("SELECT count(*) FROM claims WHERE state IN ('intended', 'won')") == [(0,)]
        (ran,) = one.rows("SELECT count(*) FROM steps WHERE name = 'engine'")
        assert ran == (1,)


def test_a_pull_request_that_cannot_be_opened_goes_to_a_person(tmp_path: Path) -> None:
    """Five times no, then the claim is released and the work put aside; nobody is asked for ever."""
    with fleet(tmp_path, crew(), toml='[claims]\ngrace = "0s"\n') as it:
        number = it.world.issue("octocat", "Do it", labels=[LABEL])
        it.world.practice.faults.add(Rule("status", "POST", r"/repos/acme/api/pulls$", status=422, times=100))
        it.fire("bosun")
        until_swept(it, "a person to have it", lambda: it.labels(number) == {"needs:human"})
        assert it.pulls() == []
        assert it.rows("SELECT count FROM attempts WHERE role = 'roll forward'") == [(5,)]
        assert it.remote("show", f"refs/watchbill/kept/{number}/g1:done.txt") == "done"
        assert it.remote("for-each-ref", "refs/heads/watchbill/") == ""


def test_torn_labels_and_labels_that_people_moved(tmp_path: Path) -> None:
    with fleet(tmp_path, crew()) as it:
        torn = it.world.issue("octocat", "Torn", labels=[LABEL])
        bare = it.world.issue("octocat", "Bare", labels=[LABEL])
        for _ in range(2):
            assert it.fire("bosun").outcome == "pull_request"
        ask(it, "POST", f"/issues/{torn}/labels", {"labels": ["agent:in-flight"]})
        ask(it, "DELETE", f"/issues/{bare}/labels/agent:pr-open")
        assert swept(it).outcome == "published"
        assert (it.labels(torn), it.labels(bare)) == ({"agent:pr-open"}, {"agent:pr-open"})


def test_closed_before_its_pull_request_was_opened(tmp_path: Path) -> None:
    """The owner dies after the push; the issue is closed; whoever finds it opens nothing."""
    with fleet(tmp_path, crew(), toml=QUICK) as one:
        two = other_host(one, "two")
        number = one.world.issue("octocat", "Do it", labels=[LABEL])
        killed_at(one, "pull request", "after-intent")
        ask(one, "PATCH", f"/issues/{number}", {"state": "closed"})
        until_swept(two, "the claim to end", lambda: one.subject(number)[3] == "released")
        assert one.pulls() == []
        assert one.remote("show", f"refs/watchbill/kept/{number}/g1:done.txt") == "done"


def test_a_record_that_makes_no_sense_is_held_and_a_person_s_after_a_day(tmp_path: Path) -> None:
    with fleet(tmp_path, crew()) as it:
        number = it.world.issue("octocat", "Do it", labels=[LABEL])
        commit = git("--git-dir", it.world.bare, "commit-tree", git("--git-dir", it.world.bare, "mktree", given=""),
                     given='claim #1 g9.0 active x [skip ci]\n\n{"version":2}\n')  # fmt: skip
        it.remote("update-ref", f"refs/watchbill/claims/{number}", commit)
        assert isinstance(codec.parse(it.remote("log", "-1", "--format=%B", commit) + "\n"), codec.Unreadable)
        assert it.fire("bosun").outcome == "idle"
        assert swept(it).outcome == "idle"
        assert it.labels(number) == {LABEL}
        it.change("UPDATE sightings SET first_seen_ms = first_seen_ms - 90000000")
        swept(it)
        assert it.labels(number) == {"needs:human"}
        assert it.remote("rev-parse", f"refs/watchbill/claims/{number}") == commit


def test_a_stopped_firing_s_work_is_gone_on_with_by_another_host(tmp_path: Path) -> None:
    """SIGTERM in the middle: the half-done work goes, scanned, to the remote; the next generation starts from it."""
    with fleet(tmp_path, crew(agent(HALF))) as one:
        two = other_host(one, "two")
        write_agent(two.home, "bosun", agent())
        number = one.world.issue("octocat", "Do it", labels=[LABEL])
        firing = at_work(one)
        firing.send_signal(signal.SIGTERM)
        assert finish(firing).outcome == "cancelled"
        assert one.labels(number) == {LABEL}
        assert one.remote("show", f"refs/watchbill/wip/{number}:half") == "half"
        ended = two.fire("bosun")
        assert (ended.outcome, ended.object["generation"]) == ("pull_request", 2), ended
        files = one.remote("ls-tree", "--name-only", f"watchbill/issue-{number}").split()
        assert files == ["README.md", "done.txt", "half"]
        assert one.remote("for-each-ref", "refs/watchbill/wip/") == ""
        assert len(one.remote("rev-list", f"main..watchbill/issue-{number}").split()) == 1


def test_work_in_progress_with_a_secret_in_it_stays_on_its_host(tmp_path: Path) -> None:
    leak = scripted({"write": {"path": "key", "content": "ghp_" + "a1B2" * 9}}, {"sleep": 60})
    with fleet(tmp_path, crew(agent(leak))) as it:
        number = it.world.issue("octocat", "Do it", labels=[LABEL])
        firing = at_work(it, "key")
        firing.send_signal(signal.SIGTERM)
        ended = finish(firing)
        assert ended.outcome == "cancelled"
        assert it.remote("for-each-ref", "refs/watchbill/wip/") == ""
        assert it.labels(number) == {LABEL}
        assert it.mirror("for-each-ref", f"refs/watchbill/kept/{ended.object['firing']}") != ""


@pytest.mark.parametrize(("how", "outcome"), [("closed", "cancelled"), ("deleted", "needs_human")])
def test_an_issue_that_ends_stops_the_engine_at_the_next_renewal(tmp_path: Path, how: str, outcome: str) -> None:
    """Not when it is through. Before: a deleted issue (or one moved elsewhere) was noted, and paid for to its end.

    Broken on purpose: without the look in `claim.renew` the engine ran its 60 seconds.
    """
    with fleet(tmp_path, crew(agent(HALF)), toml='[claims]\nttl = "10s"\nrenew = "1s"\n') as it:
        number = it.world.issue("octocat", "Do it", labels=[LABEL])
        firing = at_work(it)
        if how == "closed":
            ask(it, "PATCH", f"/issues/{number}", {"state": "closed"})
        else:
            it.world.practice.faults.add(Rule("status", "GET", rf"/issues/{number}$", status=404, times=None))
        ended = finish(firing, timeout=30)
        assert ended.outcome == outcome, ended
        assert it.record(number).outcome == "human"
        assert it.mirror("show", f"refs/watchbill/kept/{ended.object['firing']}:half") == "half"


def test_a_repository_out_of_sight_is_no_issue_that_is_gone(tmp_path: Path) -> None:
    """The token has lost its access for a while, or the repository has a new name; git goes on.

    Before: what a dead firing owned was released to a person: "its issue is gone".
    Broken on purpose: without the second read in `poll.issue_of` it was released to a person.
    """
    with fleet(tmp_path, crew(agent(HALF)), toml=QUICK) as it:
        number = it.world.issue("octocat", "Do it", labels=[LABEL])
        dead = killed_at_work(it)
        it.world.practice.faults.add(Rule("status", "", r"^/repos/acme/api(/|$)", status=404, times=None))
        it.fire("bosun")
        assert it.record(number).outcome != "human"
        it.world.practice.faults.clear()
        until_swept(it, "the claim to be given back", lambda: it.labels(number) == {LABEL})
        assert it.mirror("show", f"refs/watchbill/kept/{dead}:half") == "half"
