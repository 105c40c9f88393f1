"""What was paid for is kept, however its firing came to its end and whoever ended its claim."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from support.fleet import (
    HALF,
    LABEL,
    QUICK,
    Fleet,
    agent,
    ask,
    at_work,
    crew,
    finish,
    fleet,
    killed_at_work,
    other_host,
    scripted,
    until_swept,
    write_agent,
)
from support.forge import REPO


def kept(it: Fleet, firing: str) -> bool:
    return it.mirror("show", f"refs/watchbill/kept/{firing}:half") == "half"


def stopped_at_work(it: Fleet) -> str:
    """The commit of half-done work that a firing, stopped by SIGTERM, left on the remote for the next."""
    firing = at_work(it)
    firing.send_signal(signal.SIGTERM)
    assert finish(firing).outcome == "cancelled"
    return it.remote("rev-parse", "refs/watchbill/wip/1")


@pytest.mark.thorough
def test_half_done_work_of_a_host_that_was_silent_while_another_gave_its_claim_back(tmp_path: Path) -> None:
    """Before: back again, the host found its claim `released`, ended its own row, and removed the worktree.

    Broken on purpose: with `repair._keep_what_is_left` not called, nothing was kept, here and in the next test.
    """
    with fleet(tmp_path, crew(agent(HALF)), toml=QUICK) as one:
        two = other_host(one, "two")
        number = one.world.issue("octocat", "Do it", labels=[LABEL])
        dead = killed_at_work(one)
        until_swept(two, "the claim to be given back", lambda: one.labels(number) == {LABEL})
        ask(one, "POST", f"/issues/{number}/labels", {"labels": ["do-not-pickup"]})  # nobody takes it meanwhile
        assert one.fire("bosun").outcome == "idle"
        assert kept(one, dead)
        assert not (one.home / "worktrees" / dead).exists()


def test_half_done_work_of_claims_that_are_nobody_s_any_more(tmp_path: Path) -> None:
    """One was released by hand; of the other the host forgot that it was its own (a container made anew).

    Before: both rows were ended as superseded, and the next firing removed the worktrees.
    """
    with fleet(tmp_path, crew(agent(HALF))) as it:
        for number in (it.world.issue("octocat", "Do it", labels=[LABEL]) for _ in range(2)):
            dead = killed_at_work(it)
            if number == 1:
                by_hand = dead
                done = it.run("claims", "release", f"{REPO}#{number}", "--to", "human", "--reason", "not now")
                assert done.returncode == 0, done
        host = json.loads((it.home / "host.json").read_text())
        (it.home / "host.json").write_text(json.dumps({**host, "machine": "another"}))
        ask(it, "POST", f"/issues/{number}/labels", {"labels": ["do-not-pickup"]})
        assert it.fire("bosun").outcome == "idle"
        assert (kept(it, by_hand), kept(it, dead)) == (True, True)


def test_work_lands_though_somebody_tidied_up_the_work_in_progress_it_began_from(tmp_path: Path) -> None:
    """Before: the missing ref was taken for a deleted work branch, and checked work was handed to a person.

    Broken on purpose: without the second push of `land._push` it is so again.
    """
    with fleet(tmp_path, crew(agent(HALF))) as it:
        number = it.world.issue("octocat", "Do it", labels=[LABEL])
        stopped_at_work(it)
        write_agent(it.home, "bosun", agent(scripted({"write": {"path": "more", "content": "x"}}, {"sleep": 1})))
        firing = at_work(it, "more")
        it.remote("update-ref", "-d", f"refs/watchbill/wip/{number}")
        assert finish(firing).outcome == "pull_request"
        files = it.remote("ls-tree", "--name-only", f"watchbill/issue-{number}").split()
        assert files == ["README.md", "half", "more"]


def test_work_in_progress_that_does_not_apply_any_more_is_not_thrown_away(tmp_path: Path) -> None:
    """Before: publishing other work deleted it, as "it has become this work"; it was the only copy others could see.

    Broken on purpose: with the deletion in `land._pushed` whatever became of it (`f.earlier`), it was gone.
    """
    with fleet(tmp_path, crew(agent(HALF))) as it:
        number = it.world.issue("octocat", "Do it", labels=[LABEL])
        begun = stopped_at_work(it)
        it.world.branch("main", {"half": "somebody else's\n"})
        write_agent(it.home, "bosun", agent())
        assert it.fire("bosun").outcome == "pull_request"
        assert begun in it.remote("for-each-ref", "refs/watchbill/kept/", f"refs/watchbill/wip/{number}")
