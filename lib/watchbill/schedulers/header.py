"""The line that says whose a unit is: in a comment near the top of each of its files."""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple
from urllib.parse import quote, unquote

from watchbill.schedulers.base import Unit

_LINE = re.compile(rb"managed by watchbill; home=(\S+); agent=(\S+); sha256=([0-9a-f]{64})")


class Header(NamedTuple):
    """Whose a file is."""

    home: str
    agent: str
    edited: bool  # the rest is not what was written


def text(unit: Unit, body: str) -> str:
    """The line, without the marks of a comment. `body`: the whole file without the line.

    Percent-encoded, so that it holds neither a space nor two hyphens, which no comment of XML may hold.
    """
    home, agent = (quote(one, safe="/").replace("--", "-%2D") for one in (unit.home, unit.agent))
    return f"managed by watchbill; home={home}; agent={agent}; sha256={hashlib.sha256(body.encode()).hexdigest()}"


def read(content: bytes) -> Header | None:
    """None: it is not ours. The digest is that of the file without its line, whatever stands around the words there."""
    lines = content.splitlines(keepends=True)
    for number, line in enumerate(lines[:5]):
        if found := _LINE.search(line):
            rest = b"".join(lines[:number] + lines[number + 1 :])
            home, agent = (unquote(one.decode("ascii", "replace")) for one in found.group(1, 2))
            return Header(home, agent, hashlib.sha256(rest).hexdigest() != found[3].decode())
    return None
