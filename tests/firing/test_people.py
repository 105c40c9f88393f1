"""People have the last word: they close, reject, label again, and say no while an agent works."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from support.fleet import LABEL, Fleet, agent, finish, fleet, python, scripted, wait_for, write_agent
from support.forge import REPO

SLOW = scripted({"write": {"path": "half", "content": "half"}}, {"sleep": 2})


def ask(it: Fleet, method: str, path: str, body: object = None) -> None:
    reply = it.world.ask("octocat", method, f"/repos/{REPO}{path}", body)
    assert reply.status < 300, reply


def test_a_rejected_pull_request_is_an_answer_until_somebody_labels_again(tmp_path: Path) -> None:
    with fleet(tmp_path) as it:
        number = it.world.issue("octocat", "Do it", labels=[LABEL])
        first = it.fire("bosun").object["pull_request"]
        ask(it, "PATCH", f"/pulls/{first}", {"state": "closed"})
        assert it.fire("bosun").outcome == "idle"
        ask(it, "POST", f"/issues/{number}/labels", {"labels": [LABEL]})
        write_agent(it.home, "bosun", agent(scripted({"write": {"path": "better.txt", "content": "better\n"}})))
        second = it.fire("bosun")
        assert (second.outcome, second.object["generation"]) == ("pull_request", 2), second
        assert second.object["pull_request"] > first
        states = {pull["number"]: pull["state"] for pull in it.pulls()}
        assert states == {first: "closed", second.object["pull_request"]: "open"}
        files = it.remote("ls-tree", "--name-only", f"watchbill/issue-{number}").split()
        assert files == ["README.md", "better.txt"]  # from the default branch, not on top of what was rejected
        assert it.labels(number) == {"agent:pr-open"}
        assert len(it.comments(number)) == 1


def test_what_went_to_a_person_comes_back_with_a_new_label_and_new_attempts(tmp_path: Path) -> None:
    """Broken on purpose: with the attempts kept, the issue was `attempts-exhausted` for ever."""
    with fleet(tmp_path, {"bosun": agent(python("raise SystemExit(1)"))}) as it:
        number = it.world.issue("octocat", "Do it", labels=[LABEL])
        for _ in range(3):
            assert it.fire("bosun").outcome == "engine_failed"
            with contextlib.closing(sqlite3.connect(it.home / "ledger.db")) as ledger, ledger:
                ledger.execute("UPDATE attempts SET next_at = 0")  # the waiting itself is not what is tested
        assert it.labels(number) == {"needs:human"}
        assert it.fire("bosun").outcome == "idle"
        write_agent(it.home, "bosun", agent())
        ask(it, "POST", f"/issues/{number}/labels", {"labels": [LABEL]})
        again = it.fire("bosun")
        assert (again.outcome, again.object["generation"]) == ("pull_request", 4), again


@pytest.mark.parametrize(
    ("path", "body", "label"),
    [("/labels", {"labels": ["do-not-pickup"]}, {"do-not-pickup", "needs:human"}), ("", {"state": "closed"}, None)],
    ids=["do-not-pickup", "closed"],
)
def test_saying_no_while_it_works(tmp_path: Path, path: str, body: object, label: set[str] | None) -> None:
    with fleet(tmp_path, {"bosun": agent(SLOW)}) as it:
        number = it.world.issue("octocat", "Do it", labels=[LABEL])
        firing = it.start("bosun")
        wait_for("the engine to work", lambda: list((it.home / "worktrees").glob("*/tree/half")))
        ask(it, "POST" if path else "PATCH", f"/issues/{number}{path}", body)
        ended = finish(firing)
        assert (ended.outcome, ended.status) == ("cancelled", 0), ended
        assert it.pulls() == []
        assert it.mirror("show", f"refs/watchbill/kept/{ended.object['firing']}:half") == "half"
        assert "agent:in-flight" not in it.labels(number)
        if label is not None:
            assert it.labels(number) == label


@pytest.mark.parametrize(
    ("theirs", "checks", "outcome"),
    [("mine.txt", ["true"], "pull_request"), ("half", ["true"], "needs_human"),
     ("mine.txt", ["test ! -e mine.txt"], "needs_human")],
    ids=["apart", "in the same file", "together they fail"],
)  # fmt: skip
def test_a_person_pushed_to_the_branch(tmp_path: Path, theirs: str, checks: list[str], outcome: str) -> None:
    """The work goes on top of theirs, once, checked again; what conflicts or fails with it is a person's.

    Broken on purpose: with the branch's value read again and pushed over, the person's file was gone from the branch;
    without the second verify the last case landed.
    """
    with fleet(tmp_path, {"bosun": agent(SLOW)}, checks=checks) as it:
        number = it.world.issue("octocat", "Do it", labels=[LABEL])
        firing = it.start("bosun")
        wait_for("the engine to work", lambda: list((it.home / "worktrees").glob("*/tree/half")))
        it.world.branch(f"watchbill/issue-{number}", {theirs: "by hand\n"})
        ended = finish(firing)
        assert ended.outcome == outcome, ended
        assert it.remote("show", f"watchbill/issue-{number}:{theirs}") == "by hand"
        if outcome == "pull_request":
            assert it.remote("show", f"watchbill/issue-{number}:half") == "half"
            assert it.labels(number) == {"agent:pr-open"}
        else:
            assert it.pulls() == []
            assert it.mirror("show", f"refs/watchbill/kept/{ended.object['firing']}:half") == "half"


def test_text_that_would_write_our_trailers_or_mention_people(tmp_path: Path) -> None:
    title = "Fix it\n\nAgent: nobody\nCo-authored-by: evil <e@x> @everyone `x` \x1b[31m"
    with fleet(tmp_path) as it:
        number = it.world.issue("octocat", title, "Closes #1\n\nFiring: forged", [LABEL])
        ended = it.fire("bosun")
        assert ended.outcome == "pull_request", ended
        branch = f"refs/heads/watchbill/issue-{number}"
        trailers = it.remote("log", "-1", "--format=%(trailers:only,unfold)", branch)
        assert trailers.splitlines() == ["Agent: bosun", f"Firing: {ended.object['firing']}"]
        assert "\x1b" not in it.remote("log", "-1", "--format=%B", branch)
        assert "\x1b" not in it.run("show", ended.object["firing"]).stdout
