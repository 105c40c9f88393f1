"""Every problem of a roster at once, each one line: `file:line: key: what is wrong (did you mean ...?)`.

Standard library only: lines are found, words are compared, and the validator's findings are put into sentences here.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from watchbill.errors import Fixable

#: Where a value stands: ("repo", "acme/api", "checks", 0)
Path = tuple[str | int, ...]


class RosterErrors(Fixable):
    """The roster as it stands cannot be used."""

    def __init__(self, problems: Sequence[str]) -> None:
        first = problems[0] + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")
        super().__init__(
            "WB-ROSTER-01",
            "\n  ".join([first, *problems[1:]]),
            fix="edit what is named; the next firing reads it again, nothing is claimed until then",
        )
        self.problems = tuple(problems)  # each one line


class Source:
    """One file of the roster: its name, the lines of its keys, and the problems found in it."""

    def __init__(self, name: str) -> None:
        self.name = name  # relative to the home
        self.lines: dict[Path, int] = {}
        self.written: dict[Path, str] = {}  # scalars as they were typed
        self.problems: list[tuple[int, str]] = []

    def line(self, path: Path) -> int:
        """Of this key, or of the nearest one around it that was written."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def add(self, path: Path, what: str) -> None:
        self.add_at(self.line(path), f"{shown(path)}: {what}" if path else what)

    def add_at(self, line: int, what: str) -> None:
        if (line, what) not in self.problems:
            self.problems.append((line, what))

    def told(self) -> list[str]:
        return [f"{self.name}:{line}: {' '.join(what.split())}" for line, what in sorted(self.problems)]


def shown(path: Path) -> str:
    """A key as a person would look for it."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            word = part if re.fullmatch(r"[\w-]+", part) else f'"{part}"'
            text += f".{word}" if text else word
    return text


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """` (did you mean 'x'?)`, or the choices when there are few, or nothing."""
    choices = sorted(set(known))
    folded = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(word.lower(), folded, n=1, cutoff=cutoff)
    if close:
        return f" (did you mean {folded[close[0]]!r}?)"
    return f" (one of: {', '.join(choices)})" if 0 < len(choices) <= 16 else ""


_WANTED = {
    "string_type": "must be text",
    "list_type": "must be a list",
    "dict_type": "must be a map",
    "model_type": "must be a map of keys",
    "model_attributes_type": "must be a map of keys",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
}


def explain(source: Source, error: Mapping[str, Any], known: Iterable[str]) -> None:
    """One finding of the validator as a problem of its file. `known`: the keys that may stand beside the one named."""
    path: Path = tuple(error["loc"])
    kind, given = error["type"], error["input"]
    if kind == "extra_forbidden":
        source.add(path, f"unknown key{nearest(str(path[-1]), known)}")
    elif kind == "missing":
        wanted, there = str(path[-1]), given if isinstance(given, dict) else {}
        close = difflib.get_close_matches(wanted, [str(key) for key in there], n=1, cutoff=0.75)
        source.add(path, "is missing" + (f" ({close[0]!r} is there; is that it?)" if close else ""))
    elif kind == "literal_error":
        choices = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        source.add(path, f"{_quoted(source, path, given)} is not one of its words{nearest(str(given), choices)}")
    elif kind == "value_error":
        source.add(path, str(error["ctx"]["error"]))
    else:
        source.add(path, f"{_WANTED.get(kind, error['msg'])}, not {_quoted(source, path, given)}")


def _quoted(source: Source, path: Path, given: object) -> str:
    """What was written, with a word on YAML's surprises."""
    written = source.written.get(path)
    if isinstance(given, bool):
        word = written or str(given).lower()
        trap = f" (in YAML {word} is {str(given).lower()}; for the text write {word!r} in quotes)" if word else ""
        return f"{str(given).lower()}{trap if word not in ('true', 'false') else ''}"
    if given is None:
        return "nothing"
    if isinstance(given, dict):
        return "a map"
    if isinstance(given, (list, tuple)):
        return "a list"
    return f"{written if written is not None else str(given)!r}"


def toml_lines(text: str) -> dict[Path, int]:
    """The line of every table and key of a TOML text that tomllib has accepted; inline tables by their outer key."""
    lines: dict[Path, int] = {}
    table: Path = ()
    depth = 0
    until = ""  # the quotes that end a string of several lines, or "]" inside an array of several lines
    for number, line in enumerate(text.split("\n"), 1):
        if until in ('"""', "'''"):
            until = "" if line.count(until) % 2 else until
            continue
        code = _without_strings(line)
        if until == "]":
            depth += code.count("[") - code.count("]")
            until = "]" if depth > 0 else ""
            continue
        header = re.match(r"\s*\[\[?\s*(.+?)\s*\]\]?\s*(?:#.*)?$", line)
        pair = re.match(rf"\s*({_KEY}(?:\s*\.\s*{_KEY})*)\s*=(.*)", line)
        if pair:
            _note(lines, table + _keys(pair[1]), number)
            for quotes in ('"""', "'''"):
                until = quotes if pair[2].count(quotes) % 2 else until
            value = code.partition("=")[2]
            depth = value.count("[") - value.count("]")
            until = until or ("]" if depth > 0 else "")
        elif header:
            table = _keys(header[1])
            _note(lines, table, number)
    return lines


_KEY = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""


def _keys(dotted: str) -> Path:
    return tuple(key[1:-1] if key[0] in "\"'" else key for key in re.findall(_KEY, dotted))


def _note(lines: dict[Path, int], path: Path, number: int) -> None:
    for length in range(1, len(path) + 1):
        lines.setdefault(path[:length], number)


def _without_strings(line: str) -> str:
    """For counting brackets: strings emptied, the comment cut off."""
    return re.sub(r'"(?:[^"\\]|\\.)*"|\'[^\']*\'|#.*', "", line)


_PLACES = ("brief", "issue.number", "issue.url", "repo")


def check_prompt(source: Source, body: str, first_line: int, *, needed: bool = True) -> None:
    """Only the four places that are filled in may stand in a prompt; everything else of jinja2 is a problem."""
    choices = ", ".join(f"{{{{ {place} }}}}" for place in _PLACES)
    if needed and not body.strip():
        source.add_at(first_line, "the prompt below the front matter is empty")
    for found in re.finditer(r"\{\{(.*?)\}\}|\{[{%#]", body, re.DOTALL):
        line = first_line + body.count("\n", 0, found.start())
        inside = (found[1] or "").strip("-+ \t\n")
        if found[1] is None:
            what = f"{found[0]!r} begins something that a prompt cannot have; write {choices}, or a space between"
            source.add_at(line, f"prompt: {what}")
        elif inside not in _PLACES:
            source.add_at(line, f"prompt: {{{{ {inside[:60]} }}}} is not filled in{nearest(inside, _PLACES)}")
