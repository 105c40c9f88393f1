"""The wheel: built without the network, looked into, installed, and run from a directory that is not the checkout."""

from __future__ import annotations

import json
import os
import re
import site
import stat
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def pip(*argv: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-cache-dir", "--quiet", *map(str, argv)]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built once for the module, with the hatchling of this environment."""
    out = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-index", "--no-build-isolation", "--no-deps", "--wheel-dir", out, ROOT)
    (path,) = out.glob("watchbill-*.whl")
    return path


def test_what_is_in_the_wheel(wheel: Path) -> None:
    """Broken on purpose: with a second shared script (`implement`) in pyproject.toml, it was found on PATH here."""
    with zipfile.ZipFile(wheel) as archive:
        names = {info.filename: info for info in archive.infolist()}
    scripts = [name for name in names if ".data/" in name]
    assert [name.partition(".data/")[2] for name in scripts] == ["scripts/watchbill"]
    assert not [name for name in names if name.endswith("entry_points.txt")]
    assert {name.split("/")[0] for name in names if ".data/" not in name and ".dist-info/" not in name} == {"watchbill"}
    for path in (ROOT / "lib" / "watchbill").rglob("*"):
        if path.suffix in (".py", ".sql", ".j2", ".typed"):
            assert str(path.relative_to(ROOT / "lib")) in names, path
    for path in (ROOT / "bin").iterdir():
        script = names[f"watchbill/bin/{path.name}"]
        assert stat.S_IMODE(script.external_attr >> 16) & 0o111, f"{path.name} cannot be started by a timer"
    assert not [name for name in names if re.search(r"__pycache__|\.pyc$|^tests/", name)]


@pytest.fixture
def installed(wheel: Path, tmp_path: Path) -> Path:
    """An environment with nothing but the wheel in it; what it depends on is borrowed from this one.

    A directory named in a .pth file is searched, but the .pth files in it are not read: the checkout, installed
    editable here, stays out of sight.
    """
    root = tmp_path / "venv"
    venv.create(root, symlinks=True)
    pip("--python", root / "bin" / "python", "install", "--no-index", "--no-deps", wheel)
    (packages,) = root.glob("lib/python*/site-packages")
    (packages / "borrowed.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return root


def test_what_is_installed_runs_from_an_empty_directory(installed: Path, tmp_path: Path) -> None:
    """Broken on purpose: without `bin` in force-include the role script was looked for outside the package, in vain."""
    empty = tmp_path / "empty"
    empty.mkdir()
    python = installed / "bin" / "python"
    env = {**os.environ, "PATH": f"{installed / 'bin'}:/usr/bin:/bin", "TMPDIR": str(tmp_path)}
    env.pop("WATCHBILL_HOME")

    def run(*argv: str | Path) -> str:
        done = subprocess.run(argv, cwd=empty, env=env, text=True, capture_output=True, stdin=subprocess.DEVNULL,
                              check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    asked = "import watchbill; from watchbill import roles; print(watchbill.__file__, roles.script_of('implement'))"
    for path in run(python, "-c", asked).split():
        assert Path(path).is_relative_to(installed), path
        assert Path(path).is_file()
    assert run("watchbill", "--version").startswith("watchbill ")
    answer = json.loads(run("watchbill", "demo", "--json"))
    assert answer["outcome"] == "pull_request"
    assert str(ROOT) not in json.dumps(answer), "something of the checkout took part"
    assert list(empty.iterdir()) == []
