"""Something started once, as launchd starts firings: `doctor` asks so what an agent will see. Nothing of it stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from support import launchctl as doubles
from support.fleet import wait_for
from support.launchctl import Double
from watchbill.errors import Fixable
from watchbill.schedulers import launchd
from watchbill.schedulers.base import Unit
from watchbill.schedulers.schedule import check

LABEL = "watchbill-doctor"


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Double:
    found = doubles.install(tmp_path)
    monkeypatch.setenv("PATH", f"{found.bin}:{os.environ['PATH']}")
    (tmp_path / "rooms").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "rooms"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return found


def probe(tmp_path: Path, script: str) -> Unit:
    here = str(tmp_path)
    return Unit("doctor", LABEL, "doctor", here, ("/bin/sh", "-c", script), here, (("PATH", "/usr/bin:/bin"),),
                f"{here}/log", 60, (), check("manual"), 0)  # fmt: skip


def nothing_stays(double: Double, tmp_path: Path) -> bool:
    return double.loaded() == {} and not os.listdir(tmp_path / "rooms")


@pytest.mark.thorough
def test_it_runs_as_launchd_runs_things(double: Double, tmp_path: Path) -> None:
    it = probe(tmp_path, 'echo "$PATH|$XPC_SERVICE_NAME|$(pwd)|$SECRET"; exit 7')
    os.environ["SECRET"] = "shell"
    assert launchd.once(it, 20) == 7
    assert Path(it.log).read_text() == f"/usr/bin:/bin|{LABEL}|{it.directory}|\n"
    assert launchd.found("watchbill-") == ()
    assert nothing_stays(double, tmp_path)


@pytest.mark.thorough
def test_what_does_not_end_is_given_up_with_what_it_runs(double: Double, tmp_path: Path) -> None:
    it = probe(tmp_path, "echo $$; exec sleep 30")
    assert launchd.once(it, 1.0) is None
    assert nothing_stays(double, tmp_path)
    pid, until = int(Path(it.log).read_text()), time.monotonic() + 5
    while time.monotonic() < until and _there(pid):
        time.sleep(0.02)
    assert not _there(pid)


def _there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


_ASKS = """
import sys
from watchbill.schedulers import launchd
from watchbill.schedulers.base import Unit
from watchbill.schedulers.schedule import check
here, label = sys.argv[1:]
launchd.once(Unit("doctor", label, "doctor", here, ("/bin/sleep", "60"), here, (), here + "/log", 60, (),
                  check("manual"), 0), 60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGHUP, marks=pytest.mark.thorough)])
def test_who_asks_may_be_killed(double: Double, tmp_path: Path, number: int) -> None:
    """Broken once: without the cleaner the unit stayed loaded, and its folder in TMPDIR."""
    asks = subprocess.Popen([sys.executable, "-c", _ASKS, str(tmp_path), LABEL])
    try:
        wait_for("it to run", lambda: double.loaded().get(LABEL, {}).get("pid"))
        asks.send_signal(number)
        assert asks.wait(10) == -number
        wait_for("it to be taken away", lambda: nothing_stays(double, tmp_path))
    finally:
        asks.kill()
        asks.wait()


@pytest.mark.usefixtures("double")
@pytest.mark.thorough
def test_a_signal_is_told_as_a_shell_does(tmp_path: Path) -> None:
    assert launchd.once(probe(tmp_path, f"kill -{int(signal.SIGKILL)} $$"), 20) == 128 + 9


@pytest.mark.thorough
@pytest.mark.parametrize("fails", ["kickstart 125", "bootstrap 125\nbootstrap 125\n" + "print 125\n" * 9])
def test_what_cannot_start_is_told(double: Double, tmp_path: Path, fails: str) -> None:
    """Broken once: a launchd that does not answer left a folder each time, and was told as something else."""
    double.knob("fail", fails)
    with pytest.raises(Fixable) as found:
        launchd.once(probe(tmp_path, "true"), 5)
    assert found.value.id == "WB-SCHED-24"
    double.knob("fail", "")
    assert nothing_stays(double, tmp_path)
