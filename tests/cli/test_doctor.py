"""`watchbill doctor`: what is missing or wrong on a host, each with its fix; and no secret in what it says.

Here the shell's column, `--here`; the scheduler's is in tests/doctor.
"""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support import real
from support.fleet import WATCHBILL, agent, python, write_agent
from watchbill.cli import main
from watchbill.isolation import landlock

Capsys = pytest.CaptureFixture[str]
KEY = "sk-ant-api03-" + "Zk9" * 12
#: A port at which nobody listens.
NOBODY = 'api_url = "http://127.0.0.1:9"\n'
_MAIN = "from watchbill.cli import main; sys.exit(main.run(sys.argv[1:]))"


class Desk:
    """A host whose PATH has one directory, with git in it; without any layer of isolation unless a test puts one there.
    GitHub does not answer.
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys) -> None:
        self.root, self.bin, self.home, self._capsys = root, root / "bin", root / "home", capsys
        self.bin.mkdir()
        (self.bin / "git").symlink_to(str(shutil.which("git")))
        monkeypatch.setenv("PATH", str(self.bin))
        monkeypatch.setattr(landlock, "_CREATE_RULESET", 100_000)  # no such system call: as an older kernel answers

    def program(self, name: str, text: str) -> Path:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    def fleet(self, toml: str = "", **agents: dict[str, Any]) -> None:
        (self.home / "agents").mkdir(parents=True, exist_ok=True)
        token = self.root / "github"
        token.write_text("of nobody")
        token.chmod(0o600)
        auth = "" if "[github]" in toml else f'[github]\n{NOBODY}auth = "token:file:{token}"\n'
        (self.home / "fleet.toml").write_text(f'[fleet]\nrepos = ["acme/api"]\n{auth}{toml}')
        for name, engine in agents.items():
            write_agent(self.home, name, agent(engine, isolation="none"))

    def key(self, mode: int = 0o600) -> Path:
        path = self.root / "key"
        path.write_text(KEY)
        path.chmod(mode)
        return path

    def asked(self) -> tuple[int, dict[str, Any], str]:
        """Exit status, the object of --json, and everything that was printed."""
        self._capsys.readouterr()
        status = main.run(["--home", str(self.home), "doctor", "--here", "--json"])
        said = self._capsys.readouterr()
        return status, json.loads(said.out), said.out + said.err

    def rows(self) -> list[list[str]]:
        self._capsys.readouterr()
        main.run(["--home", str(self.home), "doctor", "--here"])
        return [line.split("\t") for line in self._capsys.readouterr().out.splitlines()]

    def found(self, check: str) -> list[tuple[str, str, str | None]]:
        """(subject, state, id) of a check's findings."""
        _, whole, _ = self.asked()
        return [(one["subject"], one["state"], one["id"]) for one in whole["findings"] if one["check"] == check]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys) -> Desk:
    return Desk(tmp_path, monkeypatch, capsys)


def test_a_fleet_in_order(desk: Desk) -> None:
    desk.program("claude", "echo '2.1.329 (Claude Code)'")
    desk.fleet(f'[engines.claude]\nkey = "file:{desk.key()}"\n', bosun={"use": "claude"}, mate=python("pass"),
               gunner={"use": "claude", "fallback": "command"})  # fmt: skip
    desk.fleet(f'[engines.claude]\nkey = "file:{desk.key()}"\n[engines.command]\nargv = ["{sys.executable}"]\n')
    status, whole, said = desk.asked()
    assert (status, whole["ok"], whole["schema"], whole["home"]) == (0, True, 1, str(desk.home))
    texts = {(one["subject"], one["what"]) for one in whole["findings"]}
    assert (str(desk.home), "3 agents in the roster") in texts
    assert ("claude (bosun)", f"{desk.bin}/claude is version 2.1.329") in texts
    assert ("claude (bosun)", f"its credential is there: file:{desk.root}/key") in texts
    assert ("command (mate)", f"{sys.executable} is there") in texts
    assert ("command (gunner)", f"{sys.executable} is there") in texts
    assert KEY not in said


def test_without_a_fleet_it_looks_at_the_host(desk: Desk) -> None:
    """What nobody runs on yet cannot be wrong."""
    desk.program("claude", "echo 1.0.3")
    desk.program("codex", "echo codex-cli 0.169.0")
    assert [finding[:2] for finding in desk.found("fleet")] == [(str(desk.home), "note")]
    assert desk.found("engines") == [("claude", "note", "WB-ENGINE-06"), ("codex", "ok", None),
                                     ("codex", "note", "WB-ENGINE-07")]  # fmt: skip
    assert not desk.home.exists()


@pytest.mark.parametrize(
    ("text", "id"),
    [
        ("echo 1.0.3", "WB-ENGINE-06"),
        ("exit 1", "WB-ENGINE-08"),
        ("", "WB-ENGINE-01"),
        ("echo 2.1.329", "WB-ENGINE-07"),
    ],
)
def test_an_engine_that_cannot_run_is_wrong(desk: Desk, text: str, id: str) -> None:
    """Too old, silent, missing, without a credential. Broken once: the version was asked and not judged."""
    if text:
        desk.program("claude", text)
    desk.fleet(bosun={"use": "claude"})
    status, whole, _ = desk.asked()
    (wrong,) = (one for one in whole["findings"] if one["state"] == "wrong")
    assert (status, whole["ok"], wrong["id"], wrong["subject"]) == (78, False, id, "claude (bosun)")
    assert wrong["fix"]


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.needs(name)) for name in ("claude", "codex")])
def test_the_real_programs_are_known(desk: Desk, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked without a login, a network or an environment, and in the range of the adapter."""
    path = real.program(name)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    desk.fleet(f'[engines.{name}]\nprogram = "{path}"\nkey = "file:{desk.key()}"\n', bosun={"use": name})
    status, whole, said = desk.asked()
    texts = [one["what"] for one in whole["findings"] if one["check"] == "engines"]
    assert status == 0, said
    assert re.fullmatch(rf"{re.escape(str(path))} is version \d+\.\d+\.\d+", texts[0])
    assert KEY not in said


@pytest.mark.parametrize("how", ["others may read it", "it is gone", "it is written out"])
def test_a_credential_that_cannot_be_had_is_wrong_and_never_shown(desk: Desk, how: str) -> None:
    """Broken once: a key in place of its reference was repeated."""
    desk.program("claude", "echo 2.1.329")
    reference = KEY if how == "it is written out" else f"file:{desk.key(0o644 if 'others' in how else 0o600)}"
    if how == "it is gone":
        (desk.root / "key").unlink()
    desk.fleet(f'[engines.claude]\nkey = "{reference}"\n', bosun={"use": "claude"})
    status, whole, said = desk.asked()
    assert status == 78
    wrong = [one["id"] for one in whole["findings"] if one["state"] == "wrong" and one["check"] != "isolation"]
    assert len(wrong) == 1
    assert wrong[0].startswith(("WB-SECRET", "WB-ROSTER"))
    assert KEY not in said


def test_a_login_of_the_engines_own_is_named_and_not_shown(desk: Desk, own_world: Path) -> None:
    login = own_world / ".codex" / "auth.json"
    login.parent.mkdir()
    login.write_text(json.dumps({"OPENAI_API_KEY": KEY}))
    login.chmod(0o600)
    desk.program("codex", "echo codex-cli 0.169.0")
    desk.fleet(bosun={"use": "codex"})
    _, whole, said = desk.asked()
    assert "its credential is there: codex's own login" in {one["what"] for one in whole["findings"]}
    assert KEY not in said


def test_codex_with_its_home_below_its_tmp_is_a_trap(desk: Desk) -> None:
    """Its tools would fail one by one, and the run end well: where its HOME and TMPDIR are, no `env` says."""
    desk.program("codex", "echo codex-cli 0.169.0")
    desk.fleet(f'[engines.codex]\nkey = "file:{desk.key()}"\nenv = {{TMPDIR = "/"}}\n', bosun={"use": "codex"})
    assert (str(desk.home), "wrong", "WB-ROSTER-01") in desk.found("fleet")


@pytest.mark.parametrize("what", ["roster", "ledger"])
def test_a_fleet_that_cannot_be_read_is_wrong_and_the_rest_is_looked_at(desk: Desk, what: str) -> None:
    desk.program("claude", "echo 2.1.329")
    desk.fleet(bosun=python("pass"))
    if what == "roster":
        desk.fleet("[caps]\nfleet_dya_usd = 4\n")
    else:
        (desk.home / "ledger.db").write_text("no ledger" * 1000)
    status, whole, _ = desk.asked()
    wrong = [one for one in whole["findings"] if one["state"] == "wrong" and one["check"] == "fleet"]
    assert status == 78
    assert [one["id"][:9] for one in wrong] == ["WB-ROSTER" if what == "roster" else "WB-LEDGER"]
    assert "claude" in {one["subject"] for one in whole["findings"]}


@pytest.mark.parametrize(("wanted", "state"), [("none", None), ("auto", "wrong"), ("required", "wrong")])
def test_a_host_without_any_layer(desk: Desk, wanted: str, state: str | None) -> None:
    desk.fleet(bosun=python("pass"))
    write_agent(desk.home, "bosun", agent(python("pass"), isolation=wanted))
    found = desk.found("isolation")
    assert found[:2] == [("bwrap", "note", None), ("landlock", "note", None)]
    assert found[2:] == ([("agents", state, "WB-ISOLATION-01")] if state else [])


@pytest.mark.needs("bwrap")
def test_every_probe_of_a_layer_is_told(tmp_path: Path, capsys: Capsys) -> None:
    """The layers of this host, as they are."""
    status = main.run(["--home", str(tmp_path / "nowhere"), "doctor", "--json"])
    whole = json.loads(capsys.readouterr().out)
    assert status == 0, whole
    probes = [one for one in whole["probes"] if one["layer"] == "bwrap"]
    assert set(probes[0]) == {"layer", "name", "what", "held", "known", "detail"}
    assert [one["name"] for one in probes if one["held"] is not True] == ["socket-abstract"]
    texts = [one["what"] for one in whole["findings"] if one["subject"] == "bwrap"]
    assert texts[0] == f"held {len(probes) - 1} of {len(probes)} ways out"
    assert [one["state"] for one in whole["findings"] if one["subject"] == "bwrap"] == ["ok", "gap"]


def test_a_layer_that_only_seems_to_work_is_wrong(desk: Desk) -> None:
    """A bwrap that starts what it is given and shuts nothing off: `unavailable` is content with it."""
    desk.program("bwrap", 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"')
    desk.program("true", "exit 0")
    status, whole, _ = desk.asked()
    wrong = [one for one in whole["findings"] if one["state"] == "wrong"]
    open_ = [one["name"] for one in whole["probes"] if one["held"] is False]
    assert status == 78
    assert {"write-beside", "write-home", "read-secret", "read-environment", "end-process", "gain-rights"} <= set(open_)
    assert len(wrong) == len(open_) - 1  # an abstract socket is a gap that it is known for
    assert {one["id"] for one in wrong} == {"WB-DOCTOR-02"}


def test_a_layer_that_works_for_nothing_but_the_first_try_is_wrong(desk: Desk) -> None:
    """Nothing got out, because nothing ran."""
    desk.program("bwrap", 'for last; do :; done; [ "$last" = true ]')
    _, whole, _ = desk.asked()
    wrong = [one for one in whole["findings"] if one["state"] == "wrong"]
    assert {one["id"] for one in wrong} == {"WB-DOCTOR-03"}
    assert len(wrong) == len(whole["probes"])


def test_a_disk_on_which_nothing_can_be_tried(desk: Desk) -> None:
    """No file may grow. Broken once: it ended as a bug."""
    desk.fleet(bosun=python("pass"))
    desk.program("bwrap", "exit 0")
    script = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n" + _MAIN
    done = subprocess.run([sys.executable, "-c", script, "--home", str(desk.home), "doctor"], capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == 78, done.stderr
    assert "WB-DOCTOR-03" in done.stdout


def test_in_a_pipe_and_on_a_terminal(desk: Desk) -> None:
    """In a pipe seven columns; on a terminal five, and the fixes below."""
    desk.fleet(bosun={"use": "claude"})
    rows = desk.rows()
    assert {len(row) for row in rows} == {7}
    assert rows[1][:4] == ["fleet", "GitHub", "ok", "-"]
    (engine,) = (row for row in rows if row[0] == "engines")
    assert engine[:4] + engine[5:6] == ["engines", "claude (bosun)", "wrong", "-", "WB-ENGINE-01"]
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as screen:
        argv = [sys.executable, WATCHBILL, "--home", str(desk.home), "doctor", "--here"]
        done = subprocess.Popen(argv, stdout=theirs,
                                stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)  # fmt: skip
        _, words = done.communicate(timeout=60)
        os.close(theirs)
        said = b""
        while b"fix: " not in said or not said.endswith(b"\n"):
            said += screen.read(65536)
    assert done.returncode == 78
    assert said.split(b"\r\n")[0].split() == [b"CHECK", b"SUBJECT", b"SHELL", b"SCHEDULER", b"WHAT"]
    assert words.decode() == "1 thing is wrong\n"


def test_an_engine_that_nobody_runs_on_yet_is_looked_at_with_its_own_table(desk: Desk) -> None:
    """`program` and `key` of [engines.codex], before an agent is written for it.

    Broken once: looked at without its table; "nothing names a key", and to name one was the fix, which had been done.
    """
    desk.program("codex", "echo codex-cli 0.1")
    other = desk.program("codex-of-mine", "echo codex-cli 0.169.0")
    desk.fleet(f'[engines.codex]\nprogram = "{other}"\nkey = "file:{desk.key()}"\n', mate=python("pass"))
    _, whole, _ = desk.asked()
    told = [(one["state"], one["what"]) for one in whole["findings"] if one["subject"] == "codex"]
    assert told == [("ok", f"{other} is version 0.169.0"), ("ok", f"its credential is there: file:{desk.root}/key")]


@pytest.mark.parametrize(
    ("auth", "id"),
    [
        ('auth = "gh"', "WB-SECRET"),  # gh is not installed here
        ('auth = "token:env:NOBODY_HAS_SET_IT"', "WB-SECRET"),
        ('auth = "token:file:/nowhere"', "WB-SECRET"),
    ],
)
def test_a_credential_for_github_that_cannot_be_had_is_wrong(desk: Desk, auth: str, id: str) -> None:
    """Every firing would end `unauthorized`. Broken once: "nothing is wrong", exit 0."""
    desk.fleet(f"[github]\n{NOBODY}{auth}\n", mate=python("pass"))
    status, whole, _ = desk.asked()
    (wrong,) = (one for one in whole["findings"] if one["subject"] == "GitHub")
    assert (status, whole["ok"], wrong["state"], wrong["id"].startswith(id)) == (78, False, "wrong", True), wrong
    assert wrong["fix"]


def test_the_credential_for_github_is_named_and_not_shown(desk: Desk) -> None:
    desk.fleet(mate=python("pass"))
    status, whole, said = desk.asked()
    (found,) = (one for one in whole["findings"] if one["subject"] == "GitHub")
    assert (status, found["state"], found["what"]) == (0, "ok", f"its credential is there: file:{desk.root}/github")
    assert "of nobody" not in said
