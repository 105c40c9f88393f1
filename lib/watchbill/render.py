"""The one jinja2 environment: strict about what is missing, and with the filters that foreign text needs."""

from __future__ import annotations

import os
import re
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from watchbill import admit, evidence, money
from watchbill.live import Claim, Firing, Target

#: In every comment of ours, so that the one comment is found again.
MARKER = "<!-- watchbill -->"
#: A pull request's body travels in the claim's record, which is bounded (DESIGN section 6).
_MOST_BODY = 30_000

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~@])")


def plain(text: str) -> str:
    """Foreign text inside our Markdown: one line, nothing in it means anything, nobody is mentioned."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def block(text: str) -> str:
    """Foreign text inside a fenced block: it cannot close the fence."""
    return text.replace("```", "``\u200b`")


_here = os.path.join(os.path.dirname(__file__), "reports")
_environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_here),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    autoescape=False,
    keep_trailing_newline=True,
)
_environment.filters.update(plain=plain, block=block, usd=money.usd)
_prompts = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)


def template(name: str, **values: Any) -> str:
    """Render one of the templates in reports/."""
    return _environment.get_template(name).render(marker=MARKER, **values)


def prompt(body: str, *, brief: str, number: int, url: str, repo: str) -> str:
    """An agent's file with its four variables filled in; the brief is appended when the body does not place it."""
    if not re.search(r"\{\{\s*brief\s*\}\}", body):
        body = body.rstrip() + "\n\n{{ brief }}\n"
    return _prompts.from_string(body).render(brief=brief, issue={"number": number, "url": url}, repo=repo)


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
    body = template("pull_request.md.j2", f=f, claim=claim, work=f.work, result=f.result)
    return f.redact(title), evidence.bounded(f.redact(body), _MOST_BODY)
