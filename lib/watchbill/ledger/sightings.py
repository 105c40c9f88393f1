"""Table `sightings`: since when, by this host's own clock, a claim's tip has stood unchanged."""

from __future__ import annotations

from collections.abc import Mapping

from watchbill.ledger.db import Ledger


def unchanged_s(ledger: Ledger, repo_id: int, number: int, tip: str, elapsed: float, boot: str) -> float:
    """Seconds for which `tip` has been seen; 0.0 and a fresh row when the tip or the boot is new.

    `elapsed` is Clock.elapsed(): no two hosts' clocks are ever compared, and a reboot starts the count anew.
    """
    row = ledger.row("sighting_get", repo_id=repo_id, number=number)
    now_ms = int(elapsed * 1000)
    if row and row[0] == tip and row[2] == boot and now_ms >= row[1]:
        return float(now_ms - row[1]) / 1000
    with ledger.transaction():
        ledger.write("sighting_put", repo_id=repo_id, number=number, tip=tip, first_seen_ms=now_ms, boot=boot)
    return 0.0


def observe(ledger: Ledger, repo_id: int, tips: Mapping[int, str], elapsed: float, boot: str) -> None:
    """Every claim of a repository as just listed: the waiting begins when a tip is first seen, not when it matters."""
    known = {row[0]: row[1:] for row in ledger.rows("sightings_of_repo", repo_id=repo_id)}
    now_ms = int(elapsed * 1000)
    fresh = {
        number: tip
        for number, tip in tips.items()
        if known.get(number, ("", ""))[:2] != (tip, boot) or now_ms < known[number][2]
    }
    if fresh:
        with ledger.transaction():
            for number, tip in fresh.items():
                ledger.write("sighting_put", repo_id=repo_id, number=number, tip=tip, first_seen_ms=now_ms, boot=boot)
