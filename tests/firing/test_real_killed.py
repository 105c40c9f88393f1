"""The runner is killed while a real engine runs a tool: nothing of it goes on, and the next firing pays and gives back.

The tool leaves a second process that hides: forked twice, in a session of its own, without an environment, deaf to
SIGTERM. It is looked for by its command line, for nothing else tells of it.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import real
from support.fleet import LABEL, at_work, rested, wait_for
from support.hostile import put, running
from support.models import Models, says
from support.real_fleet import real_fleet
from watchbill import process
from watchbill.engines.base import Tokens
from watchbill.engines.keeper import MARKER

BOTH = [pytest.param(name, marks=pytest.mark.needs(name)) for name in ("claude", "codex")]
LAYERS = [pytest.param("bwrap", marks=pytest.mark.needs("bwrap")), "landlock", "none"]
#: Micro-dollars of one request with USED: at 2 and 10 dollars a million for claude, 5 and 30 for codex.
USED, REQUEST = Tokens(1000, 100), {"claude": 3000, "codex": 8000}
MORE = 10_000  # request_usd: what may have been under way

HIDES = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork():
        os._exit(0)
    os.execve(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)", sys.argv[1]], {})
open("half", "w").write("half")
time.sleep(600)
"""


@pytest.fixture
def models() -> Iterator[Models]:
    with Models() as server:
        yield server


@pytest.fixture
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layer: str) -> str:
    """The word for an agent's file by which this layer is chosen here."""
    if layer == "landlock":
        put(tmp_path / "bin", {"bwrap": "#!/bin/sh\nexit 1\n"})
        (tmp_path / "bin" / "bwrap").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return "none" if layer == "none" else "required"


def layer_around(pid: int) -> str:
    """What confines a process, by its own account (proc(5))."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    if len(status["NSpid"]) > 1:
        return "bwrap"
    return "landlock" if status["NoNewPrivs"] == ["1"] else "none"


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("engine", BOTH)
def test_a_killed_runner_leaves_nothing(tmp_path: Path, models: Models, engine: str, layer: str, isolated: str) -> None:
    """Broken once: with a keeper that does not sweep once its runner is gone, all went on under Landlock and without
    isolation (under bubblewrap the kernel ends them); with its files not read, it was charged the reservation."""
    token = f"token-{uuid.uuid4().hex}"
    script = models.script(
        real.calls(engine, "echo made > before", USED), real.calls(engine, f"python3 -I hides.py {token}", USED),
        says("not reached"))  # fmt: skip
    with real_fleet(tmp_path, engine, script, files={"hides.py": HIDES}, isolation=isolated,
                    options=f"request_usd = {MORE / 1e6}") as it:  # fmt: skip
        number = it.world.issue("octocat", "Do it", labels=[LABEL])
        firing = at_work(it, "half")
        ((id,),) = it.rows("SELECT id FROM firings")
        assert {layer_around(pid) for pid in running(token)} == {layer}
        firing.kill()
        firing.communicate()
        wait_for("everything to end", lambda: not running(token) and not process.find_marked(MARKER, id), 20)

        after = it.fire("bosun")
        assert after.outcome == "idle", after
        ((outcome, cost, basis),) = it.rows("SELECT outcome, cost_micro, cost_basis FROM firings WHERE id = ?", id)
        assert outcome == "died"
        assert basis in ("transcript", "stream")
        assert cost in (REQUEST[engine] + MORE, 2 * REQUEST[engine] + MORE)
        assert it.labels(number) == {LABEL}
        assert it.mirror("show", f"refs/watchbill/kept/{id}:half") == "half"
        assert len(script.turns) == 2


@pytest.mark.parametrize("engine", BOTH)
def test_a_killed_conversation_is_gone_on_with(tmp_path: Path, models: Models, engine: str) -> None:
    """What the dead firing had asked is charged to it, and not once more to the one that goes on.

    Broken once: as test_a_stopped_conversation_is_gone_on_with."""
    script = models.script(
        real.calls(engine, "echo made > half", USED), real.calls(engine, "echo made > quarter; exec sleep 60", USED),
        real.calls(engine, "echo made > rest", USED), says("done", USED))  # fmt: skip
    with real_fleet(tmp_path, engine, script, options=f"request_usd = {MORE / 1e6}") as it:
        number = it.world.issue("octocat", "Do it", labels=[LABEL])
        firing = at_work(it, "quarter")
        firing.kill()
        firing.communicate()
        assert it.fire("bosun").outcome == "idle"  # it has cleared up; the issue rests for a while
        rested(it)

        ended = it.fire("bosun")

        assert ended.outcome == "pull_request", ended
        assert len(script.turns) == 4
        assert "echo made > half" in script.turns[2].text
        assert ended.object["cost_usd"] == 2 * REQUEST[engine] / 1e6
        assert it.remote("diff", "--name-only", f"main..watchbill/issue-{number}").split() == [
            "half",
            "quarter",
            "rest",
        ]
