"""verify: the repository's own checks on exactly the tree that will land, isolated like the engine, no credentials."""

from __future__ import annotations

import os

from watchbill import engine, evidence, task
from watchbill.engines import supervise
from watchbill.ledger import base_checks
from watchbill.ledger.base_checks import BaseCheck
from watchbill.live import Check, Firing, Target, Tree, Work
from watchbill.outcomes import Ended

_TAIL_LINES = 20
#: The shell's words for "not executable" and "not found": that says something about the host, not about the base.
_NOT_RUN = (126, 127)


def base(f: Firing, target: Target, tree: Tree) -> None:
    """The checks on the base, once a base and command. Raises Ended (held) on a red one this issue does not mend."""
    done = []
    for command in target.repo.checks:
        known = base_checks.get(f.ledger, tree.base, command, f.now)
        if known is None:
            check = _run(f, target, tree, "base", tree.base, command, "base_check")
            with f.ledger.transaction():
                if check.limit is None and check.exit not in _NOT_RUN:
                    base_checks.put(f.ledger, tree.base, command, BaseCheck(check.exit, check.digest), f.now)
        else:
            check = Check(command, known.exit, None, 0.0, known.digest, "", "cached")
        done.append(check)
    f.base_checks = tuple(done)
    red = [check for check in done if check.exit != 0]
    if red and not target.fixes_base:
        raise Ended(
            "held",
            f"`{red[0].command}` fails on {target.default_branch} itself (exit {red[0].exit});"
            f" mend it, or label the issue that does {f.fleet.labels.fixes_base}",
            "base-red",
        )


def work(f: Firing, target: Target, tree: Tree, frozen: Work, place: str = "verify") -> tuple[Check, ...]:
    """The checks on the work, in a fresh checkout at `place`. Raises Ended (checks_failed) at the first red one."""
    done = []
    for command in target.repo.checks:
        done.append(_run(f, target, tree, place, frozen.commit, command, "check"))
        f.checks = tuple(done)
        if done[-1].exit != 0:
            how = f"was stopped after {done[-1].duration_s:.0f} s" if done[-1].limit else f"exit {done[-1].exit}"
            raise Ended("checks_failed", f"`{command}` failed on the work ({how}); the work is kept", "check-red")
    return f.checks


def _run(f: Firing, target: Target, tree: Tree, place: str, commit: str, command: str, kind: str) -> Check:
    path = os.path.join(tree.root, place)
    if not os.path.isdir(path):
        f.ports.mirror(target.repo).add_worktree(path, commit, f"{path}.index")
    # Never the engine's: what it leaves in a HOME (a usercustomize.py, a .pythonrc) must not decide about its own work.
    home, tmp = f"{path}.home", f"{path}.tmp"
    for fresh in (home, tmp):
        os.makedirs(fresh, mode=0o700, exist_ok=True)
    log = os.path.join(tree.root, f"{place}.log")
    f.say(f"check on the {'base' if kind == 'base_check' else 'work'}: {command}")
    run = supervise.run_check(
        ("/bin/sh", "-c", command),
        firing=f.id,
        home=home,
        tmp=tmp,
        log=log,
        wall_s=target.repo.check_timeout_s,
        isolation=f.ports.isolation,
        jail=task.jail(f, path, home, tmp),
        clock=f.ports.clock,
        beat=lambda: engine.beat(f),
    )
    if run.stopped_by:
        f.obey()
        if run.stopped_by == "called off":
            raise engine.called_off(f)
        outcome = "lost" if run.stopped_by == "lost" else "held"
        raise Ended(outcome, f"stopped while `{command}` ran: {run.stopped_by}", f"{outcome}-while-checking")
    status = run.exit_status if run.limit is None else 124  # as timeout(1) says it
    tail = "\n".join(f.redact(run.output_tail).splitlines()[-_TAIL_LINES:])
    with open(log, encoding="utf-8", errors="backslashreplace") as file:
        digest = evidence.keep(
            f,
            kind,
            file.read(evidence.MOST_BYTES * 4),
            {
                "command": command,
                "exit": status,
                "limit": run.limit,
                "duration_s": round(run.duration_s, 3),
                "commit": commit,
                "isolation": run.isolation,
                "strays": run.strays,
                "tail": tail,
            },
        )
    f.note("check ended", command=command, exit=status, isolation=run.isolation)
    return Check(command, status, run.limit, run.duration_s, digest, tail, run.isolation)
