"""brief: role + issue + admitted text -> prompt. Only `{{ brief }}` in an agent's file is foreign text."""

from __future__ import annotations

import os

from watchbill import admit, evidence, render
from watchbill.live import Firing, Target, Tree

_EARLIER = {
    "applied": "An earlier run on this issue was stopped half-way. What it had changed is in the worktree already:"
    " look at it, keep what is right, and go on.",
    "conflicts": "An earlier run on this issue was stopped half-way. What it had changed no longer applies to the"
    " repository and was left out: begin anew.",
}


def write(f: Firing, target: Target, tree: Tree) -> str:
    """The prompt, also kept as evidence: what an agent was told is the first thing asked when it did wrong."""
    fenced = admit.fence(target.admitted, os.urandom(8).hex())
    text = render.prompt(
        f.agent.prompt, brief=fenced, number=target.issue.number, url=target.issue.url, repo=target.repo.full_name
    )
    if f.earlier is not None:
        text += f"\n{_EARLIER[f.earlier]}\n"
    summary = {"left_out": list(target.left_out), "base": tree.base, "issue": target.digest}
    digest = evidence.keep(f, "brief", text, summary)
    f.note("brief", digest=digest, characters=len(text), left_out=list(target.left_out))
    return text
