"""What an engine is asked in one firing: its task, within which limits, in which jail, at which prices."""

from __future__ import annotations

import os

from watchbill import git, money, prices, versions
from watchbill.engines.base import Engine, Limits, Task
from watchbill.engines.bill import Tariff
from watchbill.isolation.base import Jail
from watchbill.live import Firing, Tree
from watchbill.versions import Within

#: Bytes of a repository's words to agents; what is longer is a book, and no engine's argument holds it.
MOST_GUIDANCE = 64 << 10


def of(f: Firing, tree: Tree, text: str) -> Task:
    """What the engine is asked, and within which limits."""
    caps = {cap.unit: cap.limit for cap in f.agent.caps if cap.scope == "firing"}
    options, engine = f.ports.options, f.ports.engine
    return Task(
        firing=f.id,
        workdir=tree.path,
        brief=text,
        home=tree.home,
        tmp=tree.tmp,
        log=os.path.join(tree.root, "engine.log"),
        model=f.use.model if f.use else None,
        options=options,
        env=options.get("env", {}),
        limits=Limits(
            wall_s=f.agent.timeout_s,
            silence_s=options.get("silence_s", engine.silence_s),
            turns=caps.get("turns"),
            tokens=caps.get("tokens"),
            cost_micro=caps.get("usd"),
        ),
        key=f.ports.key,
        tools=f.agent.tools,
        guidance=_guidance(f, engine, tree.base) if text else "",
        session=f.session,
        layer=f.ports.isolation.name,
        rw=f.fleet.isolation_rw,
        sandbox=f.ports.isolation.name == "none" and f.agent.isolation != "none",
    )


def _guidance(f: Firing, engine: Engine, base: str) -> str:
    """What the repository tells agents, as the commit has it that the work begins from: what lies in the worktree by
    then may be an earlier agent's doing."""
    repository = f.ports.mirror(f.target.repo).path
    for name in engine.guides:
        content = git.show(repository, base, name, MOST_GUIDANCE)
        if content is not None:
            f.note("guidance", file=name, commit=base, bytes=len(content))
            return content.decode("utf-8", "replace")
    return ""


def tariff(f: Firing) -> Tariff:
    """By what a run is charged."""
    request_micro = f.ports.headroom_micro
    return Tariff(
        price=lambda model, tokens: prices.price(model, tokens, f.fleet.prices),
        model=f.use.model if f.use else None,
        request_micro=request_micro,
        reserved_micro=money.worst_case(f.agent.caps, request_micro).get("usd", 0),
        capped=any(cap.scope == "firing" for cap in f.agent.caps),
        unmeasured=f.fleet.unmeasured,
    )


def within(f: Firing) -> Within:
    """Where a program is asked for its version: what is hidden from the engine is hidden from it, too."""
    return versions.inside(f.ports.isolation, _hidden(f))


def jail(f: Firing, workdir: str, home: str, tmp: str) -> Jail:
    """What an engine or a check may write, and what it may not even read."""
    return Jail(
        workdir=workdir,
        rw=(workdir, home, tmp, *f.fleet.isolation_rw),
        ro=(f.ports.mirror(f.target.repo).path,),
        hidden=_hidden(f),
    )


def _hidden(f: Firing) -> tuple[str, ...]:
    others = (agent.engine for agent in f.roster.agents.values())  # the key of none of them, whoever runs here
    return (os.path.expanduser("~"), f.ports.home.root, *f.ports.secret_files(*others))
