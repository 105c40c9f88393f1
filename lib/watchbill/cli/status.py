"""The roster, each agent's timer and what it last did; what is running now and has used so far; holds.

example: watchbill status

In a pipe: the agents, and after an empty line each what is running, and the holds; columns are separated by tabs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import Any

from watchbill import foreign, gates, money, quota
from watchbill.cli import meters, shared, timers
from watchbill.clock import SystemClock, moment
from watchbill.compiled import Agent
from watchbill.gates import snapshot
from watchbill.ledger import firings, holds, reservations
from watchbill.ledger.holds import Hold
from watchbill.money import Standing

HELP = "every agent, what it last did, and what holds it"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object with a schema version")


def run(args: argparse.Namespace) -> int:
    fleet = shared.opened(args)
    clock = SystemClock()
    now = int(clock.now())
    timed = timers.look(fleet, now)
    whole = {
        "home": fleet.home.root,
        "agents": [
            {**_agent(fleet, agent, clock), **timers.as_object(timed, agent, now)}
            for agent in (fleet.roster.agents.values() if fleet.roster else ())
        ],
        "holds": [_hold(fleet, hold, now) for hold in holds.standing(fleet.ledger, now)],
        "running": [meters.as_object(row, reserved) for row, reserved in meters.running(fleet.ledger)],
        "github_quota": quota.low(fleet.ledger, now),
    }
    problem = foreign.too_many(fleet.ledger, fleet.roster.fleet, now) if fleet.roster else None
    found = [*([problem] if problem else ()), *timed.problems]
    whole["problems"] = [{"id": one.id, "what": one.what, "why": one.why, "fix": one.fix} for one in found]
    if args.json:
        shared.print_json(whole)
    else:
        _print(whole, now)
    for one in found:
        print(one, file=sys.stderr)
    return 0


def _agent(fleet: shared.Opened, agent: Agent, clock: SystemClock) -> dict[str, Any]:
    assert fleet.roster is not None
    seen = snapshot.take(fleet.ledger, fleet.home, agent, fleet.roster.fleet, fleet.host, clock)
    refusal, _ = gates.check(agent, seen)
    last = next(iter(firings.of_agent(fleet.ledger, agent.name)), None)
    today = money.period("day", clock.now(), fleet.roster.fleet.timezone)
    spent = {unit: reservations.spent(fleet.ledger, "day", agent.name, today, unit).settled for unit in money.UNITS}
    left = _left(seen.caps) if agent.engine else {}
    return {
        "agent": agent.name,
        "role": agent.role,
        "schedule": agent.schedule,
        "state": refusal.outcome if refusal else "ready",
        "reason": refusal.reason if refusal else None,
        "until": refusal.until if refusal else None,
        "firing": last.id if last else None,
        "outcome": last.outcome if last else None,
        "started": last.started if last else None,
        "ended": last.ended if last else None,
        "repo": last.repo if last else None,
        "number": last.number if last else None,
        "pull_request": last.pull_request if last else None,
        "spent_today_micro": spent["usd"],
        "spent_today_tokens": spent["tokens"],
        "left_today_micro": left.get("usd"),
        "left_today_tokens": left.get("tokens"),
        "left_today_turns": left.get("turns"),
        "left_today_firings": left.get("firings"),
    }


def _left(caps: Iterable[Standing]) -> dict[str, int]:
    """What the narrowest of the agent's and the fleet's caps leaves, by unit; never below nothing."""
    left: dict[str, int] = {}
    for one in caps:
        more = max(0, one.cap.limit - one.settled - one.reserved)
        left[one.cap.unit] = min(more, left.get(one.cap.unit, more))
    return left


def _hold(fleet: shared.Opened, hold: Hold, now: int) -> dict[str, Any]:
    state, text = "stands", "until somebody resumes it" if hold.until is None else f"until {moment(hold.until)}"
    if hold.lifted_at is not None:
        state, text = "easing", f"healed; agents are let in one by one until {moment(hold.eases_until or now)}"
    elif hold.heals and hold.until is not None and hold.until <= now:
        state, text = "waiting", "over; waits for the one firing that goes first, its canary"
        if hold.canary is not None and (hold.canary_until or 0) > now:
            row = firings.get(fleet.ledger, hold.canary)
            state, text = "trying", f"canary: firing {hold.canary}" + (f" of {row.agent}" if row else "")
    elif hold.heals:
        text += ", then one firing goes first, its canary"
    return {**hold._asdict(), "state": state, "text": text}


def _print(whole: dict[str, Any], now: int) -> None:
    shared.print_table(
        (
            "agent",
            "role",
            "schedule",
            "next",
            "timer",
            "state",
            "last outcome",
            "when",
            "issue",
            "pull request",
            "today",
            "left today",
        ),
        [
            (
                one["agent"],
                one["role"],
                one["schedule"],
                moment(one["next"]) if one["next"] else None,
                timers.cell(one),
                one["state"],
                one["outcome"],
                shared.ago(one["ended"], now),
                _issue(one),
                one["pull_request"],
                _used(one["spent_today_micro"], one["spent_today_tokens"]),
                _units({unit: one[f"left_today_{_KEY[unit]}"] for unit in money.UNITS}),
            )
            for one in whole["agents"]
        ],
    )
    if whole["running"]:
        print()
        shared.print_table(
            ("running", "agent", "issue", "engine", "since", "used so far", "reserved"),
            [_running(one, now) for one in whole["running"]],
        )
    if whole["holds"]:
        print()
        shared.print_table(
            ("hold", "on", "kind", "reason", "by", "since", "end"),
            [_hold_cells(one, now) for one in whole["holds"]],
        )


_KEY = {"usd": "micro", "tokens": "tokens", "turns": "turns", "firings": "firings"}


def _running(one: dict[str, Any], now: int) -> tuple[object, ...]:
    return (
        one["firing"],
        one["agent"],
        _issue(one),
        one["engine"],
        shared.ago(one["started"], now),
        _used(one["so_far_micro"], one["so_far_tokens"]),
        _units({unit: one[f"reserved_{_KEY[unit]}"] or None for unit in ("usd", "tokens", "turns")}),
    )


def _hold_cells(one: dict[str, Any], now: int) -> tuple[object, ...]:
    on = f"{one['scope']} {one['subject']}".rstrip()
    return one["id"], on, one["kind"], one["reason"], one["author"], shared.ago(one["since"], now), one["text"]


def _issue(one: dict[str, Any]) -> str | None:
    return f"{one['repo']}#{one['number']}" if one["number"] else None


def _used(micro: int | None, tokens: int | None) -> str | None:
    """Dollars, and tokens where no dollars are known of them: $0.00 would say that it cost nothing."""
    if micro:
        return money.usd(micro)
    return money.amount("tokens", tokens) if tokens else None


def _units(amounts: dict[str, int | None]) -> str | None:
    return ", ".join(money.amount(unit, number) for unit, number in amounts.items() if number is not None) or None
