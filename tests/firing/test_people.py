"""People have the last word: they close, reject, label again, and say no while an agent works."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from crash.room import Story, room
from support.fleet import (
    FAILS,
    LABEL,
    agent,
    ask,
    at_work,
    crew,
    finish,
    fleet,
    rested,
    scripted,
    swept,
    wait_for,
    write_agent,
)

SLOW = scripted({"write": {"path": "half", "content": "half"}}, {"sleep": 2})


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
    with fleet(tmp_path, {"bosun": agent(FAILS)}) as it:
        number = it.world.issue("octocat", "Do it", labels=[LABEL])
        for _ in range(3):
            assert it.fire("bosun").outcome == "engine_failed"
            rested(it)
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
        firing = at_work(it)
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

    Before: what failed with it was released for another try, which then found the branch in its way, for ever.
    Broken on purpose: with the branch's value read again and pushed over, the person's file was gone from the branch;
    without the second verify the last case landed.
    """
    with fleet(tmp_path, {"bosun": agent(SLOW)}, checks=checks) as it:
        number = it.world.issue("octocat", "Do it", labels=[LABEL])
        firing = at_work(it)
        it.world.branch(f"watchbill/issue-{number}", {theirs: "by hand\n"})
        ended = finish(firing)
        assert ended.outcome == outcome, ended
        assert it.remote("show", f"watchbill/issue-{number}:{theirs}") == "by hand"
        if outcome == "pull_request":
            assert it.remote("show", f"watchbill/issue-{number}:half") == "half"
            assert it.labels(number) == {"agent:pr-open"}
        else:
            assert it.pulls() == []
            assert it.labels(number) == {"needs:human"}
            assert it.mirror("show", f"refs/watchbill/kept/{ended.object['firing']}:half") == "half"


def test_what_was_asked_of_two_agents_is_answered_by_one_rejection(tmp_path: Path) -> None:
    """The issue carries the labels of both from the start. Before: the second opened a pull request of its own at once.

    Broken on purpose: with only the events of the own label on record (`examine.terms`), it did so again.
    """
    two = {**crew(), "gunner": agent(labels={"takes": "agent:docs"})}
    with fleet(tmp_path, two) as it:
        number = it.world.issue("octocat", "Do it", labels=[LABEL, "agent:docs"])
        pull = it.fire("bosun").object["pull_request"]
        ask(it, "PATCH", f"/pulls/{pull}", {"state": "closed"})
        assert it.fire("gunner").outcome == "idle"
        assert swept(it).outcome == "published"
        assert it.fire("gunner").outcome == "idle"
        assert (len(it.pulls()), it.record(number).outcome) == (1, "human")


def test_who_wakes_up_late_puts_no_label_back(tmp_path: Path) -> None:
    """A host froze between giving its claim back and the label that says so; by now another's pull request is open.

    Before: the label was put there; where we act in a person's name it was their word for a second pull request.
    Broken on purpose: with `projection._still_at` always true the issue had both labels.
    """
    with room(tmp_path) as one:
        one.enlist({"red": (Story("red.txt"), "")})
        two = one.other_host("two")
        number = one.it.world.issue("octocat", "Do it", labels=[LABEL])
        late = one.start("red", at="settle (label released(retry)): before intent", how="stop")
        assert one.zygote.wait(late) == "stopped", late.out.read_text()
        assert (one.it.labels(number), one.it.record(number).state) == ({"agent:in-flight"}, "released")
        wait_for("the label", lambda: two.sweep() and one.it.labels(number) == {LABEL})
        assert two.zygote.fire(two.it.home, "relief")["outcome"] == "pull_request"
        time.sleep(1.1)  # a look at the claim is good for a grace
        os.kill(late.pid, signal.SIGCONT)
        one.zygote.wait(late)
        assert one.it.labels(number) == {"agent:pr-open"}


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


def test_rejected_work_that_is_put_back_on_the_branch_meanwhile_is_not_built_upon(tmp_path: Path) -> None:
    """A person restores the branch of a rejected pull request while the next generation is at work: the two would land
    together.

    Broken on purpose: with the look at the history left out, the rejected file was in the new pull request.
    """
    with fleet(tmp_path) as it:
        number = it.world.issue("octocat", "Do it", labels=[LABEL])
        first = it.fire("bosun").object["pull_request"]
        rejected = it.remote("rev-parse", f"refs/heads/watchbill/issue-{number}")
        ask(it, "PATCH", f"/pulls/{first}", {"state": "closed"})
        ask(it, "POST", f"/issues/{number}/labels", {"labels": [LABEL]})
        write_agent(it.home, "bosun", agent(SLOW))
        firing = at_work(it)
        assert it.remote("for-each-ref", "refs/heads/watchbill/") == ""
        it.remote("update-ref", f"refs/heads/watchbill/issue-{number}", rejected)
        ended = finish(firing)
        assert (ended.outcome, len(it.pulls())) == ("needs_human", 1), ended
        assert "an earlier generation" in ended.reason
        assert it.labels(number) == {"needs:human"}
