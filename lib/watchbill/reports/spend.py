"""What was spent, and by what figures: measured, assumed, or known to nobody. Pure: rows in, records out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from watchbill import money
from watchbill.ledger.bills import Billed, Running

#: Bases (see engines/bill.py) of costs that somebody measured, and of those that were put in their place.
MEASURED = frozenset({"engine", "priced", "stream", "transcript", "free"})
#: The engine never ran: no start, and no cost.
NO_START = frozenset({"not started", "lost"})


class Group(NamedTuple):
    """What some firings spent; a firing that still runs counts with what is reserved for it."""

    name: str
    cost_micro: int | None  # None: nobody knows of any of them what it cost
    measured_micro: int
    assumed_micro: int
    unmeasured: int  # firings of which nobody knows what they cost
    tokens: int
    turns: int
    starts: int  # of engines
    pull_requests: int
    each_micro: int | None  # cost per pull request; None without one, or without a cost
    running: int
    reserved_micro: int  # for those that run
    so_far_micro: int  # of that, what their meters say was used


class Basis(NamedTuple):
    """How costs came about."""

    basis: str
    kind: str  # measured | assumed | unmeasured
    starts: int
    cost_micro: int


class Line(NamedTuple):
    """One firing, as it is counted."""

    key: str
    pull_request: tuple[str | None, int] | None
    cost_micro: int
    basis: str | None  # None: it runs
    tokens: int
    turns: int
    ran: bool = True  # its engine
    reserved_micro: int = 0
    so_far_micro: int = 0


BY = ("account", "agent", "day", "engine", "issue", "repo")


def key_of(row: Billed | Running, by: str, timezone: str) -> str:
    """In whose group a firing counts; `-` where nobody's is known."""
    if by == "day":  # on which it began: what it reserved counts on that day, too
        return money.period("day", row.started, timezone)
    if by == "issue":
        return "-" if row.number is None else f"{row.repo}#{row.number}"
    return getattr(row, by) or "-"


def lines(
    bills: Iterable[Billed], running: Iterable[Running], reserved: Mapping[str, int], by: str, timezone: str
) -> list[Line]:
    """`reserved`: micro-dollars, by the id of a firing that runs."""
    return [
        Line(
            key_of(bill, by, timezone),
            None if bill.pull_request is None else (bill.repo, bill.pull_request),
            bill.cost_micro or 0,
            bill.cost_basis or "unmeasured",
            bill.tokens or 0,
            bill.turns or 0,
        )
        for bill in bills
        if bill.ended is not None and bill.cost_basis not in NO_START
    ] + [
        Line(
            key_of(row, by, timezone),
            None,
            0,
            None,
            row.tokens or 0,
            row.turns or 0,
            row.engine is not None,
            reserved[row.id],
            row.cost_micro or 0,
        )
        for row in running
        if row.id in reserved
    ]


def groups(found: Iterable[Line], by: str) -> list[Group]:
    """The dearest first; days in their order."""
    sets: dict[str, list[Line]] = {}
    for line in found:
        sets.setdefault(line.key, []).append(line)
    made = [group(name, those) for name, those in sets.items()]
    if by == "day":
        return sorted(made, key=lambda one: one.name)
    return sorted(made, key=lambda one: (-(one.cost_micro or 0), -one.tokens, one.name))


def group(name: str, found: Iterable[Line]) -> Group:
    """All of them as one."""
    those = list(found)
    ended = [line for line in those if line.basis is not None]
    unmeasured = sum(kind(line.basis) == "unmeasured" for line in ended)
    measured = sum(line.cost_micro for line in ended if kind(line.basis) == "measured")
    cost = sum(line.cost_micro for line in ended)
    pulls = len({line.pull_request for line in ended} - {None})
    known = len(ended) > unmeasured
    return Group(
        name=name,
        cost_micro=cost if known else None,
        measured_micro=measured,
        assumed_micro=cost - measured,
        unmeasured=unmeasured,
        tokens=sum(line.tokens for line in those),
        turns=sum(line.turns for line in those),
        starts=sum(line.ran for line in those),
        pull_requests=pulls,
        each_micro=round(cost / pulls) if pulls and known else None,
        running=len(those) - len(ended),
        reserved_micro=sum(line.reserved_micro for line in those),
        so_far_micro=sum(line.so_far_micro for line in those),
    )


def bases(found: Iterable[Line]) -> list[Basis]:
    """The dearest first."""
    sets: dict[str, list[int]] = {}
    for line in found:
        if line.basis is not None:
            sets.setdefault(line.basis, []).append(line.cost_micro)
    made = [Basis(name, kind(name), len(costs), sum(costs)) for name, costs in sets.items()]
    return sorted(made, key=lambda one: (-one.cost_micro, one.basis))


def kind(basis: str | None) -> str:
    """A basis that is not known here is taken for assumed: nobody said that it was measured."""
    return "measured" if basis in MEASURED else "unmeasured" if basis == "unmeasured" else "assumed"
