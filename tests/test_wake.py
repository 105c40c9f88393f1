"""What a firing costs that does nothing: counts, which do not depend on how busy the machine is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.fleet import LABEL, Fleet, agent, fleet
from watchbill import roles

_WATCHED = """
import os, runpy, sys
seen, before = [], set(sys.modules)  # what site and its .pth files brought is not ours
bad = ("os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "subprocess.Popen", "socket.connect", "socket.getaddrinfo")
sys.addaudithook(lambda event, args: seen.append(event) if event in bad else None)
real = os._exit
def leave(status):
    import json
    new = {n: getattr(m, "__file__", None) or "" for n, m in sys.modules.items() if n not in before}
    own = [name for name, file in new.items() if "site-packages" in file]
    sys.stderr.write(json.dumps({"events": seen, "third": own, "modules": sorted(sys.modules)}))
    sys.stderr.flush()
    real(status)
os._exit = leave
script, sys.argv = sys.argv[1], sys.argv[1:]
runpy.run_path(script, run_name="__main__")
"""
_FORBIDDEN = {"asyncio", "http", "email", "subprocess", "importlib.metadata", "urllib.request", "ssl", "argparse"}


def watched(it: Fleet, name: str) -> tuple[int, str, dict[str, list[str]]]:
    argv = [sys.executable, "-I", "-c", _WATCHED, roles.script_of("implement"), name, "--scheduled"]
    done = subprocess.run(argv, env=it.environment(), text=True, capture_output=True, check=False)
    return done.returncode, done.stdout, json.loads(done.stderr)


@pytest.mark.parametrize("ends", ["held", "capped", "idle"])
def test_nothing_is_imported_forked_or_asked_on_the_way_to_a_refusal(tmp_path: Path, ends: str) -> None:
    """Broken on purpose: `import filelock` at the top of lock.py showed up under `third`, with asyncio."""
    with fleet(tmp_path, {"bosun": agent(caps={"firing_usd": 1, "day_usd": 1})}) as it:
        if ends == "capped":
            it.world.issue("octocat", "Do it", labels=[LABEL])
        it.fire("bosun")  # compiles the roster, refreshes the poll, and spends something of the day
        if ends == "held":
            assert it.run("pause", "bosun").returncode == 0
        before = len(it.world.practice.log)
        status, out, found = watched(it, "bosun")
        assert out.startswith("bosun: ")
        assert status == (0 if ends == "idle" else 75), out
        assert found["events"] == []
        assert found["third"] == []
        assert not _FORBIDDEN & set(found["modules"])
        assert len(it.world.practice.log) == before
        assert it.rows("SELECT outcome FROM firings ORDER BY id DESC LIMIT 1") == [(ends,)]


@pytest.mark.needs("strace")
def test_a_refusal_syncs_nothing(tmp_path: Path) -> None:
    """Broken on purpose: with `sys.exit` for `leave` the closing connection checkpointed: 4 fdatasync."""
    with fleet(tmp_path) as it:
        it.fire("bosun")
        it.run("pause", "bosun")
        it.fire("bosun")
        trace = tmp_path / "trace"
        argv = ["strace", "-f", "-o", str(trace), "-e", "trace=fsync,fdatasync,fork,vfork,clone,clone3,execve,connect"]
        argv += [sys.executable, "-I", roles.script_of("implement"), "bosun", "--scheduled"]
        done = subprocess.run(argv, env=it.environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 75, done.stderr
        calls = [line for line in trace.read_text().splitlines() if "exited with" not in line]
        assert len(calls) == 1, calls  # the execve that strace itself starts it with


def test_a_home_that_is_not_there_is_said(tmp_path: Path) -> None:
    with fleet(tmp_path) as it:
        done = it.run("--home", str(tmp_path / "nowhere"), "status")
        assert done.returncode == 78
        assert "WB-HOME-01" in done.stderr
        done = it.run("fire", "bosun", "--home", str(tmp_path / "nowhere"))
        assert done.returncode == 78
        assert not (tmp_path / "nowhere").exists()


def test_an_edited_roster_is_taken_up_by_the_next_firing(tmp_path: Path) -> None:
    with fleet(tmp_path) as it:
        it.fire("bosun")
        first = json.loads((it.home / "roster.json").read_text())["digest"]
        (it.home / "agents" / "bosun.md").write_text((it.home / "agents" / "bosun.md").read_text() + "\nMore.\n")
        it.fire("bosun")
        second = json.loads((it.home / "roster.json").read_text())["digest"]
        assert first != second
        assert [row[0] for row in it.rows("SELECT config FROM firings ORDER BY id")] == [first, second]
