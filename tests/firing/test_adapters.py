"""What a firing does around an engine with an adapter of its own, shown with a stand-in for the program: a script that
is called `claude`, speaks as Claude Code does and writes down how it was started. The real ones: tests/real_engines.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from support.fleet import LABEL, agent, fleet, rested, wait_for
from support.forge import git

KEY = "sk-ant-api03-of-the-test"
#: Says what it was given, and spends a cent.
STAND_IN = r"""#!{python} -I
import json, os, sys, time
if sys.argv[1:] == ["--version"]:
    print("{version} (Claude Code)")
    sys.exit()
name = "CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR"
key = open(int(os.environ[name])).read() if name in os.environ else None
session = "00000000-0000-4000-8000-000000000001"
talk = os.path.join(os.environ["CLAUDE_CONFIG_DIR"], "projects", "x", session + ".jsonl")
told = {{"argv": sys.argv[1:], "env": dict(os.environ), "key": key, "brief": sys.stdin.read(),
        "talk": open(talk).read() if os.path.exists(talk) else None}}
with open(os.path.join({room!r}, "%d.json" % time.monotonic_ns()), "w") as file:
    json.dump(told, file)
os.makedirs(os.path.dirname(talk), exist_ok=True)
with open(talk, "a") as file:
    print(json.dumps({{"type": "assistant", "message": {{"id": "m%d" % os.getpid(), "model": "claude-sonnet-5-5",
        "usage": {{"input_tokens": 1000, "output_tokens": 100}}}}}}), file=file)
open("half", "w").write("half")
{between}
print(json.dumps({{"type": "result", "subtype": "success", "is_error": False, "num_turns": 1, "session_id": session,
    "total_cost_usd": 0.01, "model_usage_since_last_result": {{"claude-sonnet-5-5": {{"inputTokens": 1000,
    "outputTokens": 100, "costUSD": 0.01, "costBasis": "list"}}}}}}))
"""


def stand_in(tmp_path: Path, between: str = "", version: str = "2.1.329") -> Path:
    path = tmp_path / "bin" / "claude"
    path.parent.mkdir(exist_ok=True)
    room = tmp_path / "told"
    room.mkdir(exist_ok=True)
    path.write_text(STAND_IN.format(python=sys.executable, version=version, between=between, room=str(room)))
    path.chmod(0o755)
    return path


def toml(tmp_path: Path, program: Path, **more: Any) -> str:
    key = tmp_path / "anthropic"
    key.write_text(KEY)
    key.chmod(0o600)
    lines = {"program": str(program), "key": f"file:{key}", "request_usd": 0.5, **more}
    table = "".join(f"{name} = {json.dumps(value)}\n" for name, value in lines.items())
    return f"[isolation]\nrw = [{json.dumps(str(tmp_path / 'told'))}]\n[engines.claude]\n{table}"


def told(tmp_path: Path) -> Any:
    """What the stand-in was told when it was last started."""
    return json.loads(max((tmp_path / "told").iterdir()).read_text())


def test_a_firing_with_claude(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guidance of the base, key, tools, limits, cost; and the version is asked once.

    Broken once: with the key in the environment as well, and with the version asked at every firing; each was seen.
    """
    monkeypatch.setenv("ANTHROPIC_API_KEY", "the operator's own")
    program = stand_in(tmp_path)
    files = {"AGENTS.md": "Write no comments.\n", "CLAUDE.md": "Keep to the style.\n", "a.txt": "a\n"}
    bosun = agent({"use": "claude"}, caps={"firing_usd": 1, "day_usd": 100, "firing_turns": 7})
    with fleet(tmp_path, {"bosun": bosun}, files=files, toml=toml(tmp_path, program)) as it:
        it.world.issue("octocat", "Do it", labels=[LABEL])
        ended = it.fire("bosun")
        assert ended.outcome == "pull_request", ended
        assert (ended.object["cost_usd"], ended.object["cost_basis"]) == (0.01, "engine")
        said = told(tmp_path)
        argv = said["argv"]
        assert argv[argv.index("--append-system-prompt") + 1] == "Keep to the style.\n"
        assert argv[argv.index("--max-turns") + 1] == "7"
        assert float(argv[argv.index("--max-budget-usd") + 1]) == 1
        assert (said["key"], "Do it" in said["brief"]) == (KEY, True)
        assert KEY not in json.dumps(said["env"])
        assert "operator" not in json.dumps(said["env"])
        ((version, asked),) = it.rows("SELECT version, asked_at FROM programs")
        assert version == "2.1.329"
        it.world.issue("octocat", "And this", labels=[LABEL])
        assert it.fire("bosun").outcome == "pull_request"
        assert it.rows("SELECT asked_at FROM programs") == [(asked,)]
        for path in (it.home / "logs", it.home / "blobs"):
            assert not [f for f in path.rglob("*") if f.is_file() and KEY.encode() in f.read_bytes()]


def test_a_link_among_the_guides_is_no_guide(tmp_path: Path) -> None:
    """CLAUDE.md as a symbolic link: git has the path that it names for its content, which is no guidance to anybody.

    Broken once: with every blob taken for a file the guidance was `AGENTS.md`.
    """
    program = stand_in(tmp_path)
    bosun = agent({"use": "claude"})
    with fleet(tmp_path, {"bosun": bosun}, files={"AGENTS.md": "Be brief.\n"}, toml=toml(tmp_path, program)) as it:
        work = tmp_path / "person-work"
        git("clone", "--quiet", it.world.bare, work)
        os.symlink("AGENTS.md", work / "CLAUDE.md")
        git("add", "-A", cwd=work)
        git("commit", "--quiet", "-m", "link", cwd=work)
        git("push", "--quiet", "origin", "HEAD", cwd=work)
        it.world.issue("octocat", "Do it", labels=[LABEL])
        assert it.fire("bosun").outcome == "pull_request"
        argv = told(tmp_path)["argv"]
        assert argv[argv.index("--append-system-prompt") + 1] == "Be brief.\n"


def test_a_stopped_firing_is_gone_on_with(tmp_path: Path) -> None:
    """The second firing has the conversation of the first, says so with --resume, and pays for its own part only.

    Broken once: without `sessions.keep` beside `keep_work` the second began anew.
    """
    wait = 'time.sleep(60) if told["talk"] is None else None'
    program = stand_in(tmp_path, between=wait)
    bosun = agent({"use": "claude"})
    with fleet(tmp_path, {"bosun": bosun}, toml=toml(tmp_path, program)) as it:
        it.world.issue("octocat", "Do it", labels=[LABEL])
        first = it.start("bosun")
        wait_for("the engine to be at work", lambda: list((it.home / "worktrees").glob("*/tree/half")))
        time.sleep(1.2)  # a beat, so that the transcript was read
        first.terminate()
        out, _ = first.communicate(timeout=60)
        assert json.loads(out)["outcome"] == "cancelled"
        rested(it)
        ended = it.fire("bosun")
        assert ended.outcome == "pull_request", ended
        said = told(tmp_path)
        assert said["argv"][said["argv"].index("--resume") + 1] == "00000000-0000-4000-8000-000000000001"
        assert said["talk"].count("assistant") == 1
        assert (ended.object["cost_usd"], ended.object["cost_basis"]) == (0.01, "engine")


def test_what_cannot_be_used_is_refused_before_anything_is_claimed(tmp_path: Path) -> None:
    program = stand_in(tmp_path, version="1.0.44")
    with fleet(tmp_path, {"bosun": agent({"use": "claude"})}, toml=toml(tmp_path, program)) as it:
        it.world.issue("octocat", "Do it", labels=[LABEL])
        old = it.fire("bosun")
        assert (old.status, old.outcome) == (78, "invalid")
        assert "claude 1.0.44 is too old" in old.reason
        stand_in(tmp_path)
        (tmp_path / "anthropic").unlink()
        keyless = it.fire("bosun")
        assert (keyless.status, keyless.outcome) == (77, "unauthorized")
        assert it.labels(1) == {LABEL}
        assert it.remote("for-each-ref", "refs/watchbill") == ""
