"""`watchbill try` on real projects with a history of their own, their own tests as the check.

`tests/real/fetch DIR` brings them; WATCHBILL_PROJECTS=DIR lets this run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.fleet import WATCHBILL
from support.forge import git

PROJECTS = Path(os.environ.get("WATCHBILL_PROJECTS", "/nowhere"))
pytestmark = pytest.mark.needs_projects


def trial(name: str, tmp: Path, *argv: str) -> tuple[int, dict[str, Any], str]:
    command = [sys.executable, WATCHBILL, "try", "--repo", str(PROJECTS / name), "--json", *argv]
    done = subprocess.run(
        command,
        text=True,
        capture_output=True,
        env={**os.environ, "TMPDIR": str(tmp)},
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


def state(name: str) -> tuple[str, str, str]:
    """Checkout, index and config, as git and the file system tell them."""
    root = PROJECTS / name
    refs = [ref for ref in git("for-each-ref", cwd=root).splitlines() if "watchbill/try-" not in ref]
    return git("status", "--porcelain", cwd=root), (root / ".git" / "config").read_text(), "\n".join(refs)


CHECKS = {
    "click": f"PYTHONPATH=src {PROJECTS}/venv/bin/python -m pytest -q tests/test_basic.py tests/test_options.py",
    "django": f"cd tests && PYTHONPATH=.. {PROJECTS}/venv/bin/python runtests.py --parallel=1 utils_tests.test_text",
}
CHANGES = {  # a change that the project's own tests hold, and one that they catch
    "click": ("sed -i '1s/^/# seen\\n/' src/click/__init__.py", "sed -i s/def/fed/ src/click/core.py"),
    "django": ("sed -i '1s/^/# seen\\n/' django/utils/text.py", "sed -i s/capfirst/lowfirst/ django/utils/text.py"),
}


@pytest.mark.parametrize("name", ["click", "django"])
def test_a_good_change_lands_and_a_bad_one_is_kept(name: str, tmp_path: Path) -> None:
    root, before = PROJECTS / name, state(name)
    if name == "django":
        assert len(git("ls-files", cwd=root).splitlines()) > 2000
    assert int(git("rev-list", "--count", "HEAD", cwd=root)) == 2
    good, bad = CHANGES[name]
    status, answer, err = trial(name, tmp_path, "--issue", "Mark it", "--argv", good, "--check", CHECKS[name])
    assert (status, answer.get("outcome")) == (0, "pull_request"), (answer, err)
    assert [(check["on"], check["exit"]) for check in answer["checks"]] == [("base", 0), ("work", 0)]
    assert git("rev-list", "--count", f"main..{answer['branch']}", cwd=root) == "1"
    assert answer["change"]["files"] == 1
    git("branch", "--quiet", "-D", answer["branch"], cwd=root)

    status, answer, _ = trial(name, tmp_path, "--issue", "Break it", "--argv", bad, "--check", CHECKS[name])
    assert (status, answer["outcome"], answer["branch"]) == (65, "checks_failed", None)
    kept = answer["kept"]
    assert git("--git-dir", kept["mirror"], "rev-parse", kept["ref"]) == kept["commit"]
    assert state(name) == before
