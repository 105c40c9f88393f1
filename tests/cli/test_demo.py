"""`watchbill demo`: the main job, as a newcomer meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from support.fleet import KEYS, WATCHBILL


def demo(tmp_path: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    environment.pop("WATCHBILL_HOME")
    return subprocess.run([sys.executable, WATCHBILL, "demo", *argv], text=True, capture_output=True, env=environment,
                          cwd=tmp_path, stdin=subprocess.DEVNULL, check=False)  # fmt: skip


def test_the_same_facts_for_programs(tmp_path: Path) -> None:
    done = demo(tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert set(told) >= KEYS
    assert {"home", "remote", "api_url", "racers"} <= set(told)
    assert told["outcome"] == "pull_request"
    assert sorted(racer["outcome"] for racer in told["racers"]) in (["lost", "pull_request"], ["idle", "pull_request"])
    assert [check["exit"] for check in told["checks"]["before"]] == [1]
    assert [check["exit"] for check in told["checks"]["after"]] == [0]
    assert told["cost_usd"] == 0.02
    assert all(Path(record["path"]).is_file() for record in told["evidence"])
    refs = subprocess.run(["git", "-C", told["remote"], "branch", "--list"], capture_output=True, text=True, check=True)
    assert told["branch"] in refs.stdout


def test_a_newcomer_reads_it(tmp_path: Path) -> None:
    done = demo(tmp_path)
    assert done.returncode == 0, done.stderr
    said = ["add() subtracts", "FAILS (exit 1)", "passes", "return a + b", "pull request acme/calc#2", "exit 75"]
    for words in [*said, "$0.02 of $0.50", "TYPE NEXT", "claimed it"]:
        assert words in done.stdout, done.stdout
    assert len(done.stdout.splitlines()) < 60


def test_what_it_says_to_type_next_works(tmp_path: Path) -> None:
    told = json.loads(demo(tmp_path, "--json").stdout)
    for command in told["next"][:4]:
        words = command.split()
        argv = [sys.executable, WATCHBILL, *words[1:]] if "watchbill" in words[0] else words
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (command, done.stderr)
        assert done.stdout
