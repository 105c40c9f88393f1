"""The whole of one firing: its steps, decisions, effects, evidence and cost.

example: watchbill show 01kj4
"""

from __future__ import annotations

import argparse
from typing import Any

from watchbill import evidence as blobs
from watchbill import money
from watchbill.cli import shared
from watchbill.clock import moment
from watchbill.ledger import decisions, effects, evidence, firings, reservations, steps
from watchbill.reports import ending

HELP = "the whole of one firing"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("firing", help="its id, or the beginning of it")
    parser.add_argument("--json", action="store_true", help="one JSON object with a schema version")


def run(args: argparse.Namespace) -> int:
    fleet = shared.opened(args)
    whole = gather(fleet, shared.firing_id(fleet.ledger, args.firing))
    if args.json:
        shared.print_json(whole)
        return 0
    for line in lines(whole):
        print(ending.printable(line))
    return 0


def gather(fleet: shared.Opened, id: str) -> dict[str, Any]:
    """Everything the ledger has on one firing, as flat records."""
    row = firings.get(fleet.ledger, id)
    assert row is not None
    return {
        **ending.as_object(row),
        "reason_id": row.reason_id,
        "host": row.host,
        "config": row.config,
        "steps": [step._asdict() for step in steps.of_firing(fleet.ledger, id)],
        "decisions": [d._asdict() for d in decisions.of_firing(fleet.ledger, id)],
        "effects": [effect._asdict() for effect in effects.of_firing(fleet.ledger, id)],
        "evidence": [
            {**record._asdict(), "path": blobs.blob_path(fleet.home, record.digest)}
            for record in evidence.of_firing(fleet.ledger, id)
        ],
        "reservations": [r._asdict() for r in reservations.of_firing(fleet.ledger, id) if r.reserved or r.settled],
    }


def lines(whole: dict[str, Any]) -> list[str]:
    """As a person reads it."""
    out = [f"firing {whole['firing']} of {whole['agent']} ({whole['role']})"]
    out.append(f"  {whole['outcome'] or 'has not ended'}: {whole['reason'] or ''}".rstrip())
    out.append(
        f"  started {moment(whole['started'])}" + (f", exit {whole['exit']}" if whole["exit"] is not None else "")
    )
    if whole["number"]:
        pull = f" -> pull request #{whole['pull_request']}" if whole["pull_request"] else ""
        out.append(
            f"  {whole['repo']}#{whole['number']} generation {whole['generation']}, branch {whole['branch']}{pull}"
        )
    if whole["cost_usd"] is not None:
        out.append(f"  cost {money.usd(round(whole['cost_usd'] * money.MICRO))} ({whole['cost_basis']})")
    if whole["steps"]:
        out.append("steps")
    for step in whole["steps"]:
        spent = "died in it" if step["duration_ms"] is None else f"{step['duration_ms'] / 1000:.2f} s"
        said = f"  {step['detail']}" if step["detail"] else ""
        out.append(f"  {step['name']:<10} {spent:>10}  {step['verdict'] or ''}{said}".rstrip())
    if whole["decisions"]:
        out.append("decisions")
    for d in whole["decisions"]:
        out.append(f"  {d['step']:<8} {d['subject']}: {d['verdict']}  {d['reason']}".rstrip())
    if whole["effects"]:
        out.append("effects")
    for effect in whole["effects"]:
        done = "no receipt: not known to have happened" if effect["receipt"] is None else _short(effect["receipt"])
        out.append(f"  {effect['kind']:<20} {done}")
    if whole["evidence"]:
        out.append("evidence")
    for record in whole["evidence"]:
        out.append(f"  {record['kind']:<11} {_evidence(record['summary'])}")
        out.append(f"  {'':<11} {record['path']}")
        out += [f"  {'':<11} | {line}" for line in _last_words(record["summary"])]
    return out


def _last_words(summary: dict[str, Any]) -> list[str]:
    """What an engine that did not end well had said at last: often the only place where the reason stands."""
    if summary.get("verdict") in (None, "ok"):
        return []
    said = [*str(summary.get("message") or "").splitlines()[-3:], *str(summary.get("stderr") or "").splitlines()[-3:]]
    return [shared.words(line, 200) for line in said if line.strip()]


def _short(receipt: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in receipt.items() if value not in ("", [], None))


def _evidence(summary: dict[str, Any]) -> str:
    left_out = ("tail", "stderr", "message", "mirror")
    return ", ".join(f"{k} {v}" for k, v in summary.items() if k not in left_out and v not in ("", None, []))
