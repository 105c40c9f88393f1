"""Who owns which issue, across all hosts: the claim refs of the fleet's repositories, and the history of one issue.

examples:
  watchbill claims                                   every claim: holder, age, what comes next
  watchbill claims acme/api#41                       its history, oldest first
  watchbill claims release acme/api#41 --reason "the host is being rebuilt"
  watchbill claims release acme/api#41 --to human --reason "I will do it myself"
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from watchbill import bury, ending, look, mend, process, quota, release
from watchbill.claims import rules
from watchbill.claims.record import ClaimRecord, Unreadable
from watchbill.claims.refs import Seen
from watchbill.cli import shared
from watchbill.cli.pause import author
from watchbill.clock import SystemClock, moment
from watchbill.compiled import Agent, Fleet
from watchbill.errors import Fixable
from watchbill.forge.base import ForgeError
from watchbill.git import GitError
from watchbill.ids import new_id
from watchbill.ledger import claims, firings, polls, stories
from watchbill.live import Firing
from watchbill.outcomes import EXIT, Ending
from watchbill.ports import Ports
from watchbill.reports import claims as words
from watchbill.reports.ending import printable
from watchbill.woken import Options

HELP = "who owns which issue; the history of one; release by hand"
_OUTSIDE = (ForgeError, GitError, Fixable, OSError)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="[release] OWNER/NAME#N", help="one issue; without it, every claim")
    parser.add_argument("--repo", metavar="OWNER/NAME", help="only its claims (default: every repository of the fleet)")
    parser.add_argument("--reason", help="release: why; it is told to people")
    parser.add_argument("--to", choices=("retry", "human"), default="retry",
                        help="release: to be tried again (default), or to a person")  # fmt: skip
    parser.add_argument("--force", action="store_true", help="release: although its firing is alive on this host")
    parser.add_argument("--dry-run", action="store_true", help="release: say what would be done and do nothing")
    parser.add_argument("--json", action="store_true", help="one JSON object with a schema version")
    parser.set_defaults(wrong=parser.error)


def run(args: argparse.Namespace) -> int:
    match args.words:
        case []:
            return _list(args)
        case ["release", subject]:
            return _release(args, *_issue(args, subject))
        case [subject]:
            return _history(args, *_issue(args, subject))
    return int(args.wrong(f"what is {' '.join(args.words)!r}?"))  # a usage error: argparse ends with exit status 2


def _issue(args: argparse.Namespace, subject: str) -> tuple[str, int]:
    found = re.fullmatch(r"([^#\s]+/[^#\s]+)#([1-9]\d*)", subject)
    if not found:
        args.wrong(f"{subject!r} is no issue: acme/api#41")
    assert found is not None
    return found[1], int(found[2])


# What the verbs that look outside share


@contextmanager
def session(fleet: shared.Opened, agent: Agent | None = None, *, dry_run: bool = True) -> Iterator[Firing]:
    """A person at the keyboard as a session with the outside: the same ports that a firing has, and no row.

    `agent`: in whose place to look; any of the roster when it does not matter.
    """
    if fleet.roster is None or not fleet.roster.agents:
        raise Fixable("WB-CLAIMS-01", f"{fleet.home.root}: no roster that says where to look",
                      fix="`watchbill plan` says what is wrong with it")  # fmt: skip
    agent = agent or next(iter(fleet.roster.agents.values()))
    clock, me = SystemClock(), process.me()
    now = int(clock.now())
    row = firings.Firing(new_id(now), agent.name, agent.role, fleet.host, me.boot, me.pid, me.started, None, now)
    ports = Ports(fleet.home, fleet.roster.fleet, agent, clock, fleet.ledger)
    ports.limits = quota.Told(fleet.ledger, clock, author())
    try:
        yield Firing(row, agent, fleet.roster, ports, Options(agent.name, dry_run=dry_run), now * 1000)
    finally:
        ports.close()


def chosen(fleet: Fleet, repo: str | None) -> list[str]:
    """The repositories that were meant; one that is not the fleet's is an error."""
    if repo is None:
        return list(fleet.repos)
    if repo not in fleet.repos:
        raise Fixable("WB-CLAIMS-02", f"{repo} is not a repository of this fleet",
                      fix=f"one of: {', '.join(fleet.repos)}")  # fmt: skip
    return [repo]


def away_because(f: Firing, error: Exception) -> Ending:
    """What an outage means, in one line for people."""
    end = ending.of(f, error)
    if isinstance(error, GitError):
        fatal = [line for line in error.stderr.splitlines() if line.startswith("fatal:")] or error.stderr.splitlines()
        return end._replace(reason=f"git: {fatal[0].removeprefix('fatal:').strip() if fatal else 'no answer in time'}")
    return end._replace(reason=" ".join(end.reason.split())[:200])


def alive_here(f: Firing, record: ClaimRecord) -> bool | None:
    """Whether the firing that made a record runs on this host now; None: not of this host, or not known to it."""
    row = firings.get(f.ledger, record.firing) if record.host == f.row.host else None
    return None if row is None else row.ended is None and look.alive(row)


# The list


def _list(args: argparse.Namespace) -> int:
    fleet = shared.opened(args)
    rows: list[dict[str, Any]] = []
    failures: list[dict[str, Any]] = []
    with session(fleet) as f:
        for repo in chosen(f.fleet, args.repo):
            try:
                rows += _of_repo(f, repo)
            except _OUTSIDE as error:
                end = away_because(f, error)
                failures.append({"repo": repo, "outcome": end.outcome, "reason": end.reason})
                rows += _from_ledger(f, repo)
    if args.json:
        shared.print_json({"host": fleet.host, "claims": rows, "failures": failures})
    else:
        heads = ("issue", "state", "holder", "generation", "unchanged", "next", "pull request")
        shared.print_table(heads, [_cells(row, fleet.host) for row in rows])
    for failure in failures:
        print(f"{failure['repo']}: {printable(failure['reason'])}; what this host remembers is marked `last known`",
              file=sys.stderr)  # fmt: skip
    if not rows and not failures:
        print("no issue has ever been claimed", file=sys.stderr)
    return EXIT[failures[0]["outcome"]] if failures else 0


_EMPTY: dict[str, Any] = {
    "repo": None, "number": None, "state": None, "generation": None, "sequence": None, "role": None, "agent": None,
    "firing": None, "host": None, "this_host": None, "alive": None, "owner": None, "attempt": None, "spent_micro": None,
    "unchanged_s": None, "takeover_in_s": None, "pull_request": None, "head": None, "tip": None, "issued": None,
    "reason": None, "source": "remote",
}  # fmt: skip


def _of_repo(f: Firing, repo: str) -> list[dict[str, Any]]:
    """Every claim of a repository, as its refs say now."""
    seen = f.ports.claim_refs(f.fleet.repos[repo]).records()
    rows = []
    for number, claim in sorted(seen.items()):
        assert claim.tip is not None
        row = {**_EMPTY, "repo": repo, "number": number, "tip": claim.tip}
        if isinstance(claim.record, Unreadable):
            row |= {"state": "unreadable", "reason": claim.record.reason}
        elif claim.record is not None:
            row |= _row(f, claim, claim.record)
        rows.append(row)
    return rows


def _row(f: Firing, claim: Seen, record: ClaimRecord) -> dict[str, Any]:
    phase, known = rules.phase(record), mend.takeover(f, record.repo_id, record.number, claim)
    left_s: int | None = None
    if phase in ("active", "active(role)"):
        left_s = 0 if known.dead_here else max(0, round(record.ttl + known.grace_s - known.unchanged_s))
    elif phase == "published":  # anybody may open its pull request then
        left_s = 0 if known.dead_here else max(0, round(known.grace_s - known.unchanged_s))
    busy = left_s is not None
    return {
        "state": phase,
        "generation": record.generation,
        "sequence": record.sequence,
        "role": record.role,
        "agent": record.agent,
        "firing": record.firing,
        "host": record.host,
        "this_host": record.host == f.row.host,
        "alive": alive_here(f, record) if busy else None,
        "owner": rules.owner(record, known) if busy else None,
        "attempt": record.attempt,
        "spent_micro": record.spent,
        "unchanged_s": int(known.unchanged_s),
        "takeover_in_s": left_s,
        "pull_request": record.pr,
        "head": record.head,
        "issued": record.issued,
    }


def _from_ledger(f: Firing, repo: str) -> list[dict[str, Any]]:
    """The same as far as this host's ledger knows, for a repository that did not answer."""
    numbers: set[int] = set()
    repo_id = (polls.get(f.ledger, f"facts {repo}").body or {}).get("id")
    for agent in f.roster.agents.values():
        body = polls.get(f.ledger, look.query(repo, agent.takes)).body or {}
        numbers |= {int(number) for number in body.get("claims") or {}}
    if repo_id is not None:
        numbers |= set(stories.issues(f.ledger, repo_id))
    rows = []
    for number in sorted(numbers):
        row = claims.last_won(f.ledger, repo_id, number) if repo_id is not None else None
        known = {**_EMPTY, "repo": repo, "number": number, "state": "unknown", "source": "ledger"}
        if row is not None:
            owner = firings.get(f.ledger, row.firing)
            known |= {"state": row.record, "generation": row.generation, "firing": row.firing, "host": row.host,
                      "agent": owner.agent if owner else None, "role": owner.role if owner else None,
                      "this_host": row.host == f.row.host, "tip": row.tip, "issued": row.won_at,
                      "pull_request": owner.pull_request if owner else None}  # fmt: skip
        rows.append(known)
    return rows


def _cells(row: dict[str, Any], here: str) -> tuple[object, ...]:
    """One row for people."""
    issue = f"{row['repo']}#{row['number']}"
    if row["source"] == "ledger":
        holder = f"{row['agent']} on {words.place(row['host'], here)}" if row["agent"] else None
        return (issue, f"last known: {row['state']}", holder, row["generation"], None, "the remote did not answer",
                row["pull_request"])  # fmt: skip
    if row["state"] == "unreadable":
        return issue, row["state"], None, None, None, f"held for a person: {row['reason']}", None
    holder = f"{row['agent']} on {words.place(row['host'], here)}"
    return (issue, row["state"], holder, row["generation"], words.span(row["unchanged_s"]), _next(row),
            row["pull_request"])  # fmt: skip


def _next(row: dict[str, Any]) -> str:
    """What can happen to a claim, and when."""
    left_s, state = row["takeover_in_s"], row["state"]
    if left_s is None:
        return {
            "pr": "a person merges or closes the pull request",
            "done": "nothing, until a person labels it again",
            "released(retry)": "taken again by a firing, unless it backs off",
            "released(human)": "nothing, until a person labels it again",
        }[state]
    if row["alive"]:
        return "at work on this host"
    how = {
        "active": "the next firing takes it over",
        "active(role)": "the next firing gives it back to its pull request",
        "published": "the next firing opens its pull request",
    }[state]
    if row["alive"] is False:
        return "its firing here is gone: the next firing on this host repairs that"
    if row["owner"] == "dead":
        return f"its firing here is over: {how}"
    if left_s == 0:
        return f"silent for too long: {how}"
    return f"if it stays silent for {words.span(left_s)} more, {how}"


# The history


def _history(args: argparse.Namespace, repo: str, number: int) -> int:
    fleet = shared.opened(args)
    with session(fleet) as f:
        chosen(f.fleet, repo)
        try:
            chain = f.ports.claim_refs(f.fleet.repos[repo]).history(number)[::-1]
        except _OUTSIDE as error:
            return _known(args, f, repo, number, error)
    rows: list[dict[str, Any]] = []
    before: ClaimRecord | Unreadable | None = None
    for tip, record in chain:
        rows.append({"tip": tip, "text": words.said(before, record, fleet.host) + _so_far(record), **_facts(record)})
        before = record
    if args.json:
        shared.print_json({"repo": repo, "number": number, "commits": rows, "failure": None})
        return 0
    for row in rows:
        at = moment(row["issued"]) if row["issued"] is not None else "-"
        step = f"g{row['generation']}.{row['sequence']}" if row["generation"] else "g?"
        print(printable(f"{row['tip'][:12]}  {at}  {step:<6} {row['text']}"))
    if not rows:
        print(f"{repo}#{number} has never been claimed", file=sys.stderr)
    return 0


def _so_far(record: ClaimRecord | Unreadable) -> str:
    return words.spent(record) if isinstance(record, ClaimRecord) else ""


def _facts(record: ClaimRecord | Unreadable) -> dict[str, Any]:
    if isinstance(record, Unreadable):
        return {**dict.fromkeys(_FACTS), "state": "unreadable", "reason": record.reason}
    return {**{name: getattr(record, name) for name in _FACTS if hasattr(record, name)},
            "state": rules.phase(record), "pull_request": record.pr, "reason": None}  # fmt: skip


_FACTS = ("state", "generation", "sequence", "issued", "agent", "role", "firing", "host", "attempt", "spent", "head",
          "pull_request", "reason")  # fmt: skip


def _known(args: argparse.Namespace, f: Firing, repo: str, number: int, error: Exception) -> int:
    """The remote did not answer: the generations of this host, from its ledger."""
    end = away_because(f, error)
    rows: list[dict[str, Any]] = []
    for row in firings.of_issue(f.ledger, repo, number):
        owned = claims.of_firing(f.ledger, row.id)
        if owned is not None and owned.won_at is not None:
            text = f"claimed by {row.agent} on {words.place(owned.host, f.row.host)}; last known: {owned.record}"
            rows.append({"tip": owned.tip, "text": text, **dict.fromkeys(_FACTS), "state": owned.record,
                         "generation": owned.generation, "issued": owned.won_at, "agent": row.agent, "role": row.role,
                         "firing": row.id, "host": owned.host, "pull_request": row.pull_request})  # fmt: skip
    if args.json:
        failure = {"repo": repo, "outcome": end.outcome, "reason": end.reason}
        shared.print_json({"repo": repo, "number": number, "commits": rows, "failure": failure})
    else:
        for known in rows:
            print(printable(f"{str(known['tip'])[:12]}  {moment(known['issued'])}  g{known['generation']:<5}"
                            f" {known['text']}"))  # fmt: skip
    print(f"{repo}: {printable(end.reason)}; this is what this host's ledger remembers", file=sys.stderr)
    return EXIT[end.outcome]


# By hand


def _release(args: argparse.Namespace, repo: str, number: int) -> int:
    if not args.reason or not args.reason.strip():
        args.wrong("release needs --reason: it is told to people")
    fleet = shared.opened(args)
    with session(fleet, dry_run=args.dry_run) as f:
        target = f.fleet.repos[chosen(f.fleet, repo)[0]]
        try:
            if not args.dry_run:
                bury.the_dead(f.ledger, f.ports.home, f.row.host, f.roster, f.now)  # the killed first
            said = release.by_hand(f, target, number, args.to, shared.words(args.reason), args.force)
        except (ForgeError, GitError) as error:
            end = away_because(f, error)
            raise Fixable("WB-CLAIMS-03", f"{repo}#{number} could not be released", why=end.reason,
                          fix="try again when it answers", outcome=end.outcome) from error  # fmt: skip
    if args.json:
        shared.print_json({"repo": repo, "number": number, "to": args.to, "dry_run": args.dry_run, "text": said})
    else:
        print(printable(said))
    return 0
