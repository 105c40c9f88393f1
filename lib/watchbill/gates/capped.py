"""Refuses when one more firing could exceed a cap of the agent's day, the fleet's day or the fleet's month, or when a
window of the subscription it would draw on is as full as the operator lets it be."""

from __future__ import annotations

from watchbill import holds, money
from watchbill.clock import moment
from watchbill.compiled import Agent, Use
from watchbill.gates.snapshot import Refusal, Snapshot
from watchbill.ledger.windows import Window
from watchbill.money import Standing

_SPAN = {"day": "today", "fleet_day": "today", "fleet_month": "this month"}


def refuse(agent: Agent, snapshot: Snapshot) -> Refusal | None:
    if not agent.engine:
        return None  # a role without an engine spends nothing
    use = usable(agent, snapshot)
    worst = money.worst_case(agent.caps, (use.request_micro or 0) if use else 0)
    for standing in snapshot.caps:
        if money.above(standing, worst):
            end = money.period_end(standing.cap.scope, snapshot.now, snapshot.timezone)
            return refusal(standing, worst[standing.cap.unit], end)
    if agent.uses and use is None:
        return _all_full(agent, snapshot)
    return None


def refusal(standing: Standing, worst: int, end: int | None = None) -> Refusal:
    """The sentence with the numbers; `reserve` says the same when the cap was reached after the gates.

    `end`: when the cap's day or month is over, UTC epoch seconds.
    """
    cap = standing.cap
    span = _SPAN.get(cap.scope, "for this issue")
    again = f"; the next one begins at {moment(end)}" if end is not None else ""
    return Refusal(
        "capped",
        f"capped-{cap.scope.replace('_', '-')}-{cap.unit}",
        f"{standing.subject} has {money.amount(cap.unit, standing.settled)} spent and"
        f" {money.amount(cap.unit, standing.reserved)} reserved {span} of {money.amount(cap.unit, cap.limit)};"
        f" a firing may need {money.amount(cap.unit, worst)}{again}",
        {
            "cap": cap.limit,
            "unit": cap.unit,
            "scope": cap.scope,
            "settled": standing.settled,
            "reserved": standing.reserved,
            "worst": worst,
            "period": standing.period,
        },
        end,
    )


def usable(agent: Agent, snapshot: Snapshot) -> Use | None:
    """The first of an agent's engines that nothing holds and whose windows have room: its own, then its fallback."""
    heeded = holds.heeded(snapshot.holds, agent.name, snapshot.now)
    for use in agent.uses:
        held = holds.applying(heeded, holds.subjects_of(agent, snapshot.host, use))
        if not held and full(use, snapshot.windows, snapshot.now) is None:
            return use
    return None


def full(use: Use, windows: tuple[Window, ...], now: int) -> Window | None:
    """The window that keeps an engine from starting, the one that lasts longest."""
    over = [
        window
        for window in windows
        if window.account == use.account and window.resets_at > now and window.used_ppm >= (use.most_used_ppm or 10**9)
    ]
    return max(over, key=lambda window: window.resets_at, default=None)


def _all_full(agent: Agent, snapshot: Snapshot) -> Refusal | None:
    full_ones = [(use, window) for use in agent.uses if (window := full(use, snapshot.windows, snapshot.now))]
    if not full_ones:
        return None  # then it is a hold, and another gate's word
    use, window = min(full_ones, key=lambda pair: pair[1].resets_at)
    return Refusal(
        "capped",
        "capped-window",
        f"account {window.account} has used {window.used_ppm / 10_000:.0f} % of its window {window.name}, and"
        f" {use.engine} is to stop at {(use.most_used_ppm or 0) / 10_000:.0f} %;"
        f" it resets at {moment(window.resets_at)}",
        {"account": window.account, "window": window.name, "used_ppm": window.used_ppm, "limit_ppm": use.most_used_ppm},
        window.resets_at,
    )
