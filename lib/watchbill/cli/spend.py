"""What was spent, on whom, and what is left of every cap.

examples:
  watchbill spend                        each agent, today and the six days before
  watchbill spend --by issue --since 1d  today
  watchbill spend --by day --since 2026-11-01 --json

In a pipe: the groups, an empty line, the caps; columns as on a terminal, separated by tabs.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from typing import Any, NamedTuple

from watchbill import money
from watchbill.cli import meters, shared, times
from watchbill.clock import moment
from watchbill.compiled import Cap
from watchbill.errors import Fixable
from watchbill.ledger import bills, claims, reservations
from watchbill.ledger.bills import Billed, Running
from watchbill.reports import spend as report
from watchbill.reports.spend import Group

HELP = "what was spent, on whom, and what is left of every cap"
_SCOPES = {"issue": "issue", "day": "day", "fleet_day": "fleet, day", "fleet_month": "fleet, month"}
#: An issue that has come so far needs nothing more of its cap.
_OVER = ("done",)


class Left(NamedTuple):
    """A cap and what stands against it; dollars as micro-dollars."""

    scope: str  # issue | day | fleet_day | fleet_month
    subject: str  # the issue, the agent, or "fleet"
    unit: str
    limit: int
    settled: int
    reserved: int
    left: int  # below 0: what was measured in the end was more
    period: str  # the day or month; "" for an issue
    timezone: str  # "": the host's own
    ends: int | None  # UTC epoch seconds


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--by", choices=report.BY, default="agent", help="whose spend is added up (agent)")
    parser.add_argument("--since", metavar="WHEN", default="7d",
                        help="7d (today and the six days before), 12h, 2026-11-01, ...")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object with a schema version")


def run(args: argparse.Namespace) -> int:
    fleet = shared.opened(args)
    now, zone = time.time(), fleet.roster.fleet.timezone if fleet.roster else ""
    since = _since(args.since, zone, now)
    spent = bills.since(fleet.ledger, since)
    running = meters.running(fleet.ledger)
    dollars = {row.id: reserved["usd"] for row, reserved in running if reserved}
    found = report.lines(spent, [row for row, _ in running], dollars, args.by, zone)
    whole = {
        "since": since,
        "until": int(now),
        "timezone": zone,
        "by": args.by,
        "groups": [group._asdict() for group in report.groups(found, args.by)],
        "total": report.group("total", found)._asdict(),
        "bases": [basis._asdict() for basis in report.bases(found)],
        "running": [meters.as_object(row, reserved) for row, reserved in running],
        "hosts": fleet.roster.fleet.hosts if fleet.roster else 1,
        "caps": [cap._asdict() for cap in _caps(fleet, [*spent, *(row for row, _ in running)], now)],
    }
    if args.json:
        shared.print_json(whole)
    else:
        _print(whole)
    return 0


def _since(text: str, zone: str, now: float) -> int:
    """Whole days begin at midnight, so that what is printed agrees with the caps of a day."""
    try:
        if re.fullmatch(r"([0-9]{1,4})([dw])", text):
            days = times.seconds(text) // times.seconds("1d")
            return times.days_ago(days - 1, zone, now)
        if re.fullmatch(r"[0-9]+[smh]", text):
            return int(now) - times.seconds(text)
        return times.moment(text, zone, now - times.seconds("1d"))  # a bare 14:05 is the last there was
    except ValueError as error:
        raise Fixable(
            "WB-SPEND-01", f"--since {text!r} is no time", why=str(error), fix="7d, 12h, 2026-11-01 or 14:05"
        ) from error


def _caps(fleet: shared.Opened, worked: list[Billed | Running], now: float) -> list[Left]:
    """The fleet's, each agent's, and those of the issues that were worked on and are not done."""
    if fleet.roster is None:
        return []
    shown = fleet.roster.fleet.caps
    found = [_left(fleet, cap, "fleet", "fleet", now) for cap in shown if cap.scope.startswith("fleet_")]
    for agent in fleet.roster.agents.values():
        found += [_left(fleet, cap, agent.name, agent.name, now) for cap in agent.caps if cap.scope == "day"]
    on_issues = [cap for cap in shown if cap.scope == "issue"]
    for repo_id, repo, number in _issues(fleet, worked) if on_issues else ():
        found += [_left(fleet, cap, f"{repo_id}#{number}", f"{repo}#{number}", now) for cap in on_issues]
    return found


def _issues(fleet: shared.Opened, worked: list[Billed | Running]) -> list[tuple[int, str, int]]:
    about = {(row.repo_id, row.number): row.repo or "" for row in worked}
    found = []
    for (repo_id, number), repo in about.items():
        if repo_id is None or number is None:
            continue
        won = claims.last_won(fleet.ledger, repo_id, number)
        if won is None or won.record not in _OVER:
            found.append((repo_id, repo, number))
    return sorted(found, key=lambda one: (one[1], one[2]))


def _left(fleet: shared.Opened, cap: Cap, subject: str, named: str, now: float) -> Left:
    assert fleet.roster is not None
    zone = fleet.roster.fleet.timezone
    period = money.period(cap.scope, now, zone)
    stands = reservations.spent(fleet.ledger, cap.scope, subject, period, cap.unit)
    left = cap.limit - stands.settled - stands.reserved
    ends = money.period_end(cap.scope, now, zone)
    return Left(cap.scope, named, cap.unit, cap.limit, stands.settled, stands.reserved, left, period, zone, ends)


def _print(whole: dict[str, Any]) -> None:
    total = Group(**whole["total"])
    rows = [Group(**group) for group in whole["groups"]]
    shared.print_table(
        (whole["by"], "spent", "assumed", "tokens", "turns", "starts", "pull requests", "each", "reserved now"),
        [_cells(group) for group in (*rows, *([total] if len(rows) != 1 else ()))],
    )
    if whole["caps"]:
        print()
        shared.print_table(
            ("cap", "of", "limit", "settled", "reserved", "left", "period", "ends"),
            [_cap_cells(Left(**cap)) for cap in whole["caps"]],
        )
    sys.stdout.flush()
    for line in _words(whole, total):
        print(line, file=sys.stderr)


def _cells(group: Group) -> tuple[object, ...]:
    return (
        group.name,
        _dollars(group),
        money.usd(group.assumed_micro) if group.assumed_micro else None,
        group.tokens or None,
        group.turns or None,
        group.starts,
        group.pull_requests or None,
        _each(group),
        _reserved_cell(group),
    )


def _dollars(group: Group) -> str | None:
    """Never $0.00 where nothing was measured."""
    if group.cost_micro is None:
        return f"{group.unmeasured} unmeasured" if group.unmeasured else None
    return money.usd(group.cost_micro) + (f" + {group.unmeasured} unmeasured" if group.unmeasured else "")


def _each(group: Group) -> str | None:
    if group.each_micro is None:
        return None
    return money.usd(group.each_micro) + (" or more" if group.unmeasured else "")


def _reserved_cell(group: Group) -> str | None:
    if not group.running:
        return None
    if not group.reserved_micro:
        return shared.count(group.running, "firing")
    return money.usd(group.reserved_micro) + (f" ({money.usd(group.so_far_micro)} used)" if group.so_far_micro else "")


def _cap_cells(cap: Left) -> tuple[object, ...]:
    left = money.amount(cap.unit, cap.left) if cap.left >= 0 else f"over by {money.amount(cap.unit, -cap.left)}"
    period = f"{cap.period} {cap.timezone}".rstrip() if cap.period else "its life"
    return (
        _SCOPES[cap.scope],
        cap.subject,
        money.amount(cap.unit, cap.limit),
        money.amount(cap.unit, cap.settled) if cap.settled else None,
        money.amount(cap.unit, cap.reserved) if cap.reserved else None,
        left,
        period,
        None if cap.ends is None else moment(cap.ends),
    )


def _words(whole: dict[str, Any], total: Group) -> list[str]:
    """What the figures rest on."""
    begin = f"since {moment(whole['since'])}"
    bases = ", ".join(f"{one['basis']} {_basis(one)}" for one in whole["bases"])
    nothing = "nothing has ended yet" if total.starts else "no engine was started"
    said = [f"{begin}: by {bases}" if bases else f"{begin}: {nothing}"]
    if total.cost_micro:
        share = round(100 * total.measured_micro / total.cost_micro)
        said.append(f"{share} % of it was measured, {100 - share} % is what was set aside or a ceiling")
    if total.unmeasured:
        said.append(f"{shared.count(total.unmeasured, 'start')} cost what nobody knows, and are not in the sum")
    if whole["hosts"] > 1:
        said.append(f"the caps are this host's share; the fleet has {whole['hosts']} hosts")
    return said


def _basis(one: dict[str, Any]) -> str:
    starts = shared.count(one["starts"], "start")
    return f"({starts})" if one["kind"] == "unmeasured" else f"{money.usd(one['cost_micro'])} ({starts})"
