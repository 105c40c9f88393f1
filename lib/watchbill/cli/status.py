"""The roster and what each agent last did; holds; what is running now.

example: watchbill status
"""

from __future__ import annotations

import argparse
from typing import Any

from watchbill import gates, money
from watchbill.cli import shared
from watchbill.clock import SystemClock, moment
from watchbill.compiled import Agent
from watchbill.gates import snapshot
from watchbill.ledger import firings, holds, reservations

HELP = "every agent, what it last did, and what holds it"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object with a schema version")


def run(args: argparse.Namespace) -> int:
    fleet = shared.opened(args)
    clock = SystemClock()
    agents = [_agent(fleet, agent, clock) for agent in (fleet.roster.agents.values() if fleet.roster else ())]
    standing = [hold._asdict() for hold in holds.standing(fleet.ledger, int(clock.now()))]
    if args.json:
        shared.print_json({"home": fleet.home.root, "agents": agents, "holds": standing})
        return 0
    shared.print_table(
        ("agent", "role", "schedule", "state", "last outcome", "when", "issue", "pull request", "today"),
        [
            (
                a["agent"],
                a["role"],
                a["schedule"],
                a["state"],
                a["outcome"],
                shared.ago(a["ended"]),
                f"{a['repo']}#{a['number']}" if a["number"] else None,
                a["pull_request"],
                money.usd(a["spent_today_micro"]),
            )
            for a in agents
        ],
    )
    for hold in standing:
        end = moment(hold["until"]) if hold["until"] else "somebody resumes it"
        print(
            f"hold on {hold['scope']} {hold['subject']}".rstrip() + f": {hold['reason']} ({hold['kind']} by"
            f" {hold['author']}, until {end})"
        )
    return 0


def _agent(fleet: shared.Opened, agent: Agent, clock: SystemClock) -> dict[str, Any]:
    assert fleet.roster is not None
    seen = snapshot.take(fleet.ledger, fleet.home, agent, fleet.roster.fleet, fleet.host, clock)
    refusal, _ = gates.check(agent, seen)
    last = next(iter(firings.of_agent(fleet.ledger, agent.name)), None)
    today = money.period("day", clock.now(), fleet.roster.fleet.timezone)
    return {
        "agent": agent.name,
        "role": agent.role,
        "schedule": agent.schedule,
        "state": refusal.outcome if refusal else "ready",
        "reason": refusal.reason if refusal else None,
        "firing": last.id if last else None,
        "outcome": last.outcome if last else None,
        "started": last.started if last else None,
        "ended": last.ended if last else None,
        "repo": last.repo if last else None,
        "number": last.number if last else None,
        "pull_request": last.pull_request if last else None,
        "spent_today_micro": reservations.spent(fleet.ledger, "day", agent.name, today, "usd").settled,
    }
