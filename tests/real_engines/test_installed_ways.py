"""The real programs as people install them: each starts, in the jail, and its key arrives.

A script that is not given the credential that it expects answers 401, as the provider would; so `ok` says that too.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from support import real
from support.models import Models, says
from support.real import BIG, calls, cost, run_real
from watchbill.engines.base import Result

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


def run(root: Path, engine: str, models: Models, program: Path) -> Result:
    script = models.script(calls(engine, "touch made", BIG), says("done", BIG))
    done = run_real(root, engine, script, options={"program": str(program)})
    assert script.turned_away == []
    assert (root / "work" / "made").exists()
    return done


def well(engine: str, done: Result) -> bool:
    assert (done.verdict, done.isolation) == ("ok", "bwrap"), done
    assert (done.cost_micro, done.basis) == (cost(engine, BIG, BIG), BASIS[engine])
    return True


@pytest.mark.parametrize("engine", BOTH)
def test_by_npm(tmp_path: Path, models: Models, engine: str) -> None:
    """As `npm install -g` says it: on PATH is a link, for codex to a script.

    Broken once: with the script started, codex sent no Authorization header in any of its requests; 401, `auth`.
    """
    assert well(engine, run(tmp_path, engine, models, by_npm(engine)))


@pytest.mark.parametrize("engine", BOTH)
def test_by_a_link_in_a_hidden_home(tmp_path: Path, own_world: Path, models: Models, engine: str) -> None:
    """~/tools/claude -> where the program really lies: the jail shows no `tools`.

    Broken once: `bwrap: execvp .../tools/claude: No such file or directory`, and charged the reservation.
    """
    link = own_world / "tools" / engine
    link.parent.mkdir()
    link.symlink_to(by_npm(engine))
    assert well(engine, run(tmp_path, engine, models, link))


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
    assert well(engine, run(tmp_path, engine, models, script))


@pytest.mark.parametrize("engine", BOTH)
def test_a_key_that_is_lost_on_the_way_is_seen(tmp_path: Path, models: Models, engine: str) -> None:
    """Of the tests themselves: the script's own 401 ends a run as the provider's would."""
    script = models.script(says("done", BIG), key="another")
    done = run_real(tmp_path, engine, script)
    assert (done.verdict, done.cost_micro) == ("auth", 0)
    assert script.turns == []
    assert {seen.credential for seen in script.turned_away} >= {real.KEY[engine]}
