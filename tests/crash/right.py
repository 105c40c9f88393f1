"""Is everything right? What must hold of issues, pull requests, hosts and paid-for work once a fleet has run on.

`wrong(hosts)` reads the forge, the remote's refs, each host's ledger, mirror, disk and processes, as an operator would,
and says in words what is not as it should be. It knows nothing of what was done to the fleet.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from support.fleet import Fleet
from support.forge import REPO, World, git
from watchbill.claims import record as codec
from watchbill.claims.record import ClaimRecord
from watchbill.compiled import Labels
from watchbill.engines.keeper import MARKER
from watchbill.ledger import chain

NAMES = Labels()
LIFECYCLE = {NAMES.implement, NAMES.in_flight, NAMES.pr_open, NAMES.done, NAMES.needs_human}
#: Where a claim may rest, and the one label that tells people so.
RESTS = {
    "none": NAMES.implement,
    "released(retry)": NAMES.implement,
    "released(human)": NAMES.needs_human,
    "pr": NAMES.pr_open,
    "done": NAMES.done,
}
_SETTLING_S = 5  # what was killed is swept by its keeper a moment later


class Issue(NamedTuple):
    """An issue and everything that is said about it."""

    number: int
    labels: set[str]
    chain: list[ClaimRecord]  # of its claim ref, the newest first
    pulls: list[dict[str, Any]]  # of its work branch, closed ones too
    comments: int  # ours

    @property
    def phase(self) -> str:
        if not self.chain:
            return "none"
        tip = self.chain[0]
        return f"released({tip.outcome})" if tip.state == "released" else tip.state


def wrong(hosts: list[Fleet], ran: Path | None = None, rests: bool = True) -> list[str]:
    """What is wrong, [] when nothing is. `ran`: a file to which an engine that had written its work appended its
    firing's id; `rests`: nobody is at work any more, and no claim waits for anybody."""
    world = hosts[0].world
    seen = issues(world)
    found = [said for issue in seen for said in _of_issue(issue, rests)]
    found += _second_owners(hosts, seen)
    for host in hosts:
        found += [f"{host.home.name}: {said}" for said in _of_host(host)]
    if ran is not None and ran.exists():
        found += _lost_work(hosts, ran)
    return found


def issues(world: World) -> list[Issue]:
    """Every issue of acme/api, oldest first."""
    pulls = list(_pages(world, "pulls?state=all"))
    listed = [one for one in _pages(world, "issues?state=all") if "pull_request" not in one]
    claims = git("--git-dir", world.bare, "for-each-ref", "--format=%(refname)", "refs/watchbill/claims/").split()
    claimed = {int(ref.rsplit("/", 1)[1]) for ref in claims}
    found = []
    for one in sorted(listed, key=lambda one: int(one["number"])):
        number = int(one["number"])
        said = list(_pages(world, f"issues/{number}/comments?")) if one["comments"] else []
        found.append(
            Issue(
                number,
                {label["name"] for label in one["labels"]},
                _chain(world, number) if number in claimed else [],
                [pull for pull in pulls if pull["head"]["ref"] == f"watchbill/issue-{number}"],
                sum(comment["user"]["login"] == "watchbill-bot" for comment in said),
            )
        )
    return found


def _pages(world: World, what: str) -> Iterator[dict[str, Any]]:
    page = 1
    while True:
        reply = world.ask("octocat", "GET", f"/repos/{REPO}/{what}&per_page=100&page={page}")
        assert reply.status == 200, reply
        yield from reply.body
        if len(reply.body) < 100:
            return
        page += 1


def _chain(world: World, number: int) -> list[ClaimRecord]:
    text = git("--git-dir", world.bare, "log", "--first-parent", "--format=%B%x00", f"refs/watchbill/claims/{number}")
    records = [codec.parse(message.lstrip("\n").rstrip("\n") + "\n", number) for message in text.split("\0")[:-1]]
    assert all(isinstance(record, ClaimRecord) for record in records), records
    return [record for record in records if isinstance(record, ClaimRecord)]


def _of_issue(issue: Issue, rests: bool) -> Iterator[str]:
    here, tip = f"#{issue.number} ({issue.phase})", issue.chain[0] if issue.chain else None
    if rests and issue.phase not in RESTS:
        yield f"{here}: its claim rests as {issue.phase}"
    shown = issue.labels & LIFECYCLE
    if rests and shown != {RESTS.get(issue.phase)}:
        yield f"{here}: its labels are {sorted(shown)}"
    if issue.comments > 1:
        yield f"{here}: {issue.comments} comments of ours"
    if rests and tip is not None and issue.comments == 0:
        yield f"{here}: nobody was told by a comment"
    if len(issue.pulls) > 1:
        yield f"{here}: {len(issue.pulls)} pull requests"
    if issue.phase == "pr" and tip is not None:
        shown_pulls = [(pull["number"], pull["state"], pull["head"]["sha"]) for pull in issue.pulls]
        if shown_pulls != [(tip.pr, "open", tip.head)]:
            yield f"{here}: its pull requests are {shown_pulls}, its claim says #{tip.pr} at {tip.head}"
    if issue.phase in ("none", "released(retry)") and issue.pulls:
        yield f"{here}: it is given back and has pull request #{issue.pulls[0]['number']}"
    published = [record.generation for record in issue.chain if record.state == "published"]
    if published and issue.chain[0].generation != published[0]:
        yield f"{here}: generation {issue.chain[0].generation} did again what {published[0]} had published"
    if published and len(set(published)) > 1:
        yield f"{here}: published by generations {published}"


def _second_owners(hosts: list[Fleet], seen: list[Issue]) -> Iterator[str]:
    """Whoever a host's ledger calls the winner of a generation is the one that the claim's history names."""
    named = {(issue.number, record.generation): record.firing for issue in seen for record in issue.chain}
    for host in hosts:
        if (host.home / "ledger.db").exists():
            won = host.rows("SELECT number, generation, firing FROM claims WHERE won_at IS NOT NULL")
            for number, generation, firing in won:
                if named.get((number, generation)) != firing:
                    yield f"#{number}: generation {generation} was won by {firing} too"


def _of_host(it: Fleet) -> Iterator[str]:
    none_of = {
        "live claim rows": "SELECT firing, number, state, record FROM claims WHERE state IN ('intended', 'won')",
        "live firings": "SELECT id, agent FROM firings WHERE ended IS NULL",
        "open reservations": "SELECT firing, scope, unit FROM reservations WHERE settled IS NULL",
        "reserved money": "SELECT * FROM spend WHERE reserved <> 0",
        "poll leases": "SELECT query, refreshing_by FROM polls WHERE refreshing_by IS NOT NULL",
    }
    if not (it.home / "ledger.db").exists():
        return
    for what, statement in none_of.items():
        if rows := it.rows(statement):
            yield f"{what}: {rows}"
    trees = it.home / "worktrees"
    if trees.is_dir() and (left := sorted(path.name for path in trees.iterdir())):
        yield f"worktrees: {left}"
    for mirror in (it.home / "mirrors").glob("*.git"):
        if (mirror / "worktrees").is_dir() and (left := sorted(os.listdir(mirror / "worktrees"))):
            yield f"{mirror.name} still knows worktrees: {left}"
    ledger = it.ledger()
    with contextlib.closing(ledger):
        if broken := chain.verify(ledger._connection):
            yield f"the ledger's chain is broken: {broken}"
    if running := _running(it):
        yield f"processes: {running}"


def _running(it: Fleet) -> list[str]:
    """Processes that carry the marker of a firing of this host, after a moment's patience."""
    firings = {row[0] for row in it.rows("SELECT id FROM firings")}
    until = time.monotonic() + _SETTLING_S
    while (left := [said for firing, said in _marked() if firing in firings]) and time.monotonic() < until:
        time.sleep(0.02)
    return left


def _marked() -> Iterator[tuple[str, str]]:
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            for word in (entry / "environ").read_bytes().split(b"\0"):
                if word.startswith(f"{MARKER}=".encode()):
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    if line:  # a zombie has none
                        yield word.decode().partition("=")[2], f"{entry.name}: {line[:80]}"
        except OSError:
            continue


def _lost_work(hosts: list[Fleet], ran: Path) -> list[str]:
    """Paid-for work that no ref of the remote or of any host's mirror leads to."""
    places = [hosts[0].world.bare, *(mirror for host in hosts for mirror in (host.home / "mirrors").glob("*.git"))]
    reached = set()
    for place in places:
        trailers = "--format=%(trailers:key=Firing,valueonly)"
        reached |= set(git("--git-dir", place, "log", "--all", trailers).split())
    return [f"the work of firing {firing} is nowhere" for firing in set(ran.read_text().split()) - reached]
