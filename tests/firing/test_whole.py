"""One firing from outside: the program as a process, real git, real SQLite, real HTTP, real PyGithub."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support.fleet import LABEL, agent, finish, fleet, scripted
from support.forge import REPO, git
from watchbill.ledger import chain

FIX = scripted(
    {"message": "one character"},
    {"replace": {"path": "calc.py", "old": "a - b", "new": "a + b"}},
    {"usage": {"input_tokens": 100, "output_tokens": 20, "cost_usd": 0.05}},
)
CALC = {
    "calc.py": "def add(a, b):\n    return a - b\n",
    "test_calc.py": "import unittest, calc\n\nclass T(unittest.TestCase):\n"
    "    def test(self):\n        self.assertEqual(calc.add(2, 3), 5)\n",
}
CHECK = f"{sys.executable} -m unittest -q"


@pytest.mark.parametrize("remote", ["http", "file"])
def test_an_issue_becomes_one_checked_pull_request(tmp_path: Path, remote: str) -> None:
    with fleet(tmp_path, {"bosun": agent(FIX)}, [CHECK], CALC, remote) as it:
        number = it.world.issue("octocat", "add() subtracts", "It answers -1.", [LABEL, "agent:fixes-base"])
        ended = it.fire("bosun")

        assert (ended.outcome, ended.status) == ("pull_request", 0), ended
        (pull,) = it.pulls()
        assert ended.object["pull_request"] == pull["number"]
        assert ended.object["branch"] == f"watchbill/issue-{number}" == pull["head"]["ref"]
        assert (ended.object["cost_usd"], ended.object["cost_basis"]) == (0.05, "engine")
        assert f"Closes #{number}" in pull["body"]
        assert "fails (exit 1)" in pull["body"]
        assert "passes" in pull["body"]
        assert not pull["draft"]
        assert it.labels(number) == {"agent:pr-open", "agent:fixes-base"}
        assert {label["name"] for label in pull["labels"]} == {"agent:authored"}
        (comment,) = it.comments(number)
        assert f"opened #{pull['number']}" in comment

        head = f"refs/heads/watchbill/issue-{number}"
        assert it.remote("log", "--format=%s", f"main..{head}") == "add() subtracts"
        assert it.remote("diff", "--stat", f"main..{head}").endswith("1 file changed, 1 insertion(+), 1 deletion(-)")
        trailers = it.remote("log", "-1", "--format=%(trailers:only,unfold)", head)
        assert trailers.splitlines() == ["Agent: bosun", f"Firing: {ended.object['firing']}"]
        states = it.remote("log", "--format=%s", "--first-parent", f"refs/watchbill/claims/{number}").splitlines()
        assert [line.split()[3] for line in states] == ["pr", "published", "active"]

        assert not any((it.home / "worktrees").iterdir())
        assert chain.verify(it.ledger()._connection) is None
        assert it.rows("SELECT settled, reserved FROM spend WHERE scope = 'day' AND unit = 'usd'") == [(50_000, 0)]
        assert it.rows("SELECT count(*) FROM effects WHERE receipt IS NULL") == [(0,)]


def test_a_second_firing_has_nothing_to_do(tmp_path: Path) -> None:
    with fleet(tmp_path) as it:
        it.world.issue("octocat", "Once", labels=[LABEL])
        assert it.fire("bosun").outcome == "pull_request"
        again = it.fire("bosun")
        assert (again.outcome, again.status) == ("idle", 0)
        assert len(it.pulls()) == 1


def test_watchbill_fire_and_the_role_script_are_the_same(tmp_path: Path) -> None:
    with fleet(tmp_path) as it:
        it.world.issue("octocat", "Once", labels=[LABEL])
        done = it.run("fire", "bosun")
        assert done.returncode == 0
        assert done.stdout.splitlines() == [f"bosun: pull request opened {REPO}#2 for #1 ($0.01 of $1.00)"]
        assert it.fire("bosun").outcome == "idle"


def test_twelve_agents_ten_issues(tmp_path: Path) -> None:
    names = [f"agent{n}" for n in range(12)]
    with fleet(tmp_path, {name: agent() for name in names}) as it:
        numbers = [it.world.issue("octocat", f"Issue {n}", labels=[LABEL]) for n in range(10)]
        endings = [finish(process) for process in [it.start(name) for name in names]]

        outcomes = sorted(ended.outcome for ended in endings)
        assert outcomes == ["lost"] * 2 + ["pull_request"] * 10, [e.object for e in endings]
        assert [e.status for e in endings if e.outcome == "lost"] == [75, 75]
        assert sorted(pull["head"]["ref"] for pull in it.pulls()) == sorted(f"watchbill/issue-{n}" for n in numbers)
        for number in numbers:
            assert it.rows("SELECT count(*) FROM claims WHERE number = ? AND won_at IS NOT NULL", number) == [(1,)]
        for ended in endings:
            if ended.outcome == "lost":
                why = it.run("why", ended.object["agent"]).stdout
                assert "lost" in why
                assert ended.reason in why

        again = [finish(process) for process in [it.start(name) for name in names]]
        assert {(ended.outcome, ended.status) for ended in again} == {("idle", 0)}, [e.object for e in again]
        assert len(it.pulls()) == 10


def test_a_failed_check_opens_nothing_and_keeps_the_work(tmp_path: Path) -> None:
    check = "test ! -e done.txt"
    with fleet(tmp_path, checks=[check]) as it:
        number = it.world.issue("octocat", "Break it", labels=[LABEL])
        ended = it.fire("bosun")
        assert (ended.outcome, ended.status) == ("checks_failed", 65)
        kept = f"refs/watchbill/kept/{ended.object['firing']}"
        assert kept in ended.reason
        assert it.mirror("show", f"{kept}:done.txt") == "done"
        assert it.pulls() == []
        assert it.labels(number) == {LABEL}  # given back
        assert it.rows("SELECT count FROM attempts") == [(1,)]
        assert "again at" in it.fire("bosun").reason
        assert not any((it.home / "worktrees").iterdir())


def test_a_red_base_holds_and_nothing_is_paid(tmp_path: Path) -> None:
    with fleet(tmp_path, checks=["false"]) as it:
        number = it.world.issue("octocat", "Anything", labels=[LABEL])
        ended = it.fire("bosun")
        assert (ended.outcome, ended.status) == ("held", 75)
        assert "fails on main itself" in ended.reason
        assert ended.object["cost_usd"] == 0
        assert it.labels(number) == {LABEL}
        again = it.fire("bosun")  # known now: not even claimed
        assert again.outcome == "held"
        assert it.rows("SELECT max(generation) FROM claims") == [(1,)]


def test_without_checks_the_pull_request_is_an_unverified_draft(tmp_path: Path) -> None:
    with fleet(tmp_path, checks=[]) as it:
        it.world.issue("octocat", "Do it", labels=[LABEL])
        assert it.fire("bosun").outcome == "pull_request"
        (pull,) = it.pulls()
        assert pull["draft"]
        assert "Unverified" in pull["body"]


def test_pause_and_resume(tmp_path: Path) -> None:
    with fleet(tmp_path) as it:
        it.world.issue("octocat", "Do it", labels=[LABEL])
        assert it.run("pause", "bosun", "--reason", "lunch").returncode == 0
        held = it.fire("bosun")
        assert (held.outcome, held.status) == ("held", 75)
        assert "lunch" in held.reason
        assert "lunch" in it.run("why", "bosun").stdout
        assert "lunch" in it.run("status").stdout
        assert it.run("resume", "bosun").returncode == 0
        assert it.fire("bosun").outcome == "pull_request"


def test_a_cap_that_is_reached_refuses(tmp_path: Path) -> None:
    capped = agent(caps={"firing_usd": 1, "day_usd": 1})
    with fleet(tmp_path, {"bosun": capped}) as it:
        it.world.issue("octocat", "One", labels=[LABEL])
        it.world.issue("octocat", "Two", labels=[LABEL])
        assert it.fire("bosun").outcome == "pull_request"
        ended = it.fire("bosun")
        assert (ended.outcome, ended.status) == ("capped", 75)
        assert "$0.01 spent" in ended.reason
        assert "of $1.00" in ended.reason


def test_dry_run_changes_nothing(tmp_path: Path) -> None:
    with fleet(tmp_path) as it:
        number = it.world.issue("octocat", "Do it", labels=[LABEL])
        done = it.run("fire", "bosun", "--dry-run")
        assert done.returncode == 0
        assert f"would claim {REPO}#{number}" in done.stdout
        assert it.labels(number) == {LABEL}
        assert it.remote("for-each-ref", "refs/watchbill") == ""
        assert it.rows("SELECT (SELECT count(*) FROM firings) + (SELECT count(*) FROM claims)") == [(0,)]
        assert it.fire("bosun").outcome == "pull_request"


def test_usage_errors_are_two(tmp_path: Path) -> None:
    with fleet(tmp_path) as it:
        assert it.run("fire").returncode == 2
        assert it.run("fire", "bosun", "--wat").returncode == 2
        assert it.run("nosuch").returncode == 2


def test_show_tells_the_whole(tmp_path: Path) -> None:
    with fleet(tmp_path) as it:
        it.world.issue("octocat", "Do it", labels=[LABEL])
        ended = it.fire("bosun")
        text = it.run("show", ended.object["firing"][:14]).stdout
        for word in ("worktree", "engine", "publish", "pull request", "brief", "diff", "check", "$0.01"):
            assert word in text, text


def test_the_person_who_runs_it_is_not_read(tmp_path: Path, own_world: Path) -> None:
    """A hostile or odd git configuration of the operator changes nothing."""
    (own_world / ".gitconfig").write_text(
        "[core]\n\tautocrlf = true\n\thooksPath = /nowhere\n[push]\n\tdefault = nothing\n"
    )
    with fleet(tmp_path) as it:
        it.world.issue("octocat", "Do it", labels=[LABEL])
        assert it.fire("bosun", GIT_DIR="/nowhere", GIT_INDEX_FILE="/nowhere/i").outcome == "pull_request"


def test_a_person_fires_twice_at_once(tmp_path: Path) -> None:
    slow = scripted({"sleep": 2}, {"write": {"path": "x", "content": "y"}})
    with fleet(tmp_path, {"bosun": agent(slow)}) as it:
        it.world.issue("octocat", "One", labels=[LABEL])
        it.world.issue("octocat", "Two", labels=[LABEL])
        both = [finish(process) for process in (it.start("bosun"), it.start("bosun"))]
        assert sorted(ended.outcome for ended in both) == ["pull_request", "running"]


def test_git_of_the_remote_is_plain(tmp_path: Path) -> None:
    with fleet(tmp_path) as it:
        it.world.issue("octocat", "Do it", labels=[LABEL])
        it.fire("bosun")
        assert git("--git-dir", it.world.bare, "fsck", "--strict").strip() == ""
        names = it.remote("for-each-ref", "--format=%(refname)").splitlines()
        assert names == ["refs/heads/main", "refs/heads/watchbill/issue-1", "refs/watchbill/claims/1"]
