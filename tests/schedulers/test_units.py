"""What each agent wants of a scheduler: names, words, places that outlive an upgrade; and whose a file says it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import venv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchbill import deadline
from watchbill.compiled import Compiled
from watchbill.home import Home
from watchbill.roster import read_roster
from watchbill.schedulers import header, manifest, units
from watchbill.schedulers.base import File, Unit
from watchbill.schedulers.schedule import check

ROOT = Path(__file__).resolve().parents[2]
SECRET = "ghp_0123456789abcdefghijABCDEFGHIJ012345"


def write_fleet(home: Path, schedule: str = "every 20m", toml: str = "") -> Compiled:
    (home / "agents").mkdir(parents=True, exist_ok=True)
    (home / "fleet.toml").write_text(
        '[fleet]\nrepos = ["acme/api"]\n[repo."acme/api"]\nchecks = ["true", "true"]\ncheck_timeout = "2m"\n' + toml
    )
    (home / "agents" / "bosun.md").write_text(
        f"---\nname: bosun\ndescription: d\nwatchbill:\n  role: implement\n  schedule: {schedule}\n  timeout: 10m\n"
        "  engine: {use: command, argv: ['true']}\n  caps: {firing_usd: 1, day_usd: 5}\n---\nDo it.\n{{ brief }}\n"
    )
    (home / "agents" / "steward.md").write_text(
        "---\nname: steward\ndescription: d\nwatchbill: {role: sweep, every: 1h}\n---\nSweep.\n"
    )
    return read_roster(str(home))


def test_what_a_unit_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the shell that `apply` was typed in gets into it. Broken once: PATH of the shell, and it was there."""
    monkeypatch.setenv("HOME", str(tmp_path / "you"))
    monkeypatch.setenv("PATH", f"/of/this/shell:{os.environ['PATH']}")
    monkeypatch.setenv("GH_TOKEN", SECRET)
    roster = write_fleet(
        tmp_path / "home", toml='[schedule]\nmargin = "5m"\nenv = {HTTPS_PROXY = "http://proxy:3128"}\n'
    )
    home = Home(str(tmp_path / "home"))
    unit = units.of_roster(home, roster)["bosun"]
    assert unit.argv[1:] == ("-I", f"{home.root}/units/bin/implement", "bosun", "--scheduled", "--home", home.root)
    assert all(os.path.isabs(word) for word in (unit.argv[0], unit.log, unit.directory, *unit.gates))
    assert dict(unit.environment) == {
        "HTTPS_PROXY": "http://proxy:3128",
        "PATH": f"{tmp_path}/you/.local/bin:/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
        "WATCHBILL_HOME": home.root,
    }
    assert SECRET not in repr(unit)
    # ten minutes of engine, two checks of two minutes on the base and on the work, five of margin, one to end by itself
    assert deadline.of(roster.agents["bosun"], roster.fleet) == 600 + 2 * 2 * 120 + 300
    assert unit.deadline_s == 600 + 2 * 2 * 120 + 300 + 60
    assert deadline.of(roster.agents["steward"], roster.fleet) == 300


def test_two_fleets_of_one_person_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    usual, other = Home(str(tmp_path / ".watchbill")), Home(str(tmp_path / "other"))
    assert units.unit_name(usual, "bosun") == "watchbill-bosun"
    assert units.unit_name(other, "bosun") not in ("watchbill-bosun", "watchbill--bosun")
    assert units.unit_name(other, "bosun").startswith("watchbill-")


def test_by_hand_only_has_no_unit(tmp_path: Path) -> None:
    roster = write_fleet(tmp_path, "manual")
    assert set(units.of_roster(Home(str(tmp_path)), roster)) == {"steward"}


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ('use = "cron"', "'cron' is no scheduler"),
        ('use = "sytemd"', "did you mean 'systemd'"),
        ('path = "bin:/usr/bin"', "'bin' is no absolute directory"),
        ('path = ""', "is no absolute directory"),
        ("margin = 0", "more than nothing"),
        ('env = {GH_TOKEN = "x"}', "looks like a secret, which the system shows to everybody"),
        ('env = {HTTPS_PROXY = "http://me:pass@proxy"}', "holds a password"),
        ('env = {WATCHBILL_HOME = "/x"}', "for Watchbill to say"),
        ('env = {"A B" = "x"}', "no name and text"),
        ("evn = {}", "did you mean 'env'"),
    ],
)
def test_mistakes_in_the_table(tmp_path: Path, toml: str, says: str) -> None:
    with pytest.raises(Exception, match=r"fleet\.toml:[0-9]+: schedule") as caught:
        write_fleet(tmp_path, toml=f"[schedule]\n{toml}\n")
    assert says in str(caught.value)


def test_a_launcher_outlives_an_upgrade(tmp_path: Path) -> None:
    """The package lies elsewhere after it, as under another Python; the launcher asks its interpreter where.

    Broken once: with the script's own path in the launcher it was gone after the upgrade.
    """
    home = Home(str(tmp_path / "home"))
    for file in units.launchers(home, write_fleet(tmp_path / "home")):
        manifest.put(file)
    venv.create(tmp_path / "venv", symlinks=True)
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")

    def fires(place: str) -> None:
        shutil.copytree(ROOT / "lib", tmp_path / place / "lib", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "bin", tmp_path / place / "bin")
        (packages / "watchbill.pth").write_text(str(tmp_path / place / "lib"))
        argv = [tmp_path / "venv" / "bin" / "python", "-I", units.launcher_path(home, "implement"), "--help"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, env={})
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("usage: fire AGENT")

    fires("before")
    shutil.rmtree(tmp_path / "before")
    fires("after")


def a_unit(home: str, agent: str) -> Unit:
    return Unit(agent, "", "", home, (), "", (), "", 1, (), check("manual"), 0)


@given(
    home=st.text(min_size=1).map(lambda text: "/" + text), body=st.text(alphabet=st.characters(exclude_characters="\r"))
)
def test_the_line_says_whose_it_is(home: str, body: str) -> None:
    """Whatever the home is called; and it can stand in a comment of XML."""
    try:
        home.encode()
    except UnicodeEncodeError:
        return
    line = header.text(a_unit(home, "bosun"), body)
    assert "--" not in line
    assert " home=" in line
    assert header.read(f"# {line}\n{body}".encode()) == header.Header(home, "bosun", False)
    assert header.read(f"# {line}\n{body} ".encode()) == header.Header(home, "bosun", True)
    assert header.read(f"# not {body}".encode()) is None or "managed by watchbill" in body


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    """A link in its place is replaced, and not what it points to."""
    here, precious = tmp_path / "here", tmp_path / "precious"
    precious.write_text("mine")
    here.mkdir()
    (here / "unit").symlink_to(precious)
    manifest.put(File(str(here / "unit"), b"ours"))
    assert (precious.read_text(), (here / "unit").read_text()) == ("mine", "ours")
    assert not (here / "unit").is_symlink()
    assert (here / "unit").stat().st_mode & 0o777 == 0o644
    (here / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        manifest.put(File(str(here / "folder"), b"ours"))
    assert sorted(path.name for path in here.iterdir()) == ["folder", "unit"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version": 1}', '{"version": 1, "scheduler": "x", "agents": {"a": {}}}']
)
def test_a_damaged_manifest_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "units").mkdir()
    (tmp_path / "units" / "applied.json").write_text(text)
    assert manifest.read(Home(str(tmp_path))) == manifest.NOTHING


@pytest.mark.parametrize("text", [SECRET, "sk-ant-api03-" + "a1B2" * 24])
def test_a_secret_by_any_name_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(Exception, match="looks like a secret"):
        write_fleet(tmp_path, toml=f'[schedule]\nenv = {{FOO = "{text}"}}\n')
