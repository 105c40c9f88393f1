"""settle: actual cost, outcome, release. Also for a firing that died: whoever fires next on this host settles it.

What a firing owns is given back in the order in which a crash does least harm: the work is kept, then the claim ref
moves (the truth), then labels and comment (what people see), then the money and the row.
"""

from __future__ import annotations

import itertools
import os
import random

from watchbill import (
    billing,
    claim,
    collect,
    effects,
    ending,
    evidence,
    look,
    mend,
    pill,
    poll,
    process,
    projection,
    quota,
    reserve,
    tidy,
    worktree,
)
from watchbill.billing import Charge
from watchbill.claims import rules
from watchbill.claims.record import ClaimRecord
from watchbill.claims.refs import Move, Seen
from watchbill.compiled import Breaker, Compiled, Repo
from watchbill.engines import keeper
from watchbill.errors import Fixable
from watchbill.forge.base import ForgeError
from watchbill.gates.snapshot import Refusal
from watchbill.git import GitError
from watchbill.home import Home
from watchbill.ledger import attempts, claims, firings, holds, polls, reservations, steps, streaks
from watchbill.ledger import effects as ledger_effects
from watchbill.ledger.claims import Claim as ClaimRow
from watchbill.ledger.db import Ledger
from watchbill.live import Claim, Firing, Target, Tree
from watchbill.outcomes import DIED, Ended, Ending
from watchbill.pill import Limit
from watchbill.ports import Ports
from watchbill.woken import Woken

#: At most so many dead firings are repaired by one that wants to work itself.
_MOST_DEAD = 3
_REPAIRED_S = 300
_BACKOFF_S = 900
#: Ends that say something about the issue, not about the weather: these count as an attempt once the engine ran.
_COUNTED = frozenset({"engine_failed", "checks_failed", "no_change", "bug", DIED})
#: Ends that prove an agent sound again.
_WENT_WELL = frozenset({"pull_request", "published"})
#: A person's no, heard while the firing was at work.
_SAID_NO = ("issue-closed", "label-says-no")
#: States of a record whose work is on the remote.
_LANDED = ("published", "pr", "done")
#: Ends that cut work short which somebody can go on from.
_STOPPED = frozenset({"cancelled", "held", "unauthorized", "unavailable", DIED})
_OUTSIDE = (ForgeError, GitError, Fixable, Ended, OSError)


def close(f: Firing, end: Ending) -> Ending:
    """Give back everything this firing owns and write down how it ended. Fails only when the ledger does."""
    f.end_reason = end.reason
    charge = billing.of(f)
    f.settled, f.used = (charge.used["usd"], charge.basis), charge.used
    _keep_work(f)
    if f.kept:
        end = end._replace(reason=f"{end.reason} (kept: {f.kept})")
    if f.claim is not None:
        _release(f, end)
    with f.ledger.transaction(durable=True):
        reservations.settle(f.ledger, f.id, charge.used, charge.basis, f.now)
        polls.give_back_all(f.ledger, f.id)
        _breaker(f, end)
        holds.give_back(f.ledger, f.id)
        firings.end(f.ledger, f.id, end, f.now, charge.told)
    f.note(f"ended: {end.outcome}: {end.reason}")
    return end


def _keep_work(f: Firing) -> None:
    """Paid-for work that does not land is a commit in the mirror; if even that fails, the tree stays."""
    if f.claim is None or f.tree is None or f.published or not f.engine_started:
        return
    mirror = f.ports.mirror(f.claim.target.repo)
    try:
        commit = f.work.commit if f.work else _frozen(f, f.claim.target, f.tree)
        if commit is None:
            return
        f.kept, f.kept_commit = mirror.keep(f.id, commit), commit
        evidence.keep(f, "kept", f"{f.kept} {commit}\n", {"ref": f.kept, "commit": commit, "mirror": mirror.path})
    except _OUTSIDE as error:
        tidy.hold(f.tree.root, str(error))
        f.note("the work could not be kept as a commit; its tree stays", path=f.tree.path, error=str(error))


def _frozen(f: Firing, target: Target, tree: Tree) -> str | None:
    """What an engine that was cut short had changed so far; None when nothing."""
    mirror = f.ports.mirror(target.repo)
    if not os.path.isdir(tree.path) or not os.path.exists(tree.index_copy):
        return None
    collect.only_files(tree.path)
    frozen = mirror.freeze(tree.path, tree.base, tree.index_copy)
    if frozen == mirror.tree_of(tree.base):
        return None
    said = f"Work in progress on #{target.issue.number} [skip ci]\n\nAgent: {f.agent.name}\nFiring: {f.id}\n"
    return str(mirror.commit(frozen, tree.base, said, f.agent.name, f.now))


def _release(f: Firing, end: Ending) -> None:
    """active -> released(retry | human), then the labels. What cannot be reached now a later firing repairs."""
    assert f.claim is not None
    if end.outcome == "lost":
        with f.ledger.transaction():
            claims.end(f.ledger, f.id, "superseded", f.claim.record.state, f.claim.tip, f.now)
        return
    try:
        claim.adopt(f)
        if not claims.still_won(f.ledger, f.id) or f.claim.record.state not in ("active", "published"):
            return  # another has it, or it is finished: what is left to do, the next firing of this host does
        if f.claim.record.state == "published" and end.reason_id not in _SAID_NO:
            f.note("the work is published; the next firing of this host rolls it forward")
            return
        to = _release_to(f, f.claim.target, end)
        if to == "retry" and (refusal := _used_up(f, f.claim)) is not None:
            to, f.end_reason = "human", f"{f.end_reason}; {refusal.reason}"
        record = f.claim.record._replace(
            attempt=f.claim.record.attempt - (0 if f.counted else 1), spent=claim.spent(f, f.claim.record)
        )
        further = _put_by(f, f.claim, to, end)
        record = claim.next_record(f.now, record, state="released", outcome=to)
        receipt = claim.move(f, record, *further, settling=True)
        if further and receipt["verdict"] in ("moved", "refused"):
            f.note("work in progress stays on this host", reason=receipt["reason"])
            receipt = claim.move(f, record, settling=True)
        if receipt["verdict"] == "ok" and projection.project(f, f.claim, f"released({to})", settling=True):
            claim.over(f)
    except _OUTSIDE as error:
        f.note("the claim could not be released; the next firing of this host does it", error=str(error))


def _used_up(f: Firing, owned: Claim) -> Refusal | None:
    """An issue that no firing may be spent on any more is a person's, who can raise its cap."""
    target = owned.target
    return reserve.used_up(f, target.repo, target.repo_id, target.issue.number, claim.spent(f, owned.record))


def _put_by(f: Firing, owned: Claim, to: str, end: Ending) -> tuple[Move, ...]:
    """What goes with the release: half-done work for whoever is next, or all of it out of the way for a person."""
    target, session = owned.target, f.ports.claim_refs(owned.target.repo)
    if to == "human":
        return claim.aside(f, owned, owned.record.head, target.wip_tip)
    if f.kept_commit is None or end.outcome not in _STOPPED or f.kept_commit == target.wip_tip:
        return ()
    mirror = f.ports.mirror(target.repo)
    changes = mirror.changes(owned.record.base, mirror.tree_of(f.kept_commit))
    held_back = collect.findings(f, target, changes)
    if held_back:
        f.note("work in progress stays on this host: the scan holds it back", first=held_back[0].kind)
        return ()
    return (Move(session.wip_ref(owned.record.number), target.wip_tip or "", f.kept_commit),)


def _release_to(f: Firing, target: Target, end: Ending) -> str:
    """retry or human; an end that says something about the issue is counted here, once."""
    if end.outcome == "needs_human" or end.reason_id in _SAID_NO or claim.said_no(f, target.issue):
        return "human"
    name = f"{target.repo_id}#{target.issue.number}"
    if end.outcome not in _COUNTED:
        return "retry"
    f.counted = f.engine_started or end.outcome == DIED
    once = effects.key(target, target.generation, f"attempt of {f.id}")
    known = ledger_effects.get(f.ledger, once)
    if known is not None and known.receipt is not None:
        return str(known.receipt["to"])
    made = max(attempts.get(f.ledger, f.agent.role, name, target.digest).tries, target.attempt - 1)
    tries = made + 1 if f.counted else made
    to = "human" if tries >= rules.MOST_TRIES else "retry"
    wait_s = _BACKOFF_S * 2 ** (min(max(tries, 1), rules.MOST_TRIES) - 1) * random.uniform(1.0, 1.25)
    with f.ledger.transaction():
        ledger_effects.intend(f.ledger, once, f.id, "attempt", {"tries": tries}, f.now)
        ledger_effects.receive(f.ledger, once, {"to": to}, f.now)
        if to == "human":
            attempts.clear(f.ledger, f.agent.role, name)
        else:
            attempts.put(f.ledger, f.agent.role, name, target.digest, tries, int(f.now + wait_s))
    return to


def _breaker(f: Firing, end: Ending) -> None:
    """An agent that fails again and again is stopped; its next firing after the wait is its own canary."""
    if end.outcome in _COUNTED and f.engine_started:
        _one_more_failure(f.ledger, f.row, f.fleet.breaker, end, f.now)
    elif end.outcome in _WENT_WELL:
        streaks.over(f.ledger, "agent", f.agent.name)
        pill.answered(f, frozenset({"agent"}))


def _one_more_failure(ledger: Ledger, row: firings.Firing, breaker: Breaker, end: Ending, now: int) -> None:
    failures = streaks.failed(ledger, "agent", row.agent)
    if 0 < breaker.failures <= failures:
        reason = f"{failures} firings in a row failed, the last with {end.outcome}: {end.reason[:200]}"
        limit = Limit("agent", row.agent, "breaker", reason, first_wait_s=breaker.wait_s)
        pill.swallow(ledger, limit, f"firing {row.id}", now)


def the_dead(f: Firing, only: str | None = None) -> None:
    """Repair what dead firings of this host left: processes, rows, money, claims. At most three.

    `only`: the claim of this firing.
    """
    bury(f.ledger, f.ports.home, f.row.host, f.roster, f.now)
    held = [
        row for row in claims.live(f.ledger, f.row.host) if look.is_over(f.ledger, row) and only in (None, row.firing)
    ]
    ours = (row for row in held if row.repo in f.fleet.repos and _ours_to_repair(f, row))
    for row in itertools.islice(ours, _MOST_DEAD):
        try:
            _repair(f, row)
        except _OUTSIDE as error:
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
        if row is None or row.ended is None or row.repo not in f.fleet.repos:
            continue
        if owned is not None and owned.state in ("intended", "won"):
            continue
        try:
            if owned is not None:
                _keep_what_is_left(f, row, owned)
        except _OUTSIDE as error:
            f.note("a dead firing's worktree stays for now", firing=id, error=str(error))
            continue
        tidy.remove(os.path.join(root, id), f.ports.mirror(f.fleet.repos[row.repo]), f)


def _keep_what_is_left(f: Firing, dead: firings.Firing, row: ClaimRow) -> None:
    """However a dead firing's claim came to its end: what it had been paid for, and did not land, is kept."""
    repo, tip = f.fleet.repos[row.repo], row.tip or row.intended
    if row.record in _LANDED or not any(step.name == "engine" for step in steps.of_firing(f.ledger, dead.id)):
        return
    if dead.id in f.ports.mirror(repo).kept():
        return
    record = f.ports.claim_refs(repo).record_at(row.number, tip)
    if record is None:  # what it began from is not known any more: the tree itself is what is left
        tidy.hold(os.path.join(f.ports.home.worktrees, dead.id), "its claim's record is not in the mirror")
        return
    target = mend.target_of(f, repo, record, mend.gone(row.number), Seen(tip, record, None))
    _keep_work(_ghost(f, dead, target, record, tip))


def the_dead_of_host(woken: Woken, roster: Compiled | None) -> None:
    """The same for a firing that itself may not work, because the roster is invalid."""
    bury(woken.ledger, woken.home, woken.row.host, roster, int(woken.clock.now()))
    if roster is None or not roster.agents:
        return
    agent = roster.agents.get(woken.options.agent) or next(iter(roster.agents.values()))
    ports = Ports(woken.home, roster.fleet, agent, woken.clock, woken.ledger)
    ports.limits = quota.Kept(woken.ledger, woken.clock, agent.name, woken.row.id)
    try:
        the_dead(Firing(woken.row, agent, roster, ports, woken.options, woken.started_ms))
    finally:
        ports.close()


def bury(
    ledger: Ledger, home: Home, host: str, roster: Compiled | None, now: int, stopped: Ending | None = None
) -> None:
    """End the rows and processes of firings whose process is gone. Needs nothing but this host.

    `stopped`: how those end that a person's stop has killed; it says nothing of agent or issue.

    Rows of another host id in this ledger are of a home that was copied or moved: their processes mean nothing here,
    and their claims are another's to settle.
    """
    for owned in claims.live_elsewhere(ledger, host):
        with ledger.transaction():
            claims.end(ledger, owned.firing, "superseded", owned.record, owned.tip, now)
    for row in firings.live_elsewhere(ledger, host):
        _bury_one(ledger, row, billing.of_the_unknown(ledger, home, row, roster), roster, now, stopped)
    for row in firings.live(ledger, host):
        if look.alive(row):
            continue
        process.end_marked(keeper.MARKER, row.id)
        _bury_one(ledger, row, billing.of_the_dead(ledger, home, row, roster), roster, now, stopped)


def _bury_one(
    ledger: Ledger, row: firings.Firing, charge: Charge, roster: Compiled | None, now: int, stopped: Ending | None
) -> None:
    where = steps.of_firing(ledger, row.id)
    with ledger.transaction(durable=True):
        reservations.settle(ledger, row.id, charge.used, charge.basis, now)
        if row.engine is None and charge.used["firings"]:
            firings.starts_engine(ledger, row.id, firings.UNKNOWN, firings.UNKNOWN, None)
        holds.give_back(ledger, row.id)
        polls.give_back_all(ledger, row.id)
        reason = f"its process {row.pid} ended without a word" + (f" in {where[-1].name}" if where else "")
        end = stopped or Ending(DIED, reason, "died")
        if firings.end(ledger, row.id, end, now, charge.told) and row.engine is not None and stopped is None:
            _one_more_failure(ledger, row, roster.fleet.breaker if roster else Breaker(), end, now)


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
        _keep_work(ghost)
        ghost.end_reason = dead.reason or "it died"
        _release(ghost, Ending(dead.outcome or DIED, ghost.end_reason, dead.reason_id or ""))
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
