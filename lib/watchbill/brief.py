"""brief: role + issue + admitted text -> prompt. Only `{{ brief }}` in an agent's file is foreign text."""

from __future__ import annotations

import os

from watchbill import admit, evidence, render
from watchbill.live import Firing, Target, Tree


def write(f: Firing, target: Target, tree: Tree) -> str:
    """The prompt, also kept as evidence: what an agent was told is the first thing asked when it did wrong."""
    fenced = admit.fence(target.admitted, os.urandom(8).hex())
    text = render.prompt(
        f.agent.prompt, brief=fenced, number=target.issue.number, url=target.issue.url, repo=target.repo.full_name
    )
    digest = evidence.keep(f, "brief", text, {"left_out": list(target.left_out), "base": tree.base})
    f.note("brief", digest=digest, characters=len(text), left_out=list(target.left_out))
    return text
