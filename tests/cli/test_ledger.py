"""`watchbill ledger`: what a person types, and what comes of it."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ledger.lived import live
from support.ledgers import new_ledger
from watchbill.cli import main
from watchbill.ledger import db, holds, verify
from watchbill.lock import agent_lock


@pytest.fixture
def home(tmp_path: Path) -> Path:
    ledger = new_ledger(tmp_path)
    live(ledger)
    ledger.close()
    return tmp_path / "home"


def ledger(home: Path, *argv: str) -> int:
    return main.run(["--home", str(home), "ledger", *argv])


def test_verify_names_the_first_break_and_ends_with_65(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ledger(home, "verify") == 0
    assert "every row is what was written" in capsys.readouterr().out
    with closing(sqlite3.connect(home / "ledger.db")) as other, other:
        other.execute("UPDATE firings SET cost_micro = 1 WHERE number = 3")
        (id,) = other.execute("SELECT id FROM firings WHERE number = 3").fetchone()
        other.execute("UPDATE spend SET settled = settled - 5 WHERE scope = 'fleet_day' AND unit = 'usd'")
    assert ledger(home, "verify") == 65
    said = capsys.readouterr()
    first, *rest = said.out.splitlines()
    assert first.startswith("spend fleet_day fleet day 0 usd: says ")
    assert any(line.startswith(f"firings {id}: is not as it ended") for line in rest)
    assert "WB-LEDGER-09" in said.err
    assert ledger(home, "verify", "--json") == 65
    told = json.loads(capsys.readouterr().out)
    assert (told["schema"], told["ok"], told["breaks"][0]["table"]) == (1, False, "spend")


CHANGES = {
    "holds": "UPDATE holds SET lifted_at = 5, lifted_by = 'eve' WHERE kind = 'stop'",
    "firings": "UPDATE firings SET outcome = 'idle' WHERE number = 2",
    "claims": "UPDATE claims SET tip = 'forged' WHERE number = 2",
    "effects": "UPDATE effects SET intent = '{}' WHERE id = 2",
    "evidence": "UPDATE evidence SET digest = 'other' WHERE id = 2",
    "reservations": "UPDATE reservations SET reserved = 1 WHERE scope = 'day' AND unit = 'usd' AND rowid_is_none",
    "grants": "UPDATE grants SET usd = 1 WHERE settled_at IS NOT NULL",
    "events": "UPDATE events SET body = '{}' WHERE seq = 7",
    "sqlite_schema": "SELECT 1",
}


@pytest.mark.parametrize("table", CHANGES)
def test_verify_finds_a_row_that_was_changed_past_every_trigger(
    home: Path, table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """By somebody who really wants to: the triggers are away while it is done, and are back after."""
    with closing(sqlite3.connect(home / "ledger.db")) as other, other:
        triggers = other.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            other.execute(f"DROP TRIGGER {name}")
        other.execute(CHANGES[table].replace(" AND rowid_is_none", ""))
        for name, text in triggers:
            if table != "sqlite_schema" or name != "reservation_above_the_cap":
                other.execute(text)
    assert ledger(home, "verify") == 65
    assert any(line.startswith(f"{table} ") for line in capsys.readouterr().out.splitlines())


def test_export_is_json_lines_of_one_moment(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ledger(home, "export") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"firings", "spend", "events", "holds", "grants", "reservations"} <= {row["table"] for row in rows}
    assert ledger(home, "export", "--table", "spend", "--table", "holds") == 0
    some = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["table"] for row in some} == {"spend", "holds"}
    assert next(row for row in some if row["table"] == "spend").keys() >= {"scope", "unit", "settled", "reserved"}
    assert ledger(home, "export", "--table", "firings", "--since", "7d") == 0
    assert capsys.readouterr().out == ""  # the firings of this ledger are of 1970
    assert ledger(home, "export", "--table", "spendings") == 78
    assert "spend" in capsys.readouterr().err


def test_backup_is_whole_and_its_owners_only(home: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    assert ledger(home, "backup", str(target)) == 0
    assert capsys.readouterr().out.strip() == str(target)
    assert os.stat(target).st_mode & 0o777 == 0o600
    with closing(db.open_ledger(str(target))) as copy:
        assert verify.verify(copy).breaks == ()
        assert [hold.kind for hold in holds.standing(copy, 2000)] == ["pause", "stop", "auth"]
    assert ledger(home, "backup", str(target)) == 78
    assert ledger(home, "backup") == 0
    assert len(list(home.glob("ledger.db.backup-*"))) == 1
    assert not list(home.glob("*.part"))


def test_prune_says_what_would_go_and_then_removes_it(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ledger(home, "prune", "--keep", "90d", "--dry-run", "--json") == 0
    would = json.loads(capsys.readouterr().out)
    assert ledger(home, "prune", "--json") == 0
    gone = json.loads(capsys.readouterr().out)
    assert (would["dry_run"], gone["dry_run"]) == (True, False)
    assert gone["events"] == would["events"] > 50
    assert ledger(home, "prune", "--keep", "forever") == 78
    assert ledger(home, "verify") == 0


def test_repair_waits_for_nobody_and_refuses_while_a_firing_is_live(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with agent_lock(str(home / "locks" / "bosun.lock")):
        assert ledger(home, "repair") == 75
    assert "bosun" in capsys.readouterr().err
    assert ledger(home, "repair", "--dry-run") == 0
    assert not list(home.glob("ledger.db.damaged-*"))
    assert ledger(home, "repair") == 0
    assert "every agent is held until `watchbill resume --fleet`" in capsys.readouterr().out
    assert ledger(home, "verify") == 0
