"""What a firing says where others read it: its commit's message, its pull request."""

from __future__ import annotations

import re

from watchbill import admit, evidence, render
from watchbill.live import Claim, Firing, Target

#: A pull request's body travels in the claim's record, which is bounded (DESIGN section 6).
_MOST_BODY = 30_000
#: What GitHub obeys in a commit's subject or a pull request's title: closing references, mentions, skipping of CI.
_COMMANDS = (
    (re.compile(r"(?<=\S)#(?=\d)|#(?=\d)"), " no. "),
    (re.compile(r"\bGH-(?=\d)", re.IGNORECASE), "GH "),
    (re.compile(r"https?://", re.IGNORECASE), ""),
    (re.compile(r"@(?=\w)"), "@ "),
    (re.compile(r"\[((?:skip|no)[ -]ci|ci[ -]skip|skip actions|actions skip)\]", re.IGNORECASE), r"(\1)"),
    (re.compile(r"^(fixup|squash|amend)!", re.IGNORECASE), r"\1"),
)


def title_of(target: Target, most: int) -> str:
    """An issue's title as one line of ours: nothing in it that a person would not see, never empty."""
    seen, _ = admit.clean(target.issue.title)
    for pattern, calm in _COMMANDS:
        seen = pattern.sub(calm, seen)
    return " ".join(seen.split())[:most] or f"Issue {target.issue.number}"


def commit_message(f: Firing, target: Target) -> str:
    """Subject, reference, trailers."""
    return f"{title_of(target, 68)}\n\nCloses #{target.issue.number}\n\nAgent: {f.agent.name}\nFiring: {f.id}\n"


def pull_request(f: Firing, claim: Claim) -> tuple[str, str]:
    """Title and body, with the evidence."""
    title = title_of(claim.target, 200)
    body = render.template("pull_request.md.j2", f=f, claim=claim, work=f.work, result=f.result)
    return f.redact(title), evidence.bounded(f.redact(body), _MOST_BODY)
