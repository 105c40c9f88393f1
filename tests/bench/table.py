"""One row of the table, and how its goal is told."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any, NamedTuple


class Row(NamedTuple):
    """One measured ratio: `value` in `unit`, against what it is compared with."""

    case: str
    value: float
    unit: str
    ratio: float
    goal: str  # DESIGN's, of the ratio: "<= 1.8", ">= 0.25", "" for none

    @property
    def met(self) -> bool | None:
        if not self.goal:
            return None
        sign, bound = self.goal.split()
        return self.ratio <= float(bound) if sign == "<=" else self.ratio >= float(bound)

    def as_json(self) -> dict[str, Any]:
        return {**self._asdict(), "met": self.met}


def median(values: Iterable[float], digits: int = 2) -> float:
    return round(statistics.median(values), digits)


def show(rows: Iterable[Row]) -> None:
    print(f"{'':58}{'':>12}  {'':14}{'ratio':>7}   goal")
    for row in rows:
        verdict = {None: "", True: "met", False: "MISSED"}[row.met]
        print(f"{row.case:58}{row.value:>12,}  {row.unit:14}{row.ratio:>7}   {row.goal:8}{verdict}")
