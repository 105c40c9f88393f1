"""The forge and the remote fail, at the worst moment; each firing ends right, and nothing happens twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.fleet import LABEL, fleet, wait_for
from watchbill.practice.faults import Rule

PULLS = r"/repos/acme/api/pulls$"
LOST = [
    Rule("lost_after", "POST", PULLS),
    Rule("lost_before", "POST", PULLS),
    Rule("5xx_after", "POST", PULLS),
    Rule("lost_after", "POST", r"git-receive-pack", nth=1),
    Rule("lost_after", "POST", r"git-receive-pack", nth=2),
    Rule("lost_after", "POST", r"git-receive-pack", nth=3),
    Rule("lost_before", "POST", r"git-receive-pack", nth=2),
    Rule("5xx_after", "POST", r"git-receive-pack", nth=2),
    Rule("lost_after", "POST", r"/issues/\d+/labels"),
    Rule("lost_after", "POST", r"/issues/\d+/comments"),
    Rule("5xx_after", "PATCH", r"/issues/comments/"),
]


@pytest.mark.parametrize("rule", LOST, ids=[f"{r.kind} {r.path} {r.nth}" for r in LOST])
def test_a_lost_answer(tmp_path: Path, rule: Rule) -> None:
    """Broken on purpose: with `effects._act` not looking, what had been done was only adopted by the next firing."""
    # A pull request that was meant is believed absent after two looks, a grace apart.
    with fleet(tmp_path, toml='[claims]\ngrace = "0s"\n') as it:
        number = it.world.issue("octocat", "Do it", labels=[LABEL])
        it.world.practice.faults.add(rule)
        outcomes = [it.fire("bosun").outcome]
        while outcomes[-1] != "pull_request" and len(outcomes) < 4:
            outcomes.append(it.fire("bosun").outcome)
        if "after" in rule.kind:
            assert outcomes == ["pull_request"]  # done is done, whoever heard of it
        assert len(it.pulls()) == 1, outcomes
        assert len(it.comments(number)) == 1
        if "comments" not in rule.path:
            assert it.labels(number) == {"agent:pr-open"}
        assert it.rows("SELECT count(*) FROM claims WHERE state IN ('intended', 'won')") == [(0,)]
        assert it.rows("SELECT sum(reserved) FROM spend") == [(0,)]


REFUSALS = [
    (Rule("status", "GET", r"/repos/acme/api/issues$", status=500, times=None), "unavailable", 69),
    (Rule("status", "GET", r"/repos/acme/api/issues$", status=401, times=None), "unauthorized", 77),
    (Rule("rate_primary", "GET", r"/repos/acme/api/issues$", times=None, seconds=1), "held", 75),
    (Rule("lost_before", "GET", r"/repos/acme/api/issues/\d+$", times=None), "unavailable", 69),
    (Rule("status", "GET", r"/repos/acme/api/issues/\d+$", status=401, times=None), "unauthorized", 77),
    (Rule("rate_primary", "GET", r"/repos/acme/api/issues/\d+$", times=None, seconds=1), "held", 75),
    (Rule("rate_secondary", "POST", r"/labels$", times=None, seconds=2), "held", 75),  # before the engine starts
    (Rule("status", "", r"git-upload-pack", status=503, times=None), "unavailable", 69),
    # The refs were shown to this credential, and what was then sent was turned away: that is no lack of permission.
    (Rule("status", "POST", r"git-receive-pack", status=403, times=None), "needs_human", 65),
]


@pytest.mark.parametrize(
    ("rule", "outcome", "status"), REFUSALS, ids=[f"{r.kind} {r.status} {r.path}" for r, _, _ in REFUSALS]
)
def test_a_forge_that_does_not_answer_is_no_empty_forge(tmp_path: Path, rule: Rule, outcome: str, status: int) -> None:
    with fleet(tmp_path) as it:
        number = it.world.issue("octocat", "Do it", labels=[LABEL])
        it.world.practice.faults.add(rule)
        ended = it.fire("bosun")
        assert (ended.outcome, ended.status) == (outcome, status), ended
        it.world.practice.faults.clear()
        if outcome != "pull_request":
            assert it.labels(number) == {LABEL}
            wait_for("the next firing", lambda: it.fire("bosun").outcome == "pull_request")  # at once, or after a limit
        assert len(it.pulls()) == 1


def test_a_forge_that_is_not_there(tmp_path: Path) -> None:
    with fleet(tmp_path) as it:
        it.world.issue("octocat", "Do it", labels=[LABEL])
        it.world.practice.close()
        ended = it.fire("bosun")
        assert (ended.outcome, ended.status) == ("unavailable", 69)
        assert "could not look" in ended.reason


def test_a_firing_asks_little(tmp_path: Path) -> None:
    """Requests of one whole firing, and its pushes: counted, so that a new one is noticed."""
    with fleet(tmp_path) as it:
        it.world.issue("octocat", "Warm up", labels=[LABEL])
        it.fire("bosun")
        it.world.issue("octocat", "Do it", labels=[LABEL])
        before = len(it.world.practice.log)
        assert it.fire("bosun").outcome == "pull_request"
        asked = [f"{one.method} {one.path}" for one in list(it.world.practice.log)[before:]]
        rest = [one for one in asked if "/acme/api.git/" not in one]
        pushes = [one for one in asked if one.startswith("POST") and "git-receive-pack" in one]
        assert len(pushes) == 3, pushes
        assert len(rest) <= 16, rest
