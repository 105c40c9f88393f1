"""Defects of how engines are run that reviewers found, each as it was found; what is cheaper to see is seen without a
whole firing, or without a program."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import real
from support.engines import Outsider, a_task, run
from support.fleet import LABEL, Ended, Fleet, at_work
from support.models import Models, Script, Seen, Step, says
from support.real_fleet import real_fleet
from watchbill import engine
from watchbill.engines import claude, codex
from watchbill.engines.base import Engine, Launch, Result, Task, Tokens, Usage
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
    for adapter, lines in adapters:
        for line in lines:
            adapter.read(line.replace("%s", odd).encode(), Usage())
