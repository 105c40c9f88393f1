"""How a firing can end, and the exit status of each end (DESIGN section 2).

Pure; standard library only: this module lies on the way to a refusal.
"""

from typing import NamedTuple

EXIT: dict[str, int] = {
    "pull_request": 0,
    "published": 0,
    "idle": 0,
    "no_change": 0,
    "cancelled": 0,
    "lost": 75,
    "held": 75,
    "capped": 75,
    "running": 75,
    "checks_failed": 65,
    "engine_failed": 65,
    "needs_human": 65,
    "unavailable": 69,
    "unauthorized": 77,
    "invalid": 78,
    "bug": 70,
}
#: Written into the ledger for a firing that was found dead by a later one; no process ever exits with it.
DIED = "died"


class Ending(NamedTuple):
    """How one firing ended."""

    outcome: str  # a key of EXIT
    reason: str  # one sentence for a person: which gate, which number, what next
    reason_id: str = ""  # stable, kebab-case: what programs and docs key on
    exit_status: int | None = None  # only where it is not EXIT[outcome]: 130 and 143 after a signal

    @property
    def exit(self) -> int:
        return EXIT[self.outcome] if self.exit_status is None else self.exit_status


class Ended(Exception):
    """Raised by a step to end the firing here; `firing.fire` settles it and carries on with report and tidy."""

    def __init__(self, outcome: str, reason: str, reason_id: str = "", exit_status: int | None = None) -> None:
        super().__init__(reason)
        self.ending = Ending(outcome, reason, reason_id, exit_status)
