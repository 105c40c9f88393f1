"""Why an agent, an issue or a firing did what it did, or did nothing: the decisions, with their numbers.

Of an issue it is the whole story, over all its generations and hosts, and what holds now.

examples:
  watchbill why bosun
  watchbill why acme/api#41
  watchbill why 01kj4
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

from watchbill import gates, look, poll
from watchbill.claims.record import ClaimRecord
from watchbill.cli import shared
from watchbill.cli.claims import away_because, session
from watchbill.clock import SystemClock, moment
from watchbill.errors import Fixable
from watchbill.forge.base import ForgeError, LabelEvent, NotFound
from watchbill.gates import snapshot
from watchbill.git import GitError
from watchbill.ledger import decisions, evidence, firings, steps, stories
from watchbill.ledger.firings import Firing
from watchbill.reports import ending as told
from watchbill.reports import outlook, story

#: So many verdicts on an issue are read, the newest.
_MOST = 2000

HELP = "why an agent, an issue or a firing did what it did, or did nothing"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("subject", metavar="AGENT|REPO#N|FIRING")
    parser.add_argument("--at", metavar="TIME", help="as it was then: epoch seconds or 2026-11-21T14:05")
    parser.add_argument("--offline", action="store_true", help="of an issue: by this host's ledger alone")
    parser.add_argument("--json", action="store_true", help="one JSON object with a schema version")


def run(args: argparse.Namespace) -> int:
    fleet = shared.opened(args)
    at = _time(args.at)
    if re.fullmatch(r"[^#\s]+#0*[1-9]\d{0,17}", args.subject):
        whole = _issue(fleet, args.subject, at, args.offline)
    elif (fleet.roster and args.subject in fleet.roster.agents) or firings.of_agent(fleet.ledger, args.subject):
        whole = _agent(fleet, args.subject, at)
    else:
        row = firings.get(fleet.ledger, shared.firing_id(fleet.ledger, args.subject))
        assert row is not None
        whole = {"subject": row.id, "now": None, "firings": [_firing(fleet, row)], "decisions": [],
                 "events": []}  # fmt: skip
    away = whole.pop("away", None)
    if away:
        print(f"by this host's ledger alone ({told.printable(away)}): other hosts' doings are missing", file=sys.stderr)
    if args.json:
        shared.print_json(whole)
        return 0
    for line in lines(whole):
        print(told.printable(line))
    return 0


def _time(text: str | None) -> int:
    if text is None:
        return int(time.time())
    try:
        return min(int(text), 2**40) if text.isdigit() else int(datetime.fromisoformat(text).timestamp())
    except (ValueError, OverflowError) as error:
        raise Fixable("WB-WHY-01", f"--at {text!r} is no time", fix="epoch seconds, or 2026-11-21T14:05") from error


def _firing(fleet: shared.Opened, row: Firing) -> dict[str, Any]:
    found = [d._asdict() for d in decisions.of_firing(fleet.ledger, row.id)]
    return {**told.as_object(row), "reason_id": row.reason_id, "decisions": found}


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
    return {"subject": name, "now": now, "firings": [_firing(fleet, row) for row in last], "decisions": [],
            "events": []}  # fmt: skip


def _issue(fleet: shared.Opened, subject: str, at: int, offline: bool) -> dict[str, Any]:
    """Its whole story over all generations, and what holds now."""
    repo, _, text = subject.partition("#")
    number = int(text)
    known, away = _sources(fleet, repo, number, at, offline)
    now = None
    if fleet.roster is not None and repo in fleet.roster.fleet.repos:
        now, away = _now(fleet, repo, number, away, story.namer(known))
    owners = {own.row.id for own in known.own}  # theirs are told with them
    return {
        "subject": subject,
        "now": now,
        "firings": [_firing(fleet, own.row) for own in known.own],
        "decisions": [d._asdict() for d in reversed(known.decisions) if d.firing not in owners],
        "events": story.as_objects(event for event in story.tell(known) if event.at <= at),
        "away": away,
    }


def _sources(fleet: shared.Opened, repo: str, number: int, at: int, offline: bool) -> tuple[story.Sources, str | None]:
    """What is on record, here and in the claim ref; and why the latter is missing, if it is."""
    rows = [row for row in firings.of_issue(fleet.ledger, repo, number) if row.started <= at]
    said = decisions.on(fleet.ledger, f"{repo}#{number}", at, _MOST)[::-1]
    agents = {row.id: row.agent for row in rows}
    for id in {d.firing for d in said} - set(agents):
        row = firings.get(fleet.ledger, id)
        if row is not None:
            agents[id] = row.agent
    own = tuple(
        story.Own(
            row,
            tuple(e for e in evidence.of_firing(fleet.ledger, row.id) if e.kind == "kept"),
            row.ended is not None or not look.alive(row),
            max([row.started, *(step.started_ms // 1000 for step in steps.of_firing(fleet.ledger, row.id))]),
        )
        for row in rows
    )
    repo_id = next((row.repo_id for row in rows if row.repo_id is not None), None)
    chain, labels, away = _outside(fleet, repo, number, offline)
    if repo_id is None and chain:
        repo_id = next((record.repo_id for _, record in chain if isinstance(record, ClaimRecord)), None)
    done = tuple(stories.effects(fleet.ledger, repo_id, number)) if repo_id is not None else ()
    for id in {one.firing for one in done} - set(agents):
        row = firings.get(fleet.ledger, id)
        if row is not None:
            agents[id] = row.agent
    return story.Sources(fleet.host, own, done, tuple(said), chain, labels, agents, at), away


def _outside(
    fleet: shared.Opened, repo: str, number: int, offline: bool
) -> tuple[story.Chain | None, tuple[LabelEvent, ...] | None, str | None]:
    """The claim ref's history, oldest first, and what people did with the labels that we read."""
    if offline:
        return None, None, "--offline"
    if fleet.roster is None or repo not in fleet.roster.fleet.repos:
        return None, None, f"{repo} is not a repository of this fleet"
    with session(fleet) as f:
        names = f.fleet.labels
        ours = {*names, *(agent.takes for agent in f.roster.agents.values())} - {names.authored}
        try:
            chain = f.ports.claim_refs(f.fleet.repos[repo]).history(number)[::-1]
            me = poll.myself(f)
            with suppress(NotFound):
                said = f.ports.forge.issues.label_events(repo, number)
                return chain, tuple(e for e in said if e.label in ours and e.actor.id != me.id), None
            return chain, (), None
        except (ForgeError, GitError, Fixable, OSError) as error:
            return None, None, away_because(f, error).reason


def _now(
    fleet: shared.Opened, repo: str, number: int, away: str | None, name: Callable[[str], str]
) -> tuple[dict[str, Any] | None, str | None]:
    """What the agents that could take it would make of it now; of several, the one that would."""
    assert fleet.roster is not None
    may = [agent for agent in fleet.roster.agents.values() if repo in agent.repos and agent.role == "implement"]
    found: list[outlook.Outlook] = []
    for agent in may:
        with session(fleet, agent._replace(repos=(repo,))) as f:
            if away is None:
                try:
                    found.append(outlook.ahead(f, repo, number, offline=False))
                except (ForgeError, GitError, Fixable, OSError) as error:
                    away = away_because(f, error).reason
            if away is not None:
                found.append(outlook.ahead(f, repo, number, offline=True))
    if not found:
        return None, away
    best = max(found, key=lambda one: (one.would_take, one.verdicts[-1].verdict == "take", -found.index(one)))
    now = {
        "refused": not best.would_take,
        "outcome": best.outcome,
        "reason": name(best.text),
        "until": best.until,
        "gates": [verdict._asdict() for verdict in best.verdicts],
    }
    return now, away


def lines(whole: dict[str, Any]) -> list[str]:
    out = [str(whole["subject"])]
    if whole["now"] and not whole["events"]:
        out.append(f"  now: {whole['now']['reason']}")
    for row in whole["firings"] if not whole["events"] else ():
        out.append(
            f"  {moment(row['started'])}  firing {row['firing']} of {row['agent']}:"
            f" {row['outcome'] or 'has not ended'}: {row['reason'] or ''}".rstrip()
        )
        out += [f"    {_verdict(d)}" for d in row["decisions"] if d["reason"]]
    if not whole["firings"] and not whole["events"]:
        out.append("  nothing is on record: no firing has looked at it yet")
    if whole["events"]:
        out += [f"  {line}" for line in story.lines(whole["events"])]
        now = whole["now"]
        out.append(f"  now: {now['reason'] if now else 'nobody of this roster looks at it'}")
    return out


def _verdict(d: dict[str, Any]) -> str:
    return f"{d['step']}: {d['subject']}: {d['verdict']}: {d['reason']}"
