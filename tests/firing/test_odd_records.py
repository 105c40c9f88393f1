"""Claim refs that no fleet of ours would have left so: forged, of another repository, deleted."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from support.fleet import LABEL, QUICK, ask, crew, fleet, forged, killed_at, other_host, swept, until_swept

BEYOND = 2**63 - 1
#: What is wrong with it -> its fields, otherwise those of an issue that may be tried again.
ODD = {
    "of another repository": {"repo_id": 999},
    "generation": {"generation": BEYOND},
    "attempt": {"attempt": 5000},
    "attempt, the largest": {"attempt": BEYOND},
    "spent": {"spent": BEYOND},
    "sequence": {"state": "active", "sequence": BEYOND},
    "label event": {"state": "active", "label_event": BEYOND},
}


def test_records_beyond_reason_keep_nobody_from_the_other_issues(tmp_path: Path) -> None:
    """Anyone who may push can write them; a repository made anew has them by itself.

    Before: the first of them was examined by every firing, which died of it (exit 70), and so did the sweep; from
    some, a firing died in its repair for ever.
    Broken on purpose: without the bounds in `claims.record`, and without the repository's id compared in `examine`,
    the first firing ended with exit 70.
    """
    with fleet(tmp_path, crew(), toml=QUICK) as it:
        odd = [it.world.issue("octocat", what, labels=[LABEL]) for what in ODD]
        for number, fields in zip(odd, ODD.values(), strict=True):
            forged(it, number, **{"state": "released", "outcome": "retry", **fields})
        good = it.world.issue("octocat", "Good", labels=[LABEL])
        ended = it.fire("bosun")
        assert (ended.outcome, ended.object["number"]) == ("pull_request", good), ended
        assert swept(it).status == 0
        time.sleep(3.2)  # those that say active have been silent for long enough
        assert swept(it).status == 0
        assert it.fire("bosun").status == 0
        assert it.labels(good) == {"agent:pr-open"}


@pytest.mark.thorough
def test_a_first_generation_once_more_does_not_adopt_the_pull_request_of_the_old_one(tmp_path: Path) -> None:
    """Its ref was deleted, as we advise for a record that cannot be read; another host began anew, and died published.

    Before: the receipt of the old generation 1 was taken for its own, and its finished work was released to a person:
    "its pull request was closed unmerged".
    Broken on purpose: with `land.pull_ordinal` always 0 it never came to its pull request.
    """
    with fleet(tmp_path, crew(), toml=QUICK) as one:
        two = other_host(one, "two")
        number = one.world.issue("octocat", "Do it", labels=[LABEL])
        first = one.fire("bosun").object["pull_request"]
        ask(one, "PATCH", f"/pulls/{first}", {"state": "closed"})
        swept(one)
        one.remote("update-ref", "-d", f"refs/watchbill/claims/{number}")
        ask(one, "POST", f"/issues/{number}/labels", {"labels": [LABEL]})
        killed_at(two, "pull request", "after-intent")
        assert one.record(number).generation == 1
        until_swept(one, "its pull request", lambda: one.subject(number)[3] == "pr")
        states = {pull["number"]: pull["state"] for pull in one.pulls()}
        assert states == {first: "closed", one.record(number).pr: "open"}
        assert one.labels(number) == {"agent:pr-open"}
