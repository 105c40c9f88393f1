"""Old history goes; what proofs, claims and people need stays; killed anywhere, the ledger still verifies."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from ledger.lived import DAY, begin, end, python
from support.ledgers import firing, new_ledger
from watchbill.ledger import (
    attempts,
    claims,
    db,
    effects,
    evidence,
    export,
    firings,
    holds,
    prune,
    reservations,
    verify,
)
from watchbill.ledger.db import Ledger
from watchbill.ledger.evidence import Evidence
from watchbill.ledger.firings import Used
from watchbill.ledger.holds import Hold
from watchbill.outcomes import Ending

NOW = 200 * DAY
BEFORE = NOW - 90 * DAY


def grown(tmp_path: Path) -> Ledger:
    """Two hundred days: an issue of three generations, one of long ago, one at work since long ago, and much idling."""
    ledger = new_ledger(tmp_path)
    won = {10: ("bosun", 1, 1), 20: ("mate", 2, 5), 50: ("bosun", 1, 2), 150: ("bosun", 1, 3)}
    for day in range(1, 200):
        at = day * DAY
        if day in won:
            agent, number, generation = won[day]
            end(ledger, begin(ledger, agent, number, at, generation), number, at + 60, generation)
        if day == 30:
            begin(ledger, "asleep", 3, at)  # of a host that was switched off: never ended
        if day == 5:
            _hold(ledger, at)
        if day % 2:
            _idle(ledger, at)
    with ledger.transaction():
        attempts.put(ledger, "implement", "7#9", "d", 2, 5)
    return ledger


def _hold(ledger: Ledger, at: int) -> None:
    with ledger.transaction(durable=True):
        holds.add(ledger, Hold(0, "agent", "a", "pause", "old and over", "ann", at, at + DAY))
        holds.add(ledger, Hold(0, "agent", "b", "pause", "old and lifted", "ann", at, None))
        holds.add(ledger, Hold(0, "agent", "c", "pause", "old and standing", "ann", at, None))
        holds.lift(ledger, 2, "bob", at + DAY)


def _idle(ledger: Ledger, at: int) -> None:
    row = firing(agent="idler", started=at)
    with ledger.transaction():
        firings.begin(ledger, row)
        evidence.add(ledger, Evidence(row.id, "brief", f"{at:064x}", 1, {}, at))
        firings.end(ledger, row.id, Ending("idle", "nothing to do"), at + 1, Used(0, "not started"))


def count(ledger: Ledger) -> dict[str, int]:
    return {t: ledger._connection.execute(f"SELECT COUNT(*) FROM {t}").fetchone()[0] for t in export.tables(ledger)}


def test_what_is_old_goes_and_what_is_needed_stays(tmp_path: Path) -> None:
    """Broken on purpose: with the newest claims pruned like the others one firing more went than was said, and #2's."""
    ledger = grown(tmp_path)
    spend = ledger._connection.execute("SELECT * FROM spend ORDER BY 1, 2, 3, 4").fetchall()
    before, would = count(ledger), prune.prune(ledger, str(tmp_path / "blobs"), BEFORE, NOW, "ann", dry_run=True)
    assert count(ledger) == before
    gone = prune.prune(ledger, str(tmp_path / "blobs"), BEFORE, NOW, "ann")
    assert gone._replace(free_pages=0) == would
    after = count(ledger)
    assert verify.verify(ledger).breaks == ()
    assert (gone.firings, gone.holds) == (before["firings"] - after["firings"], 2)
    assert gone.events > 180
    assert after["events"] < before["events"] - gone.events + 3  # the anchor has an event, too
    # Generations, the effects of the newest, and its firing.
    for number, generation in ((1, 3), (2, 5)):
        newest = claims.last_won(ledger, 7, number)
        assert newest is not None
        assert newest.generation == generation
        assert firings.get(ledger, newest.firing) is not None
        assert effects.get(ledger, f"7/{number}/{generation}/publish/0") is not None
    assert effects.get(ledger, "7/1/1/publish/0") is None
    # What is at work, what is spent, what holds.
    (asleep,) = [row for row in firings.live(ledger, "h1") if row.agent == "asleep"]
    assert claims.live_on(ledger, 7, 3) is not None
    assert reservations.open_of(ledger, asleep.id)
    assert ledger._connection.execute("SELECT * FROM spend ORDER BY 1, 2, 3, 4").fetchall() == spend
    assert [hold.reason for hold in holds.standing(ledger, NOW)] == ["old and standing"]
    assert attempts.get(ledger, "implement", "7#9", "d").tries == 2
    # And it goes on, twice.
    end(ledger, begin(ledger, "bosun", 1, 199 * DAY, 4), 1, 199 * DAY + 60, 4)
    prune.prune(ledger, str(tmp_path / "blobs"), NOW - DAY, NOW + 1, "ann")
    assert verify.verify(ledger).breaks == ()
    assert prune.prune(ledger, str(tmp_path / "blobs"), NOW - DAY, NOW + 2, "ann").firings == 0


def test_events_are_deleted_for_an_anchor_only(tmp_path: Path) -> None:
    ledger = grown(tmp_path)
    last = ledger.row("event_last")
    assert last is not None
    for wrong in ({"seq": last[0], "hash": "0" * 64}, {"seq": last[0] + 1, "hash": last[1]}):
        with pytest.raises(db.Refused, match="no such event"), ledger.transaction():
            ledger.write("anchor_put", at=1, before=1, count=1, who="eve", **wrong)
    with pytest.raises(db.Refused, match="append-only"), ledger.transaction():
        ledger.write("prune_events", seq=5, most=1)
    prune.prune(ledger, str(tmp_path / "blobs"), BEFORE, NOW, "ann")
    with pytest.raises(db.Refused, match="append-only"), ledger.transaction():
        ledger._connection.execute("DELETE FROM events")


_KILLED = """
import os, signal, sys
from watchbill.ledger import db, prune
ledger, left = db.open_ledger(sys.argv[1]), int(sys.argv[2])
def trace(statement):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
ledger._connection.set_trace_callback(trace)
prune._SLICE_S = 0.001
prune.prune(ledger, sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), "ann")
"""


def test_killed_at_any_point_it_verifies_and_is_gone_on_with(tmp_path: Path) -> None:
    """kill -9 at statements spread over all of it, again and again on one ledger. Broken on purpose: with the rows
    deleted before the anchor, `firings ..: event 1 tells of it, and it is gone`.
    """
    ledger = grown(tmp_path)
    killed = 0
    for at in (2, 6, 9, 30, 90, 200, 300, 600):
        argv = [ledger.path, str(at), str(tmp_path / "blobs"), str(BEFORE), str(NOW)]
        done = subprocess.run(python(_KILLED, *argv), capture_output=True, text=True, check=False)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        killed += done.returncode != 0
        assert verify.verify(ledger).breaks == ()
    assert killed >= 5
    prune.prune(ledger, str(tmp_path / "blobs"), BEFORE, NOW, "ann")
    assert verify.verify(ledger).breaks == ()
    assert ledger._connection.execute("SELECT COUNT(*) FROM firings WHERE agent = 'idler'").fetchone()[0] == 45


def test_bytes_that_a_row_names_stay_and_others_go_unless_they_are_young(tmp_path: Path) -> None:
    """Broken on purpose: with every old file removed, the evidence of a firing of yesterday had no bytes."""
    ledger, root = grown(tmp_path), tmp_path / "blobs"
    now = int(time.time())

    def blob(text: str, age: int, suffix: str = "") -> Path:
        digest = hashlib.sha256(text.encode()).hexdigest()
        path = root / digest[:2] / (digest + suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (now - age, now - age))
        return path

    named, forgotten, young = blob("named", 50 * DAY), blob("forgotten", 50 * DAY), blob("young", 60)
    half = blob("half", 50 * DAY, ".4711")
    with ledger.transaction():
        row = firing(agent="x", started=NOW)
        firings.begin(ledger, row)
        evidence.add(ledger, Evidence(row.id, "diff", named.name, 5, {}, NOW))
    gone = prune.prune(ledger, str(root), BEFORE, now, "ann")
    assert (gone.blobs, gone.blob_bytes) == (2, len("forgotten") + len("half"))
    assert [path.exists() for path in (named, forgotten, young, half)] == [True, False, True, False]


_WRITES = """
import sys, time
from watchbill.ledger import db, steps
ledger, worst = db.open_ledger(sys.argv[1]), 0.0
print("ready", flush=True)
for n in range(100):
    began = time.monotonic()
    with ledger.transaction():
        steps.begin(ledger, "busy", n, "x", 1)
    worst = max(worst, time.monotonic() - began)
    time.sleep(0.001)
print(worst)
"""


def test_others_write_meanwhile(tmp_path: Path) -> None:
    """Printed, with no more than a wide margin asserted: nobody waits for the whole of it."""
    ledger = grown(tmp_path)
    with subprocess.Popen(python(_WRITES, ledger.path), stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        other.stdout.readline()
        began = time.monotonic()
        prune.prune(ledger, str(tmp_path / "blobs"), BEFORE, NOW, "ann")
        whole = time.monotonic() - began
        worst = float(other.stdout.readline())
    print(f"{sys.platform}: pruned in {whole * 1000:.0f} ms, the longest wait of a writer {worst * 1000:.1f} ms")
    assert worst < db.BUSY_S / 2
    with closing(db.open_ledger(ledger.path)) as again:
        assert verify.verify(again).breaks == ()
