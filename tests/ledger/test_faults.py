"""A ledger that cannot be used, as timers and people meet it: held, in one line that says why; and it goes on after."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.lived import private_mounts, python
from support.fleet import LABEL, WATCHBILL, Fleet, fleet
from support.ledgers import new_ledger
from watchbill.errors import Fixable
from watchbill.ledger import chain, db, holds, migrate, problems
from watchbill.ledger.holds import Hold

#: `watchbill fire`, with less patience for a locked ledger.
IMPATIENT = """
import sys
from watchbill.cli import fire
from watchbill.ledger import db
db.BUSY_S = 0.3
sys.exit(fire.main(sys.argv[1:]))
"""


def held(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """A firing that ended at its ledger: exit 75, and one line on stdout that says so."""
    assert done.returncode == 75, (done.returncode, done.stdout, done.stderr)
    (line,) = done.stdout.splitlines()
    assert line.startswith("bosun: held")
    for word in words:
        assert word in line + done.stderr, (word, line, done.stderr)


@contextlib.contextmanager
def with_work(tmp_path: Path) -> Iterator[Fleet]:
    """A fleet with a ledger, whose agent has something to do, and that is content with a small disk."""
    with fleet(tmp_path, toml='[host]\nmin_free = "1MB"\n') as it:
        it.ledger().close()
        it.world.issue("octocat", "Do it", labels=[LABEL])
        yield it


def test_a_damaged_header_holds_every_agent_until_it_is_repaired_and_looked_at(tmp_path: Path) -> None:
    """From outside, with the roster in order. A pause that stood before still stands after.

    Broken on purpose: with SQLite's own error passed on it was a bug's report, exit 70.
    """
    with with_work(tmp_path) as it:
        assert it.run("pause", "bosun").returncode == 0
        path = it.home / "ledger.db"
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        data = bytearray(path.read_bytes())
        data[3] ^= 0xFF
        path.write_bytes(data)
        held(it.run("fire", "bosun"), "the ledger cannot be read", "ledger repair")
        status = it.run("status")
        assert (status.returncode, "WB-LEDGER-01" in status.stderr) == (75, True)
        repaired = it.run("ledger", "repair")
        assert repaired.returncode == 0, repaired.stderr
        assert len(list(it.home.glob("ledger.db.damaged-*"))) >= 1
        held(it.run("fire", "bosun"), "paused by hand")
        assert it.run("resume", "bosun").returncode == 0
        held(it.run("fire", "bosun"), "the ledger was repaired")
        assert "the ledger was repaired" in it.run("status").stdout
        assert it.run("resume", "--fleet").returncode == 0
        done = it.run("fire", "bosun")
        assert done.returncode == 0, done.stdout + done.stderr
        assert it.run("ledger", "verify").returncode == 0


def test_a_ledger_that_stays_locked_is_held_and_then_goes_on(tmp_path: Path) -> None:
    """Both locks: SQLite's own, and the one that durable writers queue on, which has no time limit of its own.

    Broken on purpose: with a blocking flock(2) the second firing still waited after a minute.
    """
    with with_work(tmp_path) as it:
        environment = it.environment()

        def fire() -> subprocess.CompletedProcess[str]:
            return subprocess.run(python(IMPATIENT, "bosun"), env=environment, text=True, capture_output=True,
                                  timeout=60, check=False)  # fmt: skip

        with contextlib.closing(sqlite3.connect(it.home / "ledger.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            held(fire(), "another process kept the ledger locked", "0.3 s")
        lock = (
            "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()"
        )
        with subprocess.Popen(python(lock, str(it.home / "ledger.db.queue")), stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE) as other:  # fmt: skip
            assert other.stdout is not None
            assert other.stdin is not None
            other.stdout.readline()
            done = fire()
            other.stdin.close()
        assert done.returncode == 75, done
        assert "another process kept the ledger locked" in done.stdout
        last = it.fire("bosun")
        assert last.outcome == "pull_request", last
        with contextlib.closing(it.ledger()) as ledger:
            assert chain.verify(ledger._connection) is None


@pytest.mark.needs("unshare", "mount")
def test_a_read_only_disk_holds_every_agent(tmp_path: Path) -> None:
    """Mounted so, since root writes past permissions."""
    with with_work(tmp_path) as it:
        assert it.run("pause", "bosun").returncode == 0
        script = 'mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"; shift; exec "$@"'
        for argv in (["fire", "bosun"], ["status"]):
            command = [sys.executable, WATCHBILL, "--home", str(it.home), *argv]
            done = private_mounts(script, "sh", str(it.home), *command)
            assert done.returncode == 75, (done.stdout, done.stderr)
            assert "WB-LEDGER-03" in done.stderr or "paused by hand" in done.stdout, done
        assert it.run("resume", "bosun").returncode == 0
        assert it.fire("bosun").outcome == "pull_request"


_FULL = """
import os, sys
sys.path.insert(0, sys.argv[2])
from support.ledgers import firing, new_ledger
from pathlib import Path
from watchbill.errors import Fixable
from watchbill.ledger import chain, firings, reservations
from watchbill.ledger.reservations import Subjects, Spent
home = Path(sys.argv[1])
ledger = new_ledger(home)
def fill():
    with open(home / "filler", "ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as full:
            assert full.errno == 28, full
def reserve():
    with ledger.transaction(durable=True):
        row = firing()
        firings.begin(ledger, row)
        for n in range(40):
            ledger.write("decision_add", firing=row.id, at=1, step="x", subject="y", verdict="z", reason_id="",
                         reason="r" * 500, numbers="{}")
        reservations.reserve(ledger, Subjects(row.id, "7#1", "bosun", "d", "m"), {"usd": 5}, {("day", "usd"): 50}, 1)
fill()
try:
    reserve()
except Fixable as problem:
    print(problem.id, problem.outcome, problem.what[len(ledger.path):].partition(" bytes")[0])
assert reservations.spent(ledger, "day", "bosun", "d", "usd") == Spent(0, 0)
assert ledger.rows("firings_live", host="h1") == []
assert chain.verify(ledger._connection) is None
os.unlink(home / "filler")
reserve()
assert reservations.spent(ledger, "day", "bosun", "d", "usd") == Spent(0, 5)
assert chain.verify(ledger._connection) is None
assert ledger._connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
print("and then there was room")
"""


@pytest.mark.needs("unshare", "mount")
def test_a_disk_that_is_full_in_the_middle_of_a_reservation_takes_nothing_and_goes_on(tmp_path: Path) -> None:
    """Broken on purpose: with COMMIT outside the translation the error was sqlite3's own, and exit 70."""
    where = tmp_path / "small"
    where.mkdir()
    script = 'mount -t tmpfs -o size=900k tmpfs "$1"; exec "$2" -c "$3" "$1" "$4"'
    tests = str(Path(__file__).parents[1])
    done = private_mounts(script, "sh", str(where), sys.executable, _FULL, tests)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "WB-LEDGER-03 held : the ledger cannot be written (the disk is full: 0",
        "and then there was room",
    ]


@pytest.mark.needs("unshare", "mount")
def test_a_full_disk_holds_a_firing_from_outside_and_the_next_one_works(tmp_path: Path) -> None:
    with with_work(tmp_path) as it:
        script = """
        mount -t tmpfs -o size=24m tmpfs "$2"; cp -a "$1/." "$2"; home=$2; shift 2
        dd if=/dev/zero of="$home/filler" bs=4k 2>/dev/null || true
        "$@" --home "$home" fire bosun && exit 9 || test $? = 75
        "$@" --home "$home" status >/dev/null || echo "status: $?"
        rm "$home/filler"
        "$@" --home "$home" fire bosun
        "$@" --home "$home" ledger verify
        """
        small = tmp_path / "small"
        small.mkdir()
        done = private_mounts(script, "sh", str(it.home), str(small), sys.executable, WATCHBILL)
        assert done.returncode == 0, done.stdout + done.stderr
        first, *rest = done.stdout.splitlines()
        assert first.startswith("bosun: held"), done.stdout
        assert "disk is full" in done.stderr + first
        assert any("pull request opened" in line for line in rest), done.stdout
        assert "every row is what was written" in rest[-1]


@pytest.mark.parametrize(
    ("make", "id", "outcome"),
    [
        (lambda path: path.write_bytes(b""), "WB-LEDGER-01", "held"),
        (lambda path: path.write_bytes(b"SQLite format 3\0" + os.urandom(8000)), "WB-LEDGER-01", "held"),
        (lambda path: path.write_bytes(b"not a database at all, but long enough" * 200), "WB-LEDGER-01", "held"),
        (lambda path: path.mkdir(), "WB-LEDGER-03", "held"),
        (lambda path: path.symlink_to("nowhere/else"), "WB-LEDGER-03", "held"),
    ],
    ids=["empty", "noise", "text", "directory", "dangling"],
)  # fmt: skip
def test_something_else_in_its_place_is_held_and_left_alone(tmp_path: Path, make, id: str, outcome: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "ledger.db"
    make(path)
    with pytest.raises(Fixable) as problem:
        db.open_ledger(str(path))
    assert (problem.value.id, problem.value.outcome) == (id, outcome)
    assert "fix:" in str(problem.value)


def test_a_table_that_is_gone_is_held_and_a_statement_of_ours_that_is_wrong_is_a_bug(tmp_path: Path) -> None:
    """Broken on purpose: `no such table` was a bug's report, exit 70, whoever was at fault."""
    ledger = new_ledger(tmp_path)
    ledger._queries["wrong"] = "SELECT nothing FROM nowhere"
    with pytest.raises(sqlite3.OperationalError):
        ledger.rows("wrong")
    ledger._connection.execute("DROP TABLE holds")
    with pytest.raises(Fixable) as problem:
        holds.standing(ledger, 1)
    assert (problem.value.id, problem.value.outcome) == ("WB-LEDGER-01", "held")


def test_a_hold_changed_by_hand_is_read_as_it_is(tmp_path: Path) -> None:
    """A person with sqlite3 is no damage; what the disk did is."""
    ledger = new_ledger(tmp_path)
    with ledger.transaction(durable=True):
        holds.add(ledger, Hold(0, "fleet", "", "stop", "x", "ann", 1, None))
    with contextlib.closing(sqlite3.connect(ledger.path)) as other, other:
        other.execute("UPDATE holds SET until = 50")
    assert [hold.until for hold in holds.standing(ledger, 2)] == [50]
    assert holds.standing(ledger, 60) == []


def test_a_clock_that_was_set_back_does_not_free_what_was_held_then(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    with ledger.transaction(durable=True):
        holds.add(ledger, Hold(0, "agent", "mate", "pause", "x", "ann", 100, 200))
    with ledger.transaction(durable=True):
        holds.add(ledger, Hold(0, "agent", "bosun", "pause", "y", "ann", 300, 400))
    assert [hold.subject for hold in holds.standing(ledger, 350)] == ["bosun"]
    assert [hold.subject for hold in holds.standing(ledger, 150)] == ["mate", "bosun"]


def test_a_network_file_system_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "30 22 0:40 / /srv/home\\040dirs rw,relatime shared:9 - nfs4 server:/export rw\n"
        "31 30 8:2 / /srv/home\\040dirs/local rw,relatime - xfs /dev/sdb1 rw\n"
    )
    migrate.refuse_network("/var/lib/watchbill/ledger.db", str(mounts))
    migrate.refuse_network("/srv/home dirs/local/ledger.db", str(mounts))
    with pytest.raises(Fixable, match="nfs4") as problem:
        migrate.refuse_network("/srv/home dirs/ann/ledger.db", str(mounts))
    assert (problem.value.id, problem.value.outcome) == ("WB-LEDGER-06", "invalid")
    migrate.refuse_network("/srv/home dirs/ann/ledger.db", str(tmp_path / "no such file"))


def test_every_problem_says_what_to_do() -> None:
    made = [problems.unreadable("p", "w"), problems.empty("p"), problems.locked("p", 1, "w"), problems.newer("p", 9, 5),
            problems.unusable("p", "cannot be opened", "w"), problems.network("p", "nfs"), problems.lost("p", "w"),
            problems.replaced("p")]  # fmt: skip
    assert all(problem.fix and problem.outcome in ("held", "invalid") for problem in made)
    assert shutil.which("sh")
