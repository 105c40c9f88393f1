"""The labels that Watchbill speaks with: what each repository of the fleet has, and what it is missing.

examples:
  watchbill labels                          what is there, what is missing
  watchbill labels sync --dry-run
  watchbill labels sync --repo acme/api     create what is missing there; what exists is left as it is
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from watchbill import ending
from watchbill.cli import shared
from watchbill.cli.claims import chosen, session
from watchbill.compiled import Compiled
from watchbill.errors import Fixable
from watchbill.forge.base import ForgeError, NotFound
from watchbill.live import Firing
from watchbill.outcomes import EXIT

HELP = "the labels each repository has; `sync` creates what is missing"


class Label(NamedTuple):
    """One label of the catalogue."""

    name: str
    color: str  # six hex digits
    description: str  # at most 100 characters, which is all GitHub takes


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", choices=("sync",), help="create what is missing")
    parser.add_argument("--repo", metavar="OWNER/NAME", help="only there (default: every repository of the fleet)")
    parser.add_argument("--dry-run", action="store_true", help="say what sync would create and create nothing")
    parser.add_argument("--json", action="store_true", help="one JSON object with a schema version")


def run(args: argparse.Namespace) -> int:
    fleet = shared.opened(args)
    rows: list[dict[str, Any]] = []
    failures: list[dict[str, Any]] = []
    with session(fleet) as f:
        for repo in chosen(f.fleet, args.repo):
            try:
                rows += list(_of_repo(f, repo, args.action == "sync", args.dry_run))
            except (ForgeError, Fixable) as error:
                failures.append({"repo": repo, **_why(f, repo, error)})
    if args.json:
        shared.print_json({"labels": rows, "failures": failures})
    else:
        columns = ("repo", "label", "state", "description")
        shared.print_table(("repository", *columns[1:]), [[row[name] for name in columns] for row in rows])
    for failure in failures:
        print(f"{failure['repo']}: {failure['reason']}", file=sys.stderr)
    missing = sum(row["state"] == "missing" for row in rows)
    if missing and not args.json:
        print(f"{shared.count(missing, 'label')} missing: watchbill labels sync", file=sys.stderr)
    return EXIT[failures[0]["outcome"]] if failures else 0


def catalogue(roster: Compiled, repo: str) -> list[Label]:
    """Every label that Watchbill reads or writes in a repository, under the fleet's own names."""
    names = roster.fleet.labels
    found = [
        Label(names.implement, "0e8a16", "An agent may take this issue; whoever puts it on needs write permission"),
        Label(names.in_flight, "fbca04", "An agent works on it now; close it or say do-not-pickup to stop that"),
        Label(names.pr_open, "1d76db", "Its pull request waits for a person: merge it, or close it"),
        Label(names.done, "6f42c1", "Its pull request was merged"),
        Label(names.needs_human, "d93f0b", "No agent goes on with this by itself; the comment on it says why"),
        Label(names.do_not_pickup, "b60205", "No agent takes this issue, whatever else is on it"),
        Label(names.plan_pending, "c5def5", "Its plan waits for a person's approval; no agent takes it until then"),
        Label(names.authored, "ededed", "This pull request was written by an agent"),
        Label(names.fixes_base, "bfdadc", "It may be taken although the checks fail on the base: it mends them"),
    ]
    known = {label.name for label in found}
    for agent in roster.agents.values():
        if repo in agent.repos and agent.takes and agent.takes not in known:
            known.add(agent.takes)
            found.append(Label(agent.takes, "0e8a16", f"The agent {agent.name} may take this issue"[:100]))
    return found


def _of_repo(f: Firing, repo: str, create: bool, dry_run: bool) -> Iterator[dict[str, Any]]:
    """A row a label; with `create` what is missing is made as we go."""
    forge = f.ports.forge.repository
    facts = forge.facts(repo)
    if create and facts.archived:
        raise Fixable("WB-LABELS-01", f"{repo} is archived: nothing in it can be changed",
                      fix="take it out of `[fleet] repos`")  # fmt: skip
    if create and not facts.can_push:
        raise Fixable("WB-LABELS-02", "this account may not write there, so it cannot create labels",
                      fix="use a token whose account has write permission", outcome="unauthorized")  # fmt: skip
    there = {name.casefold(): name for name in forge.labels(repo)}  # GitHub tells no upper from lower case
    for label in catalogue(f.roster, repo):
        found = there.get(label.name.casefold())
        state = "missing" if found is None else "exists" if found == label.name else f"spelt {found}"
        if found is None and create:
            if not dry_run:
                forge.create_label(repo, label.name, label.color, label.description)
            state = "would be created" if dry_run else "created"
        yield {"repo": repo, "label": label.name, "state": state, "color": label.color,
               "description": label.description}  # fmt: skip


def _why(f: Firing, repo: str, error: Exception) -> dict[str, Any]:
    """A failure in one repository; the others are done all the same."""
    if isinstance(error, NotFound):
        return {"outcome": "invalid", "reason": f"there is no repository {repo}, or this account may not see it"}
    end = ending.of(f, error)
    return {"outcome": end.outcome, "reason": end.reason}
