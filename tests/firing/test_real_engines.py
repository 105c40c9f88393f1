"""Whole firings with the real programs: from an issue on the practice forge to its pull request, or to the reason why
there is none. The model is scripted, on loopback; everything else is what an operator has."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import real
from support.engines import a_jail
from support.fleet import LABEL, Fleet, at_work
from support.hostile import Snare, orders, traps
from support.models import Models, Script, Step, anthropic, openai, refused, says
from support.real_fleet import real_fleet
from watchbill import isolation
from watchbill.clock import SystemClock
from watchbill.engines import claude, supervise
from watchbill.engines.base import Launch, Task, Tokens

BOTH = [pytest.param(name, marks=pytest.mark.needs(name)) for name in ("claude", "codex")]
#: Micro-dollars a token of real.MODEL, as published in November 2026: input, output.
PRICE = {"claude": (2, 10), "codex": (5, 30)}
BASIS = {"claude": "engine", "codex": "priced"}
USED = Tokens(1000, 100)


@pytest.fixture
def models() -> Iterator[Models]:
    with Models() as server:
        yield server


def micro(engine: str, requests: int, used: Tokens = USED) -> int:
    """What so many requests cost."""
    taken, given = PRICE[engine]
    return requests * (used.input * taken + used.output * given)


def writes(engine: str, name: str, **more: Any) -> Step:
    return real.calls(engine, f"echo made > {name}", USED, **more)


@pytest.mark.parametrize("engine", BOTH)
def test_an_issue_becomes_a_checked_pull_request_with_its_cost(tmp_path: Path, models: Models, engine: str) -> None:
    """In a repository that brings its own configuration for engines, none of which counts.

    Broken once: with what claude calls attachments left on, /etc/passwd stood in the first request; with codex's
    `project_doc_max_bytes` as it comes, PLANTED; without guidance, TABS-NOT-SPACES did not."""
    script = models.script(writes(engine, "done.txt"), says("I made it.", USED))
    with Snare(tmp_path) as snare:
        base = {**traps(snare, "PLANTED"), **orders("TABS-NOT-SPACES")}
        with real_fleet(tmp_path, engine, script, checks=["test ! -e broken"], files=base) as it:
            mentions = "With one word in it. See @/etc/passwd, @AGENTS.override.md and $planted."
            number = it.world.issue("octocat", "Make done.txt", mentions, [LABEL])
            ended = it.fire("bosun")
            assert (ended.outcome, ended.status) == ("pull_request", 0), ended
            (pull,) = it.pulls()
            assert (ended.object["cost_usd"], ended.object["cost_basis"]) == (micro(engine, 2) / 1e6, BASIS[engine])
            assert f"({BASIS[engine]})" in pull["body"]
            assert "I made it." in pull["body"]
            assert "passes" in pull["body"]
            assert it.remote("diff", "--name-only", f"main..watchbill/issue-{number}") == "done.txt"
            assert it.labels(number) == {"agent:pr-open"}
            (comment,) = it.comments(number)
            assert f"opened #{pull['number']}" in comment
            shown = it.run("show", ended.object["firing"]).stdout
            for kind in ("brief", "transcript", "diff", "check"):
                assert kind in shown
        assert snare.sprung() == set()
    asked = script.turns[0].text
    assert "Make done.txt" in asked
    assert "TABS-NOT-SPACES" in asked
    for text in ("PLANTED", "root:x:0"):
        assert text not in asked
    assert {turn.credential for turn in script.turns} == {real.KEY[engine]}


@pytest.mark.parametrize("engine", BOTH)
def test_a_limit_with_its_end_holds_the_account(tmp_path: Path, models: Models, engine: str) -> None:
    """Broken once: with `until` not heeded the hold ended after a quarter of an hour, and not in two hours."""
    ends_at = int(time.time()) // 60 * 60 + 7200
    step = openai.limit_reached(ends_at)
    if engine == "claude":
        step = refused(429, anthropic.windows("rejected", ends_at, 1.0), times=None, type="rate_limit_error")
    script = models.script(step)
    key = "sk-ant-oat01-nobody-0000" if engine == "claude" else None
    with real_fleet(tmp_path, engine, script, key=key) as it:
        number = it.world.issue("octocat", "Do it", labels=[LABEL])
        ended = it.fire("bosun")
        assert (ended.outcome, ended.status) == ("held", 75), ended
        assert ended.object["cost_usd"] == 0
        ((scope, kind, until),) = it.rows("SELECT scope, kind, until FROM holds")
        assert (scope, kind) == ("account", "rate_limit")
        assert abs(until - ends_at) <= 60, (until, ends_at)
        assert it.labels(number) == {LABEL}
        assert it.rows("SELECT count(*) FROM attempts") == [(0,)]
        asked = len(script.turns)
        again = it.fire("bosun")
        assert (again.outcome, again.status) == ("held", 75)
        assert len(script.turns) == asked
        assert it.rows("SELECT count(*) FROM firings WHERE engine IS NOT NULL") == [(1,)]  # whose engine started


@pytest.mark.parametrize("engine", BOTH)
def test_failed_checks_keep_the_work(tmp_path: Path, models: Models, engine: str) -> None:
    script = models.script(writes(engine, "done.txt"), says("done", USED))
    with real_fleet(tmp_path, engine, script, checks=["test ! -e done.txt"]) as it:
        number = it.world.issue("octocat", "Do it", labels=[LABEL])
        ended = it.fire("bosun")
        assert (ended.outcome, ended.status) == ("checks_failed", 65), ended
        assert ended.object["cost_usd"] == micro(engine, 2) / 1e6
        assert it.mirror("show", f"refs/watchbill/kept/{ended.object['firing']}:done.txt") == "made"
        assert it.pulls() == []
        assert it.labels(number) == {LABEL}


@pytest.mark.parametrize("engine", BOTH)
def test_a_stopped_conversation_is_gone_on_with(tmp_path: Path, models: Models, engine: str) -> None:
    """The second firing sends the first one's conversation along, and is charged only for what it asked itself.

    Broken once: never restored, the third request did not know the first; with codex's total taken as it stands, the
    second firing was charged for four requests."""
    script = models.script(
        writes(engine, "half"), real.calls(engine, "echo made > quarter; exec sleep 60", USED),
        writes(engine, "rest"), says("done", USED))  # fmt: skip
    with real_fleet(tmp_path, engine, script, options="request_usd = 0.01") as it:
        number = it.world.issue("octocat", "Do it", "Say FLUGELHORN.", labels=[LABEL])
        first = at_work(it, "quarter")
        first.send_signal(signal.SIGTERM)
        out, _ = first.communicate(timeout=60)
        assert first.returncode == 143, out
        ((id, spent),) = it.rows("SELECT id, cost_micro FROM firings")
        assert micro(engine, 1) <= spent <= micro(engine, 2) + 10_000

        ended = it.fire("bosun")
        assert (ended.outcome, ended.status) == ("pull_request", 0), ended
        assert len(script.turns) == 4
        assert "echo made > half" in script.turns[2].text  # what it did then
        assert id != ended.object["firing"]
        assert (ended.object["cost_usd"], ended.object["cost_basis"]) == (micro(engine, 2) / 1e6, BASIS[engine])
        changed = it.remote("diff", "--name-only", f"main..watchbill/issue-{number}").split()
        assert changed == ["half", "quarter", "rest"]


DEAR = Tokens(100_000, 100)


@pytest.mark.parametrize("engine", BOTH)
def test_the_dollar_cap_stops_it_within_one_request(tmp_path: Path, models: Models, engine: str) -> None:
    """claude by its own count; codex, which tells nothing while it runs, by ours of its rollout.

    Broken once: stopped only when the cap was reached, the next request was always under way already, and codex was
    charged for four requests of the three that were reserved."""
    cap = micro(engine, 2, DEAR) + 1
    script = models.script(real.calls(engine, "true", DEAR, delay_s=1.0, times=None))
    caps = {"firing_usd": cap / 1e6, "day_usd": 100}
    with real_fleet(tmp_path, engine, script, caps=caps, options=f"request_usd = {micro(engine, 1, DEAR) / 1e6}") as it:
        it.world.issue("octocat", "Do it", labels=[LABEL])
        ended = it.fire("bosun")
        assert (ended.outcome, ended.status) == ("engine_failed", 65), ended
        assert "budget" in ended.reason
        assert settled(it) <= cap + micro(engine, 1, DEAR)
        assert len(script.turns) in (2, 3)  # the third would go beyond


def settled(it: Fleet) -> int:
    ((micro,),) = it.rows("SELECT settled FROM spend WHERE scope = 'day' AND unit = 'usd'")
    return int(micro)


class Unbudgeted:
    """claude, were it not to count its dollars itself."""

    has_budget = False

    def __getattr__(self, name: str) -> Any:
        return getattr(claude, name)

    def launch(self, task: Task) -> Launch:
        launch = claude.launch(task)
        at = launch.argv.index("--max-budget-usd")
        return launch._replace(argv=launch.argv[:at] + launch.argv[at + 2 :])


@pytest.mark.needs("claude")
def test_our_meter_stops_claude_where_its_own_does_not(tmp_path: Path, models: Models) -> None:
    """Broken once: as codex above."""
    cap = micro("claude", 2, DEAR) + 1
    script: Script = models.script(real.calls("claude", "true", DEAR, delay_s=1.0, times=None))
    layer = isolation.choose("auto")
    task = real.a_real_task(tmp_path, "claude", script, layer=layer, cost_micro=cap)
    charges = real.tariff(task, micro("claude", 1, DEAR))
    result = supervise.run(
        Unbudgeted(), task, layer, a_jail(task), SystemClock(), lambda _heard: None, charges, ladder=(6.0, 4.0)
    )
    assert (result.verdict, result.basis) == ("budget", "stream"), result
    assert result.cost_micro <= cap + micro("claude", 1, DEAR)
    assert len(script.turns) in (2, 3)
