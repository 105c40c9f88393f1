"""The one jinja2 environment: strict about what is missing, and with the filters that foreign text needs."""

from __future__ import annotations

import functools
import os
import re
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from watchbill import money, roles

#: In every comment of ours, so that the one comment is found again.
MARKER = "<!-- watchbill -->"

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


def unit(folder: str, name: str, **values: Any) -> str:
    """Render a template of `launchd` or `systemd`: in the package of an installed wheel, else in the checkout."""
    return _units(folder).get_template(name).render(**values)


@functools.cache
def _units(folder: str) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(roles.beside(folder)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
        keep_trailing_newline=True,
    )


def prompt(body: str, *, brief: str, number: int, url: str, repo: str) -> str:
    """An agent's file with its four variables filled in; the brief is appended when the body does not place it."""
    if not re.search(r"\{\{\s*brief\s*\}\}", body):
        body = body.rstrip() + "\n\n{{ brief }}\n"
    return _prompts.from_string(body).render(brief=brief, issue={"number": number, "url": url}, repo=repo)
