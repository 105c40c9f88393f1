"""Which version an engine's program is: asked once, kept in the ledger, refused where the adapter does not speak it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.engines import wait_for
from support.ledgers import new_ledger
from watchbill import versions
from watchbill.engines.base import Program
from watchbill.errors import Fixable
from watchbill.ledger import programs
from watchbill.ledger.db import Ledger

NOW = 1_790_000_000


class Box:
    """A program that counts how often it is started, and a ledger."""

    def __init__(self, root: Path) -> None:
        self.path = root / "bin" / "claude"
        self.starts = root / "starts"
        self.path.parent.mkdir()
        self.ledger: Ledger = new_ledger(root)

    def says(self, text: str, place: Path | None = None) -> None:
        """A new file in its place, as an installer puts it."""
        path = place or self.path
        aside = path.with_name("aside")
        aside.write_text(f"#!/bin/sh\necho start >> {self.starts}\n{text}\n")
        aside.chmod(0o755)
        aside.replace(path)

    @property
    def program(self) -> Program:
        return Program(str(self.path), ("--version",), (2, 1, 0), (3,))

    def check(self, now: int = NOW) -> str:
        return versions.check(self.ledger, "claude", self.program, now)

    def started(self) -> int:
        return len(self.starts.read_text().split()) if self.starts.exists() else 0

    def refusal(self) -> Fixable:
        with pytest.raises(Fixable) as caught:
            self.check()
        assert caught.value.outcome == "invalid"
        return caught.value


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_the_program_is_asked_once(box: Box) -> None:
    """Broken once: with nothing written to the ledger it was started three times."""
    box.says('test "$*" = --version && echo "2.1.329 (Claude Code)"')
    assert [box.check(), box.check(NOW + 60), box.check(NOW + versions.FRESH_S - 1)] == ["2.1.329"] * 3
    assert box.started() == 1


def test_another_file_in_its_place_is_asked(box: Box) -> None:
    """Same length, and the same date of modification, as everything that npm unpacks has.

    Broken once: with device, inode, size and mtime alone a file that was overwritten in place stayed 2.1.329.
    """
    box.says("echo 2.1.329")
    os.utime(box.path, (499162500, 499162500))
    assert box.check() == "2.1.329"
    box.path.write_text(box.path.read_text().replace("329", "330"))
    os.utime(box.path, (499162500, 499162500))
    assert box.check() == "2.1.330"
    box.says("echo 2.2.000")
    os.utime(box.path, (499162500, 499162500))
    assert box.check() == "2.2.000"


def test_a_link_is_what_it_leads_to(box: Box) -> None:
    """As /usr/local/bin/claude, and the `current` of a version manager. Broken once: with the link's own identity."""
    for number in (328, 329):
        (box.path.parent / str(number)).mkdir()
        box.says(f"echo 2.1.{number}", box.path.parent / str(number) / "claude")
    current = box.path.parent / "current"
    current.symlink_to("328")
    box.path.symlink_to("current/claude")
    assert box.check() == "2.1.328"
    current.unlink()
    current.symlink_to("329")
    assert box.check() == "2.1.329"


def test_one_shim_that_is_several_programs_is_each_of_them(box: Box) -> None:
    """Version managers link every name to one file, which goes by its own name."""
    shim = box.path.parent / "shim"
    box.says('case "$0" in *claude) echo 2.1.329;; *) echo codex-cli 0.169.0;; esac', shim)
    for name in ("claude", "codex"):
        (shim.parent / name).symlink_to("shim")
    assert box.check() == "2.1.329"
    codex = Program(str(shim.parent / "codex"), (), (0, 160), (0, 170))
    assert versions.check(box.ledger, "codex", codex, NOW) == "0.169.0"


@pytest.mark.parametrize("later", [versions.FRESH_S, -1])
def test_it_is_asked_again_after_a_day_and_when_the_clock_was_set_back(box: Box, later: int) -> None:
    """npm's wrapper stays the same file while the program behind it is another."""
    box.says(f"cat {box.path.parent}/behind")
    behind = box.path.parent / "behind"
    behind.write_text("2.1.329")
    assert box.check() == "2.1.329"
    behind.write_text("3.0.0")
    assert box.check(NOW + 1) == "2.1.329"
    with pytest.raises(Fixable):
        box.check(NOW + later)


@pytest.mark.parametrize(
    ("version", "age"), [("1.0.3", "old"), ("2.0.99", "old"), ("3.0.0", "new"), ("3.0", "new"), ("10.1", "new")]
)
def test_a_version_out_of_range_is_refused_with_what_to_type(box: Box, version: str, age: str) -> None:
    box.says(f"echo {version}")
    problem = box.refusal()
    assert problem.id == "WB-ENGINE-06"
    assert problem.what == f"claude {version} is too {age}"
    assert problem.fix == "npm install -g '@anthropic-ai/claude-code@>=2.1.0 <3'"
    assert box.refusal().id == "WB-ENGINE-06"  # what is known is refused as well
    assert box.started() == 1


@pytest.mark.parametrize("version", ["2.1", "2.1.0", "2.1.0.1", "2.99.0"])
def test_the_range_has_its_lower_end_and_not_its_upper(version: str) -> None:
    assert versions.supported(version, Program("", (), (2, 1, 0), (3,)))


def test_an_engine_of_somebody_else_is_told_the_range() -> None:
    assert versions.install("acme.aider", Program("/p", (), (0, 86), (1,))) == (
        "install acme.aider 0.86 or newer, and older than 1"
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("echo hello", "it printed no version number: hello"),
        ("echo 7", "it printed no version number: 7"),
        (":", "it printed no version number: nothing"),
        ("echo 2.1.329; echo 'no such option' >&2; exit 1", "it ended with status 1: no such option"),
        ("echo 2.1.329; kill -9 $$", "it ended with status -9"),
        ("echo 2.1.329; yes 2.1.329 | head -c 100000000", "it prints more than 65536 bytes"),
        ("printf '2.1.329\\033[31m\\n' >&2", "it printed no version number: nothing: 2.1.329 [31m"),
    ],
)
def test_a_program_that_does_not_tell(box: Box, text: str, why: str) -> None:
    """Broken once: without the bound on bytes the 100 MB were all read."""
    box.says(text)
    began = time.monotonic()
    problem = box.refusal()
    assert problem.id == "WB-ENGINE-08"
    assert problem.why == why
    assert f"{box.path} --version" in problem.fix
    assert time.monotonic() - began < 5
    assert programs.get(box.ledger, str(box.path)) is None


@pytest.mark.parametrize("what", ["missing", "not executable", "of another machine"])
def test_a_program_that_cannot_be_started(box: Box, what: str) -> None:
    if what != "missing":
        box.path.write_bytes(b"\x7fELF\x02" if what == "of another machine" else b"#!/bin/sh\n")
        box.path.chmod(0o755 if what == "of another machine" else 0o644)
    problem = box.refusal()
    assert problem.id == "WB-ENGINE-08"
    assert problem.why.startswith("it cannot be started: ")


@pytest.mark.parametrize(
    "text", ["sleep 60", "sleep 60 & echo 2.1.329; sleep 60", "trap '' TERM INT; while :; do sleep 1; done"]
)
def test_one_that_hangs_is_ended_with_all_it_started(box: Box, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Broken once: with the program alone killed its `sleep 60` stayed."""
    monkeypatch.setattr(versions, "TIMEOUT_S", 0.4)
    box.says(f"export OF_THIS_TEST={box.starts}\n{text}")
    assert box.refusal().why == "it gave no answer within 0 s"
    wait_for(lambda: not _marked(str(box.starts)))


def test_one_whose_child_holds_its_output_has_answered(box: Box) -> None:
    """Broken once: read to the end of the file, it hung for 20 s."""
    box.says(f"export OF_THIS_TEST={box.starts}\necho 2.1.329; sleep 60 &")
    began = time.monotonic()
    assert box.check() == "2.1.329"
    assert time.monotonic() - began < 10
    wait_for(lambda: not _marked(str(box.starts)))


def test_it_sees_nothing_of_the_operator(box: Box, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Broken once: with our environment handed on. An empty HOME of its own, away afterwards; nothing on stdin."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-canary")
    seen = tmp_path / "seen"
    box.says(f'{{ env; pwd; echo left > "$HOME/x"; ls -A "$HOME"; cat; }} > {seen}; echo 2.1.329')
    box.check()
    lines = seen.read_text().splitlines()
    variables = dict(line.split("=", 1) for line in lines if "=" in line)
    assert set(variables) <= {"PATH", "HOME", "TMPDIR", "LANG", "PWD", "OLDPWD", "SHLVL", "_"}
    assert lines[-2:] == ["/", "x"]
    assert not os.path.exists(variables["HOME"])


_FULL = """
import resource, sys
from watchbill import versions
from watchbill.engines.base import Program
from watchbill.ledger import db
ledger = db.open_ledger(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
print(versions.check(ledger, "claude", Program(sys.argv[2], ("--version",), (2,), (3,)), 5))
"""


def test_a_disk_that_takes_nothing_more_is_no_reason_to_stop(box: Box) -> None:
    """No file may grow. Broken once: without the `suppress` it ended with WB-LEDGER-03."""
    box.says("echo 2.1.329", box.path)
    box.path.write_text("#!/bin/sh\necho 2.1.329\n")
    done = subprocess.run([sys.executable, "-c", _FULL, box.ledger.path, str(box.path)], capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert (done.stdout, done.returncode) == ("2.1.329\n", 0), done.stderr
    assert programs.get(box.ledger, str(box.path)) is None


_CHECK = """
import sys
from watchbill import versions
from watchbill.engines.base import Program
from watchbill.ledger import db
print(versions.check(db.open_ledger(sys.argv[1]), "claude", Program(sys.argv[2], ("--version",), (2,), (3,)), 5))
"""


def test_firings_that_ask_at_once_all_know(box: Box) -> None:
    box.says("sleep 0.3; echo 2.1.329")
    argv = [sys.executable, "-c", _CHECK, box.ledger.path, str(box.path)]
    asking = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [child.communicate(timeout=60)[0] for child in asking] == ["2.1.329\n"] * 3
    assert versions.check(box.ledger, "claude", box.program, 6) == "2.1.329"
    assert box.started() <= 3


def _marked(text: str) -> list[str]:
    """Processes whose environment names this test's own file."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"OF_THIS_TEST={text}".encode() in (entry / "environ").read_bytes():
                found.append(entry.name)
        except OSError:
            continue
    return found
