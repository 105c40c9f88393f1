"""What programs said of their version: one row a path, the last word counts."""

from __future__ import annotations

from pathlib import Path

from support.ledgers import new_ledger
from watchbill.ledger import programs
from watchbill.ledger.programs import Known


def test_the_last_word_on_a_program_is_kept(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    assert programs.get(ledger, "/usr/bin/claude") is None
    first, other = Known("/usr/bin/claude", "/opt/a 1", "2.1.328", 5), Known("/usr/bin/codex", "/opt/b 1", "0.169.0", 5)
    later = Known("/usr/bin/claude", "/opt/a 2", "2.1.329", 9)
    with ledger.transaction():
        for known in (first, other, later):
            programs.put(ledger, known)
    assert programs.get(ledger, "/usr/bin/claude") == later
    assert programs.get(ledger, "/usr/bin/codex") == other
