"""What the processes work on: whose caps there are, how tight, and what a firing costs."""

from __future__ import annotations

from typing import NamedTuple

from watchbill.ledger.reservations import Subjects
from watchbill.money import UNITS

SCOPES = ("issue", "day", "fleet_day", "fleet_month")
#: What one firing may spend by its own cap, and the most that one request of its engine costs beyond it.
FIRING = {"usd": 1000, "tokens": 5000, "turns": 20, "firings": 1}
REQUEST = {"usd": 100, "tokens": 500, "turns": 2, "firings": 0}
#: So many firings fit into the cap that a phase is about, and so many more into every other.
_TIGHT, _LOOSE = 25, 10_000
_AGENTS = 4


class Phase(NamedTuple):
    """A day and month of its own, in which one cap is tight."""

    number: int
    scope: str
    unit: str

    def caps(self) -> dict[tuple[str, str], int]:
        limits = {(scope, unit): _LOOSE * FIRING[unit] for scope in SCOPES for unit in UNITS}
        limits[self.scope, self.unit] = _TIGHT * FIRING[self.unit]
        limits |= {("firing", unit): FIRING[unit] + REQUEST[unit] for unit in UNITS}
        return limits

    def subjects(self, firing: str, agent: int, issue: int) -> Subjects:
        return Subjects(
            firing, f"{self.number}#{issue}", f"agent-{agent}", f"day-{self.number:02d}", f"month-{self.number:02d}"
        )

    def pairs(self) -> list[tuple[int, int]]:
        """Who may work on what: enough of them that the tight cap is what ends the phase."""
        few = range(2)
        return [(agent, issue) for agent in (few if self.scope == "day" else range(_AGENTS)) for issue in few]


def phases(scopes: tuple[str, ...] = SCOPES) -> list[Phase]:
    return [Phase(n, *which) for n, which in enumerate((scope, unit) for scope in scopes for unit in UNITS)]


def worst_case(agent: int) -> dict[str, int]:
    """Agents with even numbers reserve a request more than their cap, as ours do; odd ones overspend by it."""
    return {unit: FIRING[unit] + (REQUEST[unit] if agent % 2 == 0 else 0) for unit in UNITS}
