"""What changes in a repository while a firing is at work: its default branch, its claim refs, another fleet in it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from support.fleet import LABEL, Fleet, agent, finish, fleet, scripted, wait_for, write_agent
from support.forge import REPO

SLOW = scripted({"write": {"path": "half", "content": "half"}}, {"sleep": 2})


def at_work(it: Fleet, number: int, host: Fleet | None = None):  # type: ignore[no-untyped-def]
    firing = (host or it).start("bosun")
    wait_for("the engine to work", lambda: list(((host or it).home / "worktrees").glob("*/tree/half")))
    assert it.labels(number) == {"agent:in-flight"}
    return firing


def test_the_default_branch_is_renamed(tmp_path: Path) -> None:
    """Broken on purpose: with the name as it was at claim, GitHub's 422 made it `needs_human`."""
    with fleet(tmp_path, {"bosun": agent(SLOW)}) as it:
        number = it.world.issue("octocat", "Do it", labels=[LABEL])
        firing = at_work(it, number)
        it.remote("branch", "-m", "main", "trunk")
        it.remote("symbolic-ref", "HEAD", "refs/heads/trunk")
        ended = finish(firing)
        assert ended.outcome == "pull_request", ended
        (pull,) = it.pulls()
        assert pull["base"]["ref"] == "trunk"


def test_somebody_deletes_the_claim_ref(tmp_path: Path) -> None:
    """Never a way to own it twice: the owner lands nothing, and the next generation's number is a new one."""
    with fleet(tmp_path, {"bosun": agent(SLOW), "mate": agent()}) as it:
        number = it.world.issue("octocat", "Do it", labels=[LABEL])
        firing = at_work(it, number)
        it.remote("update-ref", "-d", f"refs/watchbill/claims/{number}")
        ended = finish(firing)
        assert (ended.outcome, ended.status) == ("lost", 75), ended
        assert it.pulls() == []
        assert it.mirror("show", f"refs/watchbill/kept/{ended.object['firing']}:half") == "half"
        it.world.ask("octocat", "POST", f"/repos/{REPO}/issues/{number}/labels", {"labels": [LABEL]})
        again = it.fire("mate")
        assert (again.outcome, again.object["generation"]) == ("pull_request", 2), again


def test_two_fleets_on_one_repository(tmp_path: Path) -> None:
    """Other names of agents and labels, another ledger, other timing: the claim refs are what they share."""
    with fleet(tmp_path, {"bosun": agent(SLOW)}) as one:
        home = tmp_path / "other"
        shutil.copytree(one.home, home)
        shutil.rmtree(home / "agents")
        (home / "agents").mkdir()
        toml = (home / "fleet.toml").read_text()
        (home / "fleet.toml").write_text(toml + '[claims]\nttl = "1h"\n[labels]\nin_flight = "bot:busy"\n')
        two = Fleet(home, one.world)
        write_agent(home, "gunner", agent(labels={"takes": LABEL}))
        number = one.world.issue("octocat", "Do it", labels=[LABEL])
        firing = at_work(one, number)
        one.world.ask("octocat", "POST", f"/repos/{REPO}/issues/{number}/labels", {"labels": [LABEL]})
        ended = two.fire("gunner")
        assert ended.outcome == "idle", ended
        assert "owns it" in ended.reason
        assert finish(firing).outcome == "pull_request"
        assert len(one.pulls()) == 1


def test_a_home_that_was_copied_with_a_live_firing_in_its_ledger(tmp_path: Path) -> None:
    """The copy calls nothing in it its own: it ends no process, releases no claim, takes no issue of the original."""
    with fleet(tmp_path, {"bosun": agent(SLOW), "steward": {"role": "sweep"}}) as one:
        number = one.world.issue("octocat", "Do it", labels=[LABEL])
        firing = at_work(one, number)
        copy = tmp_path / "copy"
        shutil.copytree(one.home, copy, ignore=shutil.ignore_patterns("worktrees", "locks"))
        known = json.loads((copy / "host.json").read_text())
        (copy / "host.json").write_text(json.dumps({**known, "machine": "another"}))
        two = Fleet(copy, one.world)
        assert two.fire("steward", role="sweep").outcome == "idle"
        assert two.fire("bosun").outcome == "idle"
        assert firing.poll() is None
        ended = finish(firing)
        assert (ended.outcome, ended.object["generation"]) == ("pull_request", 1), ended
