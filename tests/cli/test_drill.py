"""`watchbill drill`: the proof that a stop stops, for whoever wants to see it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from support.fleet import WATCHBILL


def documented(name: str) -> set[str]:
    """The keys that docs/programs.md gives an object."""
    page = (Path(__file__).parents[2] / "docs" / "programs.md").read_text(encoding="utf-8")
    return set(re.findall(r"^\| `(\w+)` \|", page.partition(f"\n### {name}\n")[2].partition("\n## ")[0], re.MULTILINE))


def drill(tmp_path: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    return subprocess.run([sys.executable, WATCHBILL, "drill", *argv], text=True, capture_output=True, env=environment,
                          cwd=tmp_path, stdin=subprocess.DEVNULL, timeout=120, check=False)  # fmt: skip


def test_it_is_proven_and_nothing_is_left(tmp_path: Path) -> None:
    """Broken on purpose: with neither a hold nor a signal, "something was still there" and exit status 65."""
    before = set(tmp_path.iterdir())
    done = drill(tmp_path, "--agents", "1", "--json")
    assert done.returncode == 0, (done.stdout, done.stderr)
    told = json.loads(done.stdout)
    keys = {"schema", "proven", "wrong", "seconds", "left", "dummies", "held", "after"}
    assert set(told) == keys == documented("drill")
    assert (told["schema"], told["proven"], told["wrong"], told["left"]) == (1, True, [], [])
    (dummy,) = told["dummies"]
    # The runner, its keeper, the engine and three children, one of which had left the tree.
    assert len(dummy["pids"]) >= 6
    assert (dummy["left"], dummy["billed"], dummy["claim"]) == ([], True, "released")
    assert (dummy["cost_usd"], dummy["cost_basis"]) == (0.10, "engine")
    assert dummy["kept"]
    assert (told["held"]["outcome"], told["held"]["exit"]) == ("held", 75)
    assert told["after"]["outcome"] == "pull_request"
    assert set(tmp_path.iterdir()) == before


def test_too_many(tmp_path: Path) -> None:
    for number in ("0", "51"):
        done = drill(tmp_path, "--agents", number)
        assert (done.returncode, "WB-DRILL-01" in done.stderr) == (78, True)
