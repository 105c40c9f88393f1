"""engine: run it isolated, meter it, stop it at any limit; then read what its end means."""

from __future__ import annotations

import os

from watchbill import claim, evidence, money, worktree
from watchbill.clock import moment
from watchbill.engines import supervise
from watchbill.engines.base import Limits, Result, Task
from watchbill.isolation.base import Jail
from watchbill.ledger import holds
from watchbill.ledger.holds import Hold
from watchbill.live import Firing, Tree
from watchbill.outcomes import Ended

#: A rate limit without a reset time holds the engine for so long.
_UNKNOWN_RESET_S = 900
#: No provider's window is longer; an engine that says otherwise is not believed.
_LONGEST_HOLD_S = 8 * 86400


def ready(f: Firing) -> None:
    """Before anything is claimed: is there an engine, its program, and the isolation that the agent asks for?"""
    f.ports.isolation.unavailable()
    nowhere = worktree.places(f, "")
    f.ports.engine.launch(task(f, nowhere, ""))


def run(f: Firing, tree: Tree, text: str) -> Result:
    """The result of a run that the engine itself calls a success; raises Ended for every other."""

    def started_beat() -> str | None:
        f.engine_started = True  # asked right after its start: from here on it may have spent something
        return beat(f)

    result = supervise.run(
        f.ports.engine,
        task(f, tree, text),
        f.ports.isolation,
        jail(f, tree.path, tree.home, tree.tmp),
        f.ports.clock,
        started_beat,
    )
    f.result = result
    evidence.keep(
        f,
        "transcript",
        _tail(result.log),
        {
            "verdict": result.verdict,
            "limit": result.limit,
            "exit": result.exit_status,
            "isolation": result.isolation,
            "duration_s": round(result.duration_s, 3),
            "strays": result.strays,
            "cost_micro": result.cost_micro,
            "basis": result.basis,
            "message": f.redact(result.message),
            "stderr": f.redact(result.stderr_tail[-2000:]),
        },
    )
    f.note(
        "engine ended",
        verdict=result.verdict,
        limit=result.limit,
        exit=result.exit_status,
        cost=money.usd(result.cost_micro),
        basis=result.basis,
        isolation=result.isolation,
        strays=result.strays,
    )
    if result.verdict != "ok":
        raise _ended(f, result)
    return result


def task(f: Firing, tree: Tree, text: str) -> Task:
    """What the engine is asked, and within which limits."""
    caps = {cap.unit: cap.limit for cap in f.agent.caps if cap.scope == "firing"}
    options = {**f.fleet.engines.get(str(f.agent.engine["use"]), {}), **f.agent.engine}
    return Task(
        firing=f.id,
        workdir=tree.path,
        brief=text,
        home=tree.home,
        tmp=tree.tmp,
        log=os.path.join(tree.root, "engine.log"),
        model=f.agent.model,
        options=options,
        env=options.get("env", {}),
        limits=Limits(
            wall_s=f.agent.timeout_s,
            silence_s=options.get("silence_s"),
            turns=caps.get("turns"),
            tokens=caps.get("tokens"),
            cost_micro=caps.get("usd"),
        ),
    )


def jail(f: Firing, workdir: str, home: str, tmp: str) -> Jail:
    """What an engine or a check may write, and what it may not even read."""
    return Jail(
        workdir=workdir,
        rw=(workdir, home, tmp, *f.fleet.isolation_rw),
        ro=(f.ports.mirror(f.target.repo).path,),
        hidden=(os.path.expanduser("~"), f.ports.home.root, *f.ports.secret_files()),
    )


def beat(f: Firing) -> str | None:
    """Asked once a second while something runs: the reason to stop it, if there is one."""
    if f.signal is not None:
        return "signal"
    if f.held() is not None:
        return "held"
    return claim.renew(f)


def _tail(path: str, most: int = 1 << 20) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - most))
            return file.read().decode("utf-8", "backslashreplace")
    except OSError:
        return ""


def _ended(f: Firing, result: Result) -> Ended:
    if result.stopped_by == "signal":
        f.obey()
    if result.stopped_by == "held":
        hold = f.held()
        return Ended("held", hold.reason if hold else "a hold was set while the engine ran", "held-while-running")
    if result.stopped_by == "lost":
        return Ended("lost", "the claim was lost while the engine ran; it was stopped, the work is kept", "claim-lost")
    if result.stopped_by == "called off":
        return called_off(f)
    name = str(f.agent.engine["use"])
    if result.verdict == "rate_limited":
        until = min(result.until or f.now + _UNKNOWN_RESET_S, f.now + _LONGEST_HOLD_S)
        hold_engine(f, "rate_limit", f"{name} said it is rate limited", until)
        return Ended("held", f"{name} is rate limited until {moment(until)}", "engine-rate-limited")
    if result.verdict in ("auth", "billing"):
        hold_engine(f, result.verdict, f"{name}: {result.verdict}", None)
        return Ended("unauthorized", f"{name} refused its credentials or account ({result.verdict})", "engine-auth")
    how = f"timeout ({result.limit})" if result.verdict == "timeout" else result.verdict
    why = f"{name}: {how} after {result.duration_s:.0f} s"
    if result.exit_status is not None and result.verdict == "crash":
        why += f", exit status {result.exit_status}"
    return Ended("engine_failed", why, f"engine-{result.verdict.replace('_', '-')}")


def called_off(f: Firing) -> Ended:
    """A person closed the issue, or said no, while something ran; which of the two is read again."""
    issue = f.ports.forge.issues.read(f.target.repo.full_name, f.target.issue.number)
    return claim.said_no(f, issue) or Ended("cancelled", "a person had called it off for a moment", "called-off")


def hold_engine(f: Firing, kind: str, reason: str, until: int | None) -> None:
    """The poison pill: every firing that would use this engine stops at its first gate."""
    with f.ledger.transaction(durable=True):
        holds.add(f.ledger, Hold(0, "engine", str(f.agent.engine["use"]), kind, reason, f"firing {f.id}", f.now, until))
