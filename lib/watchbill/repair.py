"""repair: what dead firings of this host left is brought to where the living would have brought it.

Processes, rows and money first (`bury`); then the claims, at most three, so that no steward is needed for safety; then
the worktrees of firings that own nothing any more.
"""

from __future__ import annotations

import itertools
import os

from watchbill import bury, ending, look, mend, poll, projection, quota, sessions, settle, tidy, worktree
from watchbill.claims.record import ClaimRecord
from watchbill.claims.refs import Seen
from watchbill.compiled import Compiled, Repo
from watchbill.forge.base import ForgeError
from watchbill.ledger import claims, firings, polls, steps
from watchbill.ledger.claims import Claim as ClaimRow
from watchbill.live import Claim, Firing, Target
from watchbill.outcomes import DIED, Ending
from watchbill.ports import Ports
from watchbill.settle import OUTSIDE
from watchbill.woken import Woken

#: At most so many dead firings are repaired by one that wants to work itself.
MOST_DEAD = 3
_REPAIRED_S = 300
#: States of a record whose work is on the remote.
_LANDED = ("published", "pr", "done")


def the_dead(f: Firing, only: str | None = None) -> None:
    """Repair what dead firings of this host left: processes, rows, money, claims. At most three.

    `only`: the claim of this firing.
    """
    bury.the_dead(f.ledger, f.ports.home, f.row.host, f.roster, f.now)
    held = [
        row for row in claims.live(f.ledger, f.row.host) if look.is_over(f.ledger, row) and only in (None, row.firing)
    ]
    ours = (row for row in held if row.repo in f.fleet.repos and _ours_to_repair(f, row))
    for row in itertools.islice(ours, MOST_DEAD):
        try:
            _repair(f, row)
        except OUTSIDE as error:
            f.note("a dead firing's claim could not be repaired now", firing=row.firing, error=str(error))
        except Exception as error:  # a mistake of ours about one issue is no reason to do nothing else, ever
            ending.of(f, error)
    with f.ledger.transaction():
        polls.give_back_all(f.ledger, f.id)
    _tidy_after_the_dead(f)


def _ours_to_repair(f: Firing, row: ClaimRow) -> bool:
    """One firing repairs one claim at a time."""
    with f.ledger.transaction():
        ours = polls.take(f.ledger, f"repair {row.id}", f.id, f.now, f.now + _REPAIRED_S)
        still = claims.of_firing(f.ledger, row.firing)
        return ours and still is not None and still.state in ("intended", "won")


def _tidy_after_the_dead(f: Firing) -> None:
    """Worktrees of firings that have ended and own nothing any more. By what the ledger says, never by age."""
    root = f.ports.home.worktrees
    for id in sorted(os.listdir(root)) if os.path.isdir(root) else []:
        row, owned = firings.get(f.ledger, id), claims.of_firing(f.ledger, id)
        if row is None or row.ended is None or row.repo not in f.fleet.repos or look.alive(row):
            continue  # it may live on, ended on record under an id that this host had before
        if owned is not None and owned.state in ("intended", "won"):
            continue
        try:
            if owned is not None:
                _keep_what_is_left(f, row, owned)
        except OUTSIDE as error:
            f.note("a dead firing's worktree stays for now", firing=id, error=str(error))
            continue
        tidy.remove(os.path.join(root, id), f.ports.mirror(f.fleet.repos[row.repo]), f)


def _keep_what_is_left(f: Firing, dead: firings.Firing, row: ClaimRow) -> None:
    """However a dead firing's claim came to its end: what it had been paid for, and did not land, is kept."""
    repo, tip = f.fleet.repos[row.repo], row.tip or row.intended
    history = steps.of_firing(f.ledger, dead.id)
    worked = dead.engine is not None or not history or any(step.name == "engine" for step in history)
    if row.record in _LANDED or not worked:
        return
    if dead.id in f.ports.mirror(repo).kept():
        return
    record = f.ports.claim_refs(repo).record_at(row.number, tip)
    if record is None:  # what it began from is not known any more: the tree itself is what is left
        tidy.hold(os.path.join(f.ports.home.worktrees, dead.id), "its claim's record is not in the mirror")
        return
    target = mend.target_of(f, repo, record, mend.gone(row.number), Seen(tip, record, None))
    ghost = _ghost(f, dead, target, record, tip)
    settle.keep_work(ghost)
    sessions.keep(ghost)


def the_dead_of_host(woken: Woken, roster: Compiled | None) -> None:
    """The same for a firing that itself may not work, because the roster is invalid."""
    bury.the_dead(woken.ledger, woken.home, woken.row.host, roster, int(woken.clock.now()))
    if roster is None or not roster.agents:
        return
    agent = roster.agents.get(woken.options.agent) or next(iter(roster.agents.values()))
    ports = Ports(woken.home, roster.fleet, agent, woken.clock, woken.ledger)
    ports.limits = quota.Kept(woken.ledger, woken.clock, agent.name, woken.row.id)
    try:
        the_dead(Firing(woken.row, agent, roster, ports, woken.options, woken.started_ms))
    finally:
        ports.close()


def _repair(f: Firing, row: ClaimRow) -> None:
    """Bring one dead firing's claim to where the living would have brought it."""
    dead = firings.get(f.ledger, row.firing)
    repo = f.fleet.repos.get(row.repo)
    if dead is None or repo is None:
        return
    seen = f.ports.claim_refs(repo).read(row.number)
    record = seen.record if isinstance(seen.record, ClaimRecord) and seen.record.firing == row.firing else None
    if record is None or seen.tip is None:
        with f.ledger.transaction():
            state = "lost" if row.state == "intended" else "superseded"
            claims.end(f.ledger, row.firing, state, row.record, row.tip, f.now)
        return
    with f.ledger.transaction():
        if row.state == "intended":
            claims.win(f.ledger, row.firing, row.repo_id, row.number, seen.tip, f.now)
        claims.advance(f.ledger, row.firing, seen.tip, record.state)
    f.note("repairing a dead firing's claim", firing=dead.id, issue=f"{row.repo}#{row.number}", state=record.state)
    issue = poll.issue_of(f, repo, row.number)
    if record.state == "active" and issue is not None:
        ghost = _ghost(f, dead, mend.target_of(f, repo, record, issue, seen), record, seen.tip)
        settle.keep_work(ghost)
        sessions.keep(ghost)
        ghost.end_reason = dead.reason or "it died"
        settle.release(ghost, Ending(dead.outcome or DIED, ghost.end_reason, dead.reason_id or ""))
        return
    mended = mend.mend(f, repo, row.number, seen)
    if mended.phase == "published":
        return  # not yet, or not now: a later firing goes on
    try:
        _tell_for(f, dead, repo, row)
    except ForgeError as error:  # words are not ownership
        f.note("the comment of a dead firing's claim is not written", error=str(error))
    with f.ledger.transaction():
        claims.end(f.ledger, row.firing, "ended", mended.phase.partition("(")[0], row.tip, f.now)


def _tell_for(f: Firing, dead: firings.Firing, repo: Repo, row: ClaimRow) -> None:
    """The comment, of a firing that died between moving its claim for the last time and telling people."""
    about = mend.facts(f, repo, row.number)
    if about is None or about.facts.issue == "gone" or about.claim.record.firing != dead.id:
        return
    projection.comment(f, about.claim, about.facts.phase, why=dead.reason or "it died")


def _ghost(f: Firing, dead: firings.Firing, target: Target, record: ClaimRecord, tip: str) -> Firing:
    """The dead firing as a session once more, so that one way of settling serves both."""
    agent = f.roster.agents.get(dead.agent, f.agent)
    ghost = Firing(dead, agent, f.roster, f.ports, f.options, f.started_ms)
    ghost.claim = Claim(target, record, tip)
    ghost.tree = worktree.places(ghost, record.base)
    ghost.engine_started = any(step.name == "engine" for step in steps.of_firing(f.ledger, dead.id))
    ghost.settled = (dead.cost_micro or 0, dead.cost_basis or "reservation")
    return ghost
