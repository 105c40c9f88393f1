"""breaker: an agent that fails again and again is stopped for a while; its next firing after that is its own canary."""

from __future__ import annotations

from watchbill import pill
from watchbill.compiled import Breaker
from watchbill.ledger import firings, streaks
from watchbill.ledger.db import Ledger
from watchbill.live import Firing
from watchbill.outcomes import DIED, Ending
from watchbill.pill import Limit

#: Ends that say something about the issue, or the agent, not about the weather: once the engine ran they count.
COUNTED = frozenset({"engine_failed", "checks_failed", "no_change", "bug", DIED})
#: Ends that prove an agent sound again.
_WENT_WELL = frozenset({"pull_request", "published"})


def after(f: Firing, end: Ending) -> None:
    """Count this end for or against the agent."""
    if end.outcome in COUNTED and f.engine_started:
        failed(f.ledger, f.row, f.fleet.breaker, end, f.now)
    elif end.outcome in _WENT_WELL:
        streaks.over(f.ledger, "agent", f.agent.name)
        pill.answered(f, frozenset({"agent"}))


def failed(ledger: Ledger, row: firings.Firing, breaker: Breaker, end: Ending, now: int) -> None:
    """One more in a row; the breaker opens when that is too many."""
    failures = streaks.failed(ledger, "agent", row.agent)
    if 0 < breaker.failures <= failures:
        reason = f"{failures} firings in a row failed, the last with {end.outcome}: {end.reason[:200]}"
        limit = Limit("agent", row.agent, "breaker", reason, first_wait_s=breaker.wait_s)
        pill.swallow(ledger, limit, f"firing {row.id}", now)
