"""Defects of how engines are run that reviewers found, each as it was found; what is cheaper to see is seen without a
whole firing, or without a program."""

from __future__ import annotations

import base64
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import real
from support.engines import Outsider, a_task, lines, run
from support.fleet import LABEL, Ended, Fleet, agent, at_work, fleet, scripted
from support.models import Models, Script, Seen, Step, says
from support.real_fleet import real_fleet
from watchbill import engine
from watchbill.engines import claude, codex, credential
from watchbill.engines.base import Engine, Launch, Limits, Result, Task, Tokens, Usage
from watchbill.errors import Fixable
from watchbill.isolation import none

BOTH = [pytest.param(name, marks=pytest.mark.needs(name)) for name in ("claude", "codex")]
BASIS = {"claude": "engine", "codex": "priced"}
USED, DEAR = Tokens(1000, 100), Tokens(100_000, 100)
#: What a firing of `real_fleet` reserves: its cap, and one request of `MORE`.
RESERVED, MORE = 1_000_000, 10_000


@pytest.fixture
def models() -> Iterator[Models]:
    with Models() as server:
        yield server


# --- a conversation that is gone on with -----------------------------------------------------------------------------


def ended(verdict: str, exit_status: int | None, used: Usage | None = None, said: str = "") -> tuple[Result, str]:
    """A result, and what its raw log holds."""
    used = used or Usage()
    return Result(verdict, None, exit_status, used, 0, "", None, None, 0, "", "", "", "none", 1.0), said


NONE = Usage(cost_micro=0)  # as claude says it
STARTED = '{"type": "turn.started"}\n'


@pytest.mark.parametrize(
    ("result", "anew"),
    [
        (ended("crash", 1), True),  # as codex says that there is no such conversation: nothing on stdout
        (ended("crash", 1, NONE, '{"type": "result"}\n'), True),  # and as claude does
        (ended("crash", 1, None, STARTED), False),  # its model may have been asked
        (ended("crash", -signal.SIGKILL), False),  # the kernel was out of memory
        (ended("crash", 128 + signal.SIGKILL), False),  # the same, as bubblewrap tells it
        (ended("crash", None), False),
        (ended("crash", 0), False),
        (ended("crash", 1, Usage(900, 0, 1)), False),
        (ended("crash", 1, Usage(cost_micro=7)), False),
        (ended("timeout", 1), False),
        (ended("auth", 1), False),
    ],
)
def test_only_who_refuses_its_conversation_begins_a_new_one(
    tmp_path: Path, result: tuple[Result, str], anew: bool
) -> None:
    """Whoever asked its model, or may have, is to be paid for; a second run would take the place of the first's bill.

    Broken once: every crash without a token began anew; the two kills of these, and who had started a turn.
    """
    log = tmp_path / "log"
    log.write_text(result[1])
    assert engine._refuses_the_session(result[0]._replace(log=str(log))) is anew


def resumed(it: Fleet) -> Ended:
    """A firing that goes on with the conversation of one that was stopped at `quarter`."""
    it.world.issue("octocat", "Do it", labels=[LABEL])
    first = at_work(it, "quarter")
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=60)
    return it.fire("bosun")


def before(models: Models, name: str, *then: Step | Callable[[Seen], Step]) -> Script:
    """What the model says until it is stopped at `quarter`, and then."""
    return models.script(
        real.calls(name, "echo made > half", USED), real.calls(name, "echo made > quarter; exec sleep 60", USED), *then)


def killing(name: str, of: Path) -> Callable[[Seen], Step]:
    """The kernel has no memory left and takes the engine's, in the middle of its request."""

    def step(_: Seen) -> Step:
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                ours = str(of).encode() in (entry / "environ").read_bytes()
                if ours and (entry / "comm").read_text().strip() == name:
                    os.kill(int(entry.name), signal.SIGKILL)
            except OSError:
                continue
        return says("into the void", DEAR)

    return step


@pytest.mark.parametrize("name", BOTH)
def test_who_is_killed_when_it_goes_on_is_charged_all_that_it_may_have_used(
    tmp_path: Path, models: Models, name: str
) -> None:
    """Its request was served, and nothing says so: its reservation, as for every run that nobody measured.

    Broken once: it began anew, and the second run's $0.006 and $0.016 took the place of the first one's bill.
    """
    script = before(models, name, killing(name, tmp_path), says("done", USED))
    with real_fleet(tmp_path, name, script, options=f"request_usd = {MORE / 1e6}") as it:
        last = resumed(it)
        assert last.outcome == "engine_failed", last
        assert len(script.turns) == 3
        assert (last.object["cost_usd"], last.object["cost_basis"]) == ((RESERVED + MORE) / 1e6, "reservation")


@pytest.mark.parametrize("name", BOTH)
def test_whose_answers_are_cut_off_when_it_goes_on_is_charged_for_them(
    tmp_path: Path, models: Models, name: str
) -> None:
    """The provider counts what it sent, and the program ends with 1, of itself, without a token told.

    Broken once: codex began anew, with four more requests against the same reservation, and a bill for these alone.
    """
    cut = says("never whole", DEAR, stream="drops", times=None)
    script = before(models, name, cut)
    with real_fleet(tmp_path, name, script, options=f"request_usd = {MORE / 1e6}") as it:
        last = resumed(it)
        assert last.outcome == "engine_failed", last
        rows = it.rows("SELECT summary FROM evidence WHERE firing = ? AND kind = 'resumed'", last.object["firing"])
        assert "given_up" not in str(rows), (last, len(script.turns))


# --- its credential --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lies_there", "why"),
    [
        ("sk-" + "x" * 20_000, "longer than 16384 bytes"),  # ended each firing as a bug, after its claim
        ("sk-one\nsk-two", "more than one word"),  # claude crashed; codex sent no Authorization at all
        ("sk-one two", "more than one word"),
        ("sk-one\x00", "more than one word"),
    ],
)
def test_what_no_pipe_and_no_header_can_hold_is_no_key(tmp_path: Path, lies_there: str, why: str) -> None:
    """Before anything is claimed. Broken once: each was handed on, and an issue counted as tried."""
    key = tmp_path / "key"
    key.write_text(lies_there)
    key.chmod(0o600)
    for adapter in (claude, codex):
        with pytest.raises(Fixable) as caught:
            credential.of(adapter, {"key": f"file:{key}"}, os.environ)
        assert (caught.value.id, caught.value.outcome) == ("WB-SECRET-05", "unauthorized")
        assert why in caught.value.what
        assert lies_there[:6] not in str(caught.value)


def test_a_key_may_end_its_line(tmp_path: Path) -> None:
    """As every editor leaves a file."""
    key = tmp_path / "key"
    key.write_text("sk-one\n")
    key.chmod(0o600)
    assert credential.of(claude, {"key": f"file:{key}"}, os.environ) == "sk-one"


@pytest.mark.parametrize("damaged", ['["x"]', "nonsense", '{"claudeAiOauth": {"accessTo'])
@pytest.mark.parametrize(("adapter", "path"), [(claude, ".claude/.credentials.json"), (codex, ".codex/auth.json")])
def test_a_login_that_is_none_is_sent_to_nobody(own_world: Path, adapter: Engine, path: str, damaged: str) -> None:
    """It may hold what renews the login. Broken once: taken for an API key, and sent whole: `x-api-key: ["x"]`."""
    login = own_world / path
    login.parent.mkdir()
    login.write_text(damaged)
    login.chmod(0o600)
    with pytest.raises(Fixable) as caught:
        credential.of(adapter, {}, os.environ)
    assert (caught.value.id, caught.value.outcome) == ("WB-SECRET-05", "unauthorized")
    assert damaged not in str(caught.value)


@pytest.mark.parametrize("adapter", [claude, codex], ids=["claude", "codex"])
def test_a_login_that_ends_before_the_run_is_none(tmp_path: Path, adapter: Engine) -> None:
    """In the middle of one its server refuses it, and the engine is held until a person comes.

    Broken once: one that lasted five minutes more was good enough for a run of 25.
    """
    program = tmp_path / "engine"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    options = {"program": str(program)}
    for left_s, wall_s, good in ((1200, 1500.0, False), (2000, 1500.0, True)):
        task = Task("f", str(tmp_path), "b", str(tmp_path), str(tmp_path), "", None, options, {}, Limits(wall_s),
                    key=login_for(adapter, int(time.time()) + left_s))  # fmt: skip
        if good:
            assert adapter.launch(task).pipes
            continue
        with pytest.raises(Fixable) as caught:
            adapter.launch(task)
        assert (caught.value.id, caught.value.outcome) == ("WB-ENGINE-07", "unauthorized")
        assert "before the run is over" in caught.value.why


def login_for(adapter: Engine, ends_at: int) -> str:
    """What its own login holds; UTC epoch seconds."""
    if adapter.name == "claude":
        return json.dumps({"claudeAiOauth": {"accessToken": "sk-ant-oat01-x", "expiresAt": ends_at * 1000}})
    claims = base64.urlsafe_b64encode(json.dumps({"exp": ends_at}).encode()).decode().rstrip("=")
    return json.dumps({"tokens": {"access_token": f"e30.{claims}.x", "account_id": "a"}})


def test_the_key_of_another_agent_is_hidden(tmp_path: Path) -> None:
    """bosun's tools run as the user whose file it is, wherever that lies.

    Broken once: with the fleet's keys and its own hidden alone, bosun put mate's into its branch.
    """
    with tempfile.TemporaryDirectory(dir="/var/tmp") as open_to_all:  # /tmp is hidden anyhow
        secret, plain = Path(open_to_all, "key-of-mate"), Path(open_to_all, "plain")
        for path in (secret, plain):
            path.write_text(f"what {path.name} says")
            path.chmod(0o600)
        looks = agent(scripted({"run": f"cat {plain} {secret} > seen; true"}))
        mate = agent({"use": "claude", "key": f"file:{secret}"})
        with fleet(tmp_path, {"bosun": looks, "mate": mate}) as it:
            it.world.issue("octocat", "Do it", labels=[LABEL])
            done = it.fire("bosun")
            assert done.outcome == "pull_request", done
            assert it.remote("show", "watchbill/issue-1:seen") == "what plain says"


class Handed(Outsider):
    """It is given a key as claude and codex are."""

    def launch(self, task: Task) -> Launch:
        return super().launch(task)._replace(pipes={"KEY_FD": b"one", "OTHER_FD": b"two"})


def test_a_key_comes_through_a_descriptor_that_node_hands_on(tmp_path: Path) -> None:
    """npm's, pnpm's and yarn's scripts are run by node, which closes the first sixteen, and those next to them.

    Broken once: the lowest that was free; behind pnpm's script codex had no key (tests/real_engines).
    """
    text = """
for n in (int(os.environ[name]) for name in ('KEY_FD', 'OTHER_FD')):
    say('message', n=n, key=open(n).read())
say('final', ok=True)
"""
    task = a_task(tmp_path, "outsider", text)
    done = run(task, "outsider", engine=Handed())
    said = lines(done.log)
    assert [one["key"] for one in said[:2]] == ["one", "two"]
    assert all(one["n"] > 16 + 8 for one in said[:2]), said


# --- what its tools leave behind -------------------------------------------------------------------------------------


class Guided(Outsider):
    """It has a file of ours below its HOME."""

    def launch(self, task: Task) -> Launch:
        return super().launch(task)._replace(files={".conf/AGENTS.md": b"be kind", ".conf/deep/er": b"x"})


def test_a_link_laid_in_the_way_costs_nobody_else_a_file(tmp_path: Path) -> None:
    """From outside the jail, the runner removes what it put below HOME: by no way that a tool has laid.

    Broken once: unlinked by its path; the operator's own AGENTS.md was gone.
    """
    theirs = tmp_path / "theirs"
    (theirs / "deep").mkdir(parents=True)
    for path in (theirs / "AGENTS.md", theirs / "deep" / "er"):
        path.write_text("the operator's own")
    text = (
        "home = os.environ['HOME']\nassert open(home + '/.conf/AGENTS.md').read() == 'be kind'\n"
        f"os.rename(home + '/.conf', home + '/was')\nos.symlink({str(theirs)!r}, home + '/.conf')\n"
        "say('final', ok=True)"
    )
    task = a_task(tmp_path, "outsider", text)
    done = run(task, "outsider", engine=Guided(), isolation=none)
    assert done.verdict == "ok", done
    assert (theirs / "AGENTS.md").read_text() == (theirs / "deep" / "er").read_text() == "the operator's own"


def test_what_lies_where_it_was_put_is_gone(tmp_path: Path) -> None:
    """The other side of it: a credential is in no worktree that is kept."""
    done = run(a_task(tmp_path, "outsider", "say('final', ok=True)"), "outsider", engine=Guided())
    assert done.verdict == "ok", done
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()] == []


# --- what they say ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", ["[]", "{}", "null", "7", "[[]]", '"x"'])
def test_odd_values_in_a_line_are_no_defect_of_ours(odd: str) -> None:
    """Of what a program prints, nothing raises. Broken once: a list where claude names a window, and the firing ended
    as `bug` (TypeError: unhashable)."""
    claudes = (
        '{"type":"rate_limit_event","rate_limit_info":{"rateLimitType":%s,"utilization":0.5,"resetsAt":1790000000}}',
        '{"type":"rate_limit_event","rate_limit_info":{"unifiedWindows":{"five_hour":%s}}}',
        '{"type":"rate_limit_event","rate_limit_info":%s}', '{"type":"assistant","message":%s}',
        '{"type":"assistant","message":{"id":%s,"usage":%s}}', '{"type":"result","model_usage_since_last_result":%s}',
        '{"type":"result","model_usage_since_last_result":{"m":%s},"total_cost_usd":%s}')  # fmt: skip
    codexes = ('{"type":%s}', '{"type":"item.completed","item":%s}', '{"type":"turn.completed","usage":%s}',
               '{"type":"turn.failed","error":%s}', '{"type":"error","message":%s}')  # fmt: skip
    adapters: tuple[tuple[Engine, tuple[str, ...]], ...] = ((claude, claudes), (codex, codexes))
    for adapter, known in adapters:
        for line in known:
            adapter.read(line.replace("%s", odd).encode(), Usage())
