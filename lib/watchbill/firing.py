"""THE STORY of one firing. Each step is a module of the same name; wake and gates lie behind us.

Nothing here knows how anything is done. An early end is raised as `Ended` by the step that decides it; whatever ends a
firing, what it owns is settled, told and tidied.
"""

from __future__ import annotations

from collections.abc import Callable

from watchbill import (
    brief,
    bury,
    claim,
    collect,
    ending,
    engine,
    examine,
    land,
    lock,
    look,
    overdue,
    pill,
    poll,
    quota,
    repair,
    report,
    reserve,
    settle,
    sweep,
    tidy,
    verify,
    worktree,
)
from watchbill.compiled import Agent, Compiled
from watchbill.gates import capped, snapshot
from watchbill.ledger import firings, holds, polls
from watchbill.live import Claim, Firing
from watchbill.outcomes import Ending
from watchbill.ports import Ports
from watchbill.woken import Woken, refuse


def fire(f: Firing) -> Ending:
    """One firing past its gates: at most one issue, at most one pull request."""
    try:
        pill.go_first(f)
        f.step("repair", repair.the_dead, f)
        owned = take_one(f)
        tree = f.step("worktree", worktree.fresh, f, owned.target)
        f.step("base", verify.base, f, owned.target, tree)
        text = f.step("brief", brief.write, f, owned.target, tree)
        f.step("engine", engine.run, f, tree, text)
        work = f.step("collect", collect.freeze, f, owned.target, tree)
        f.step("verify", verify.work, f, owned.target, tree, work)
        end = f.step("land", land.publish, f, work)
    except Exception as error:
        end = ending.of(f, error)
    end = f.step("settle", settle.close, f, end)
    try:
        f.step("report", report.tell, f, end)
        f.step("tidy", tidy.away, f)
    except Exception as error:  # the firing has ended, and was told or can still be told
        report.late(f, end, error)
    return end


def sweep_up(f: Firing) -> Ending:
    """One firing of a role that owns nothing: it puts right what others left."""
    try:
        pill.go_first(f)
        f.step("repair", repair.the_dead, f)
        end = f.step("sweep", sweep.everything, f)
    except Exception as error:
        end = ending.of(f, error)
    end = f.step("settle", settle.close, f, end)
    f.step("report", report.tell, f, end)
    return end


def rehearse(f: Firing) -> Ending:
    """`--dry-run`: the real path up to the first effect, which is named and not made."""
    try:
        take_one(f)
        raise AssertionError("a dry run owns nothing")
    except Exception as error:
        with f.ledger.transaction():
            polls.give_back_all(f.ledger, f.id)
            holds.give_back(f.ledger, f.id)
        return report.rehearsed(f, ending.of(f, error))


def take_one(f: Firing) -> Claim:
    """Look, then reserve and claim the first issue that lets itself be taken; at most three tries."""
    f.step("poll", poll.refresh, f)
    seen = f.step("look", look.sight, f.ledger, f.fleet, f.agent, look.asked(f.ledger, f.agent), f.row.started, f.now)
    f.decide(*seen.decisions)
    tries = 0
    for listed in examine.in_order(f, seen.candidates)[: examine.MOST]:
        target = f.step("examine", examine.target, f, listed)
        if target is None:
            continue
        if tries == 0:
            f.step("ready", engine.ready, f)
        reserved = f.step("reserve", reserve.worst_case, f, target)
        owned = f.step("claim", claim.take, f, reserved) if reserved else None
        if owned is not None:
            return owned
        tries += 1
        if tries == claim.MOST:
            break
    raise ending.nothing_taken(f, seen)


#: role -> its story.
STORIES: dict[str, Callable[[Firing], Ending]] = {"implement": fire, "sweep": sweep_up}


def main(woken: Woken, roster: Compiled, agent: Agent) -> int:
    """Go on from `wake`: hold this agent's lock, begin the row, tell the story; the exit status."""
    try:
        with lock.agent_lock(snapshot.lock_path(woken.home, agent.name)):
            if not woken.options.dry_run:
                bury.the_dead(woken.ledger, woken.home, woken.row.host, roster, int(woken.clock.now()))
                with woken.ledger.transaction():
                    firings.begin(woken.ledger, woken.row)
            ports = Ports(woken.home, roster.fleet, agent, woken.clock, woken.ledger)
            seen = snapshot.take(woken.ledger, woken.home, agent, roster.fleet, woken.row.host, woken.clock)
            ports.limits = quota.Kept(woken.ledger, woken.clock, agent.name, woken.row.id)
            ports.use = capped.usable(agent, seen) or ports.use
            f = Firing(woken.row, agent, roster, ports, woken.options, woken.started_ms)
            f.heed_signals()
            try:
                overdue.notice(f)
                story = rehearse if woken.options.dry_run else STORIES[agent.role]
                return story(f).exit
            finally:
                ports.close()
                woken.ledger.close()
    except lock.Busy:
        return refuse(woken, Ending("running", f"another firing of {agent.name} took its lock first", "running"), [])
