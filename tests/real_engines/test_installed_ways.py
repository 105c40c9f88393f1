"""The real programs as people install them: each starts, in the jail, and its key arrives.

A script that is not given the credential that it expects answers 401, as the provider would; so `ok` says that too.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support import real
from support.fleet import WATCHBILL
from support.forge import git
from support.models import Models, says
from support.real import BIG, calls, cost, run_real

pytestmark = [pytest.mark.needs("bwrap")]

BOTH = [pytest.param(name, marks=pytest.mark.needs(name)) for name in ("claude", "codex")]
BASIS = {"claude": "engine", "codex": "priced"}


def by_npm(engine: str) -> Path:
    """The link that npm makes: for codex to its script, which needs node."""
    path = Path(os.environ.get("WATCHBILL_ENGINES", "/nowhere"), "node_modules", ".bin", engine)
    if not path.exists() or shutil.which("node") is None:
        if os.environ.get("WATCHBILL_REQUIRE"):
            pytest.fail(f"missing: {path}, or node")
        pytest.skip("missing: node_modules/.bin below WATCHBILL_ENGINES, or node")
    return path


def tried(root: Path, engine: str, models: Models, on_path: Path) -> dict[str, Any]:
    """What `watchbill try` says with this directory first on PATH, in a process of its own: a descriptor that has a
    high number, as in this one, is handed on even by node."""
    git("init", "--quiet", root / "project")
    git("commit", "--quiet", "--allow-empty", "-m", "Begin", cwd=root / "project")
    (root / "tmp").mkdir()
    script = models.script(calls(engine, "touch made", BIG), says("done", BIG))
    variable, url = {"claude": ("ANTHROPIC", script.anthropic_url), "codex": ("OPENAI", script.openai_url)}[engine]
    environment = {**os.environ, "PATH": f"{on_path}:{os.environ['PATH']}", "TMPDIR": str(root / "tmp"),
                   f"{variable}_API_KEY": real.KEY[engine], f"{variable}_BASE_URL": url}  # fmt: skip
    command = [sys.executable, WATCHBILL, "try", "--repo", str(root / "project"), "--issue", "Make it", "--engine",
               engine, "--model", real.MODEL[engine], "--check", "test -e made", "--json"]  # fmt: skip
    done = subprocess.run(command, env=environment, text=True, capture_output=True, stdin=subprocess.DEVNULL,
                          timeout=120, check=False)  # fmt: skip
    assert script.turned_away == [], done.stdout
    assert done.stdout, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def well(engine: str, answer: dict[str, Any]) -> bool:
    assert (answer["outcome"], answer["isolation"]) == ("pull_request", "bwrap"), answer
    assert (answer["cost_usd"], answer["cost_basis"]) == (cost(engine, BIG, BIG) / 1e6, BASIS[engine])
    return True


@pytest.mark.parametrize("engine", BOTH)
def test_by_npm(tmp_path: Path, models: Models, engine: str) -> None:
    """As `npm install -g` says it: on PATH is a link, for codex to a script.

    Broken once: with the script started, codex sent no Authorization header in any of its requests; 401, `auth`.
    """
    assert well(engine, tried(tmp_path, engine, models, by_npm(engine).parent))


@pytest.mark.parametrize("engine", BOTH)
def test_by_a_link_in_a_hidden_home(tmp_path: Path, own_world: Path, models: Models, engine: str) -> None:
    """~/tools/claude -> where the program really lies: the jail shows no `tools`.

    Broken once: `bwrap: execvp .../tools/claude: No such file or directory`, and charged the reservation; later, when
    it was asked there for its version first, `invalid`.
    """
    link = own_world / "tools" / engine
    link.parent.mkdir()
    link.symlink_to(by_npm(engine))
    assert well(engine, tried(tmp_path, engine, models, link.parent))


@pytest.mark.parametrize("engine", BOTH)
def test_by_a_script_of_another_package_manager(tmp_path: Path, models: Models, engine: str) -> None:
    """pnpm and yarn put a shell script on PATH, that starts what npm links to.

    Broken once: Codex's own script was started by it, and no key arrived; 401.
    """
    to = by_npm(engine).resolve()
    script = tmp_path / "pnpm" / engine
    script.parent.mkdir()
    start = f'exec node "$basedir/{os.path.relpath(to, script.parent)}"' if to.suffix == ".js" else f'exec "{to}"'
    script.write_text(f'#!/bin/sh\nbasedir=$(dirname "$(echo "$0" | sed -e \'s,\\\\,/,g\')")\n{start} "$@"\n')
    script.chmod(0o755)
    assert well(engine, tried(tmp_path, engine, models, script.parent))


@pytest.mark.parametrize("engine", BOTH)
def test_a_script_that_needs_what_is_hidden_is_refused_before_anything_is_claimed(
    tmp_path: Path, own_world: Path, models: Models, engine: str
) -> None:
    """~/.claude/local/claude starts what lies beside it, and the jail shows neither.

    Broken once: asked for its version outside, it was well; then it ended with 127, and was charged the reservation.
    """
    beside = own_world / ".claude" / "local" / "beside" / engine
    beside.parent.mkdir(parents=True)
    beside.write_text(f'#!/bin/sh\nexec "{by_npm(engine)}" "$@"\n')
    script = beside.parent.parent / engine
    script.write_text(f'#!/bin/sh\nexec "{beside}" "$@"\n')
    for path in (beside, script):
        path.chmod(0o755)
    answer = tried(tmp_path, engine, models, script.parent)
    assert (answer["outcome"], answer["cost_usd"]) == ("invalid", 0), answer
    assert "bwrap" in answer["reason"]
    assert "[engines." in answer["reason"]


@pytest.mark.parametrize("engine", BOTH)
def test_a_key_that_is_lost_on_the_way_is_seen(tmp_path: Path, models: Models, engine: str) -> None:
    """Of the tests themselves: the script's own 401 ends a run as the provider's would."""
    script = models.script(says("done", BIG), key="another")
    done = run_real(tmp_path, engine, script)
    assert (done.verdict, done.cost_micro) == ("auth", 0)
    assert script.turns == []
    assert {seen.credential for seen in script.turned_away} >= {real.KEY[engine]}
