"""Why an agent, an issue or a firing did what it did, or did nothing: the decisions, with their numbers.

examples:
  watchbill why bosun
  watchbill why acme/api#41
  watchbill why 01kj4
"""

from __future__ import annotations

import argparse
import re
import time
from datetime import datetime
from typing import Any

from watchbill import gates
from watchbill.cli import shared
from watchbill.clock import SystemClock, moment
from watchbill.errors import Fixable
from watchbill.gates import snapshot
from watchbill.ledger import decisions, firings
from watchbill.ledger.firings import Firing
from watchbill.reports import ending

HELP = "why an agent, an issue or a firing did what it did, or did nothing"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("subject", metavar="AGENT|REPO#N|FIRING")
    parser.add_argument("--at", metavar="TIME", help="as it was then: epoch seconds or 2026-11-21T14:05")
    parser.add_argument("--json", action="store_true", help="one JSON object with a schema version")


def run(args: argparse.Namespace) -> int:
    fleet = shared.opened(args)
    at = _time(args.at)
    if re.fullmatch(r"[^#\s]+#\d+", args.subject):
        whole = _issue(fleet, args.subject, at)
    elif (fleet.roster and args.subject in fleet.roster.agents) or firings.of_agent(fleet.ledger, args.subject):
        whole = _agent(fleet, args.subject, at)
    else:
        row = firings.get(fleet.ledger, shared.firing_id(fleet.ledger, args.subject))
        assert row is not None
        whole = {"subject": row.id, "now": None, "firings": [_firing(fleet, row)], "decisions": []}
    if args.json:
        shared.print_json(whole)
        return 0
    for line in lines(whole):
        print(ending.printable(line))
    return 0


def _time(text: str | None) -> int:
    if text is None:
        return int(time.time())
    try:
        return int(text) if text.isdigit() else int(datetime.fromisoformat(text).timestamp())
    except ValueError as error:
        raise Fixable("WB-WHY-01", f"--at {text!r} is no time", fix="epoch seconds, or 2026-11-21T14:05") from error


def _firing(fleet: shared.Opened, row: Firing) -> dict[str, Any]:
    found = [d._asdict() for d in decisions.of_firing(fleet.ledger, row.id)]
    return {**ending.as_object(row), "reason_id": row.reason_id, "decisions": found}


def _agent(fleet: shared.Opened, name: str, at: int) -> dict[str, Any]:
    """What the gates say now, by the same function that the next firing asks; and the last firings."""
    now: dict[str, Any] | None = None
    agent = fleet.roster.agents.get(name) if fleet.roster else None
    if agent is not None and fleet.roster is not None:
        seen = snapshot.take(fleet.ledger, fleet.home, agent, fleet.roster.fleet, fleet.host, SystemClock())
        refusal, verdicts = gates.check(agent, seen)
        now = {
            "refused": refusal is not None,
            "outcome": refusal.outcome if refusal else None,
            "reason": refusal.reason if refusal else "every gate would let it pass",
            "until": refusal.until if refusal else None,
            "gates": [verdict._asdict() for verdict in verdicts],
        }
    last = [row for row in firings.of_agent(fleet.ledger, name, 50) if row.started <= at][:3]
    return {"subject": name, "now": now, "firings": [_firing(fleet, row) for row in last], "decisions": []}


def _issue(fleet: shared.Opened, subject: str, at: int) -> dict[str, Any]:
    """Every firing that owned it, and the last verdicts of those that did not."""
    repo, _, number = subject.partition("#")
    owned = [row for row in firings.of_issue(fleet.ledger, repo, int(number)) if row.started <= at]
    owners = {row.id for row in owned}  # theirs are told with them
    said = [d for d in decisions.on(fleet.ledger, subject, at, 30) if d.firing not in owners]
    return {
        "subject": subject,
        "now": None,
        "firings": [_firing(fleet, row) for row in owned],
        "decisions": [d._asdict() for d in said],
    }


def lines(whole: dict[str, Any]) -> list[str]:
    out = [str(whole["subject"])]
    if whole["now"]:
        out.append(f"  now: {whole['now']['reason']}")
    if not whole["firings"] and not whole["decisions"]:
        out.append("  nothing is on record: no firing has looked at it yet")
    for row in whole["firings"]:
        out.append(
            f"  {moment(row['started'])}  firing {row['firing']} of {row['agent']}:"
            f" {row['outcome'] or 'has not ended'}: {row['reason'] or ''}".rstrip()
        )
        out += [f"    {_verdict(d)}" for d in row["decisions"] if d["reason"]]
    for d in whole["decisions"]:
        out.append(f"  {moment(d['at'])}  firing {d['firing']}  {d['step']}: {d['verdict']}: {d['reason']}")
    return out


def _verdict(d: dict[str, Any]) -> str:
    return f"{d['step']}: {d['subject']}: {d['verdict']}: {d['reason']}"
