"""Table `paces`: pushes to one repository keep a distance, over all processes of this host.

The generic cell rate algorithm (GCRA, a leaky bucket in one number): each push moves the repository's theoretical
arrival time one interval on, and waits for as long as that is more than a burst ahead of now. Who comes first is served
first; nobody waits longer than `WAIT_MOST_S`, for a claim that is not renewed and work that is not published cost more
than a recommendation that is exceeded.
"""

from __future__ import annotations

from watchbill.ledger.db import Ledger

#: Pushes that may follow each other at once after a pause. A firing makes about three.
BURST = 6
WAIT_MOST_S = 60.0


def take(ledger: Ledger, repo: str, per_minute: int, now: float) -> float:
    """Put one push on record, inside a transaction; seconds to wait before it is made. `now`: UTC epoch seconds.

    By the time of day, because it is comparable over a restart; a clock that was set costs one longest wait.
    """
    interval_ms = 60_000 // per_minute
    now_ms, burst_ms = int(now * 1000), BURST * interval_ms
    latest_ms = now_ms + burst_ms + int(WAIT_MOST_S * 1000)
    row = ledger.row("pace_take", repo=repo.lower(), now_ms=now_ms, interval_ms=interval_ms, latest_ms=latest_ms)
    assert row is not None
    return max(0, int(row[0]) - burst_ms - now_ms) / 1000
