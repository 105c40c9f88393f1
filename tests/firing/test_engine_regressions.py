"""Defects of how engines are run that reviewers found, where it takes a whole firing to see them. What is cheaper to
see: tests/engines/test_regressions.py."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import real
from support.fleet import LABEL, Ended, Fleet, agent, at_work, fleet, scripted
from support.models import Models, Script, Seen, Step, says
from support.real_fleet import real_fleet
from watchbill import engine
from watchbill.engines.base import Result, Tokens, Usage

BOTH = [pytest.param(name, marks=pytest.mark.needs(name)) for name in ("claude", "codex")]
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
        real.calls(name, "echo made > half", USED), real.calls(name, "echo made > quarter; exec sleep 60", USED), *then
    )


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


# --- the others of its fleet ------------------------------------------------------------------------------------------


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
