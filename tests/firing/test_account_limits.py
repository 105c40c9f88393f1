"""An engine's rate limit, once with everything real: processes, an engine that prints it, the practice forge.

The rest of it, with twenty agents and a clock moved by hand: tests/gates/test_pill.py.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from support.fleet import LABEL, agent, finish, fleet, wait_for
from watchbill import holds
from watchbill.ledger.holds import Hold

#: Limited while a file says until when; else it does the work. What it is called with is noted, a line a run.
_ENGINE = """
import json, os, sys, time
room = sys.argv[1]
with open(os.path.join(room, "runs"), "a") as runs:
    runs.write(f"{time.time()}\\n")
try:
    until = float(open(os.path.join(room, "limit")).read())
except OSError:
    until = 0
if time.time() < until:
    print(json.dumps({"type": "rate_limited", "until": until}), flush=True)
    sys.exit(1)
print(json.dumps({"type": "usage", "input_tokens": 10, "output_tokens": 5, "cost_usd": 0.01}), flush=True)
time.sleep(float(sys.argv[2]))
open("done.txt", "w").write("done")
"""


def on_the_account(room: Path, takes_s: float = 0.0, **more: Any) -> dict[str, Any]:
    argv = [sys.executable, "-c", _ENGINE, str(room), str(takes_s)]
    return agent({"use": "command", "argv": argv, "account": "team", **more}, isolation="none")


def runs(room: Path) -> int:
    path = room / "runs"
    return len(path.read_text().splitlines()) if path.exists() else 0


def late_in_turn(count: int) -> list[str]:
    """Names whose turn after the first hold of a ledger comes late: none of them gets in by chance."""
    healed = Hold(1, "account", "team", "rate_limit", "", "", 0, 0, heals=1, lifted_at=0, eases_until=holds.EASE_S)
    return [name for n in range(500) if holds.turn_s(healed, name := f"hand-{n}") >= 50][:count]


def test_one_hits_a_limit_and_all_that_use_the_account_wait_for_one(tmp_path: Path) -> None:
    """Broken on purpose: without go_first three engines ran at the reset instead of one."""
    room = tmp_path / "room"
    room.mkdir()
    team = late_in_turn(3)
    agents = {name: on_the_account(room, takes_s=1.5) for name in team}
    agents["spare"] = on_the_account(room, fallback="scripted")
    steps = [{"write": {"path": "done.txt", "content": "x"}}, {"usage": {"input_tokens": 1, "output_tokens": 1}}]
    toml = f"[engines.scripted]\nsteps = {_toml(steps)}\n"
    with fleet(tmp_path, agents, toml=toml) as it:
        for n in range(6):
            it.world.issue("octocat", f"Do {n}", labels=[LABEL])
        reset = int(time.time()) + 900
        (room / "limit").write_text(str(reset))
        first = it.fire(team[0])
        assert (first.outcome, first.status) == ("held", 75)
        assert "account team is held until" in first.reason
        assert it.rows("SELECT kind, scope, subject, until FROM holds") == [("rate_limit", "account", "team", reset)]
        assert runs(room) == 1
        others = [it.fire(name) for name in team[1:]]
        assert [one.outcome for one in others] == ["held"] * 2
        assert runs(room) == 1  # stopped at the gate: no engine was asked
        assert it.fire("spare").outcome == "pull_request"  # on its other engine
        assert it.rows("SELECT engine FROM firings WHERE agent = 'spare'") == [("scripted",)]
        assert runs(room) == 1
        (room / "limit").unlink()  # and the clock moved on by a quarter of an hour
        it.change("UPDATE holds SET until = ?", int(time.time()) - 1)
        it.change("UPDATE attempts SET next_at = 0")
        firings = [it.start(name) for name in team]
        wait_for("the canary's engine", lambda: runs(room) == 2)
        ends = [finish(one) for one in firings]
        assert sorted(one.outcome for one in ends) == ["held", "held", "pull_request"], ends
        assert runs(room) == 2
        canary = next(one for one in ends if one.outcome == "pull_request")
        assert it.rows("SELECT canary, lifted_by FROM holds") == [(canary.object["firing"],) * 2]
        again = next(one.object["agent"] for one in ends if one.outcome == "held")
        waits = it.fire(again)
        assert waits.outcome == "held"
        assert "let in one by one" in waits.reason
        it.change("UPDATE holds SET eases_until = lifted_at")  # its turn has come
        assert it.fire(again).outcome == "pull_request"


def _toml(steps: list[dict[str, Any]]) -> str:
    """JSON, but for the colon after a key."""
    return json.dumps(steps).replace('": ', '" = ')
