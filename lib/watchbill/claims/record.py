"""The claim record: what the commit at a claim ref says, byte for byte (DESIGN section 6).

Pure. Strict in both directions: what `render` writes `parse` reads back as the same value, and whatever else `parse`
meets is `Unreadable`: held, never free.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

VERSION = 1
#: States of a record. `released` says in `outcome` to whom: retry | human.
STATES = ("active", "published", "pr", "released", "done")
MAX_TTL_S = 6 * 3600
MAX_BODY_BYTES = 64 * 1024
_MAX_MESSAGE_BYTES = 1 << 20
_MAX_TITLE_BYTES = 4096
_MAX_WORD_CHARS = 200
_MAX_INTEGER = 2**63 - 1  # what a ledger column holds
#: Beyond reason: who counts on from here would get nowhere. Spent is in micro-dollars.
_MOST = {"generation": 10**6, "sequence": 10**6, "attempt": 10**3, "spent": 10**12}


class ClaimRecord(NamedTuple):
    """One commit of a claim."""

    version: int
    repo_id: int  # the forge's numeric id: names change
    number: int  # issue or pull request
    generation: int  # +1 for every new owner: the fencing token
    sequence: int  # +1 for every commit of one generation, from 0
    state: str  # one of STATES
    role: str  # of the owner
    firing: str
    agent: str
    host: str  # random id of the owner's host
    boot: str  # boot id of that host
    pid: int
    nonce: str  # makes every commit unique: without it equal claims would all be told that they won
    ttl: int  # seconds an unchanged tip stays good; at most MAX_TTL_S
    issued: int  # UTC epoch seconds; for people only: clocks of two hosts are never compared
    label_event: int  # the `labeled` event that authorised this generation
    base: str  # commit the work starts from
    head: str | None  # commit of the work, from `published` on
    pr_floor: int  # the highest pull request number of this head when the generation began, 0 for none
    pr: int | None  # the pull request, once known
    attempt: int  # which try at the issue this is, from 1
    spent: int  # micro-dollars spent on the issue by all generations so far
    outcome: str | None  # released: retry | human; else whatever tells people more
    title: str | None  # of the pull request, from `published` on
    body: str | None  # of the pull request, at most MAX_BODY_BYTES


class Unreadable(NamedTuple):
    """A claim that makes no sense to this program: it is held, and after 24 h a person's."""

    reason: str


_INTEGERS = {"version": 1, "repo_id": 0, "number": 1, "generation": 1, "sequence": 0, "pid": 0, "ttl": 1, "issued": 0,
             "label_event": 0, "pr_floor": 0, "attempt": 0, "spent": 0, "pr": 1}  # fmt: skip
_WORDS = ("role", "firing", "agent", "host", "boot", "outcome")
_OPTIONAL = frozenset({"head", "pr", "outcome", "title", "body"})
_SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_NONCE = re.compile(r"[0-9a-f]{8,64}")
_SUBJECT = re.compile(r"claim #(\d+) g(\d+)\.(\d+) (\w+) [A-Za-z0-9._-]+ \[skip ci\]")


def render(record: ClaimRecord) -> bytes:
    """The commit message. ValueError for a record that `parse` would not give back."""
    said = json.dumps(record._asdict(), separators=(",", ":"))
    host = re.sub(r"[^A-Za-z0-9._-]", "-", record.host) or "-"
    subject = f"claim #{record.number} g{record.generation}.{record.sequence} {record.state} {host} [skip ci]"
    message = f"{subject}\n\n{said}\n".encode()
    back = parse(message)
    if back != record:
        raise ValueError(back.reason if isinstance(back, Unreadable) else f"ttl {record.ttl} s is above {MAX_TTL_S} s")
    return message


def parse(message: bytes | str, number: int | None = None) -> ClaimRecord | Unreadable:
    """The record of a commit message; `number` is the one its ref is named by, if known. Never raises."""
    try:
        return _parse(message, number)
    except (ValueError, RecursionError) as error:  # UnicodeError and JSONDecodeError are ValueErrors
        return Unreadable(str(error)[:200] or "it is nested too deeply")


def _parse(message: bytes | str, number: int | None) -> ClaimRecord:
    raw = message if isinstance(message, bytes) else message.encode()
    if len(raw) > _MAX_MESSAGE_BYTES:
        raise ValueError(f"a message of {len(raw)} bytes")
    subject, _, rest = raw.decode("utf-8").partition("\n\n")
    line, newline, more = rest.partition("\n")
    named = _SUBJECT.fullmatch(subject)
    if not named or not newline or more:
        raise ValueError("it is not a subject, an empty line and one line of JSON")
    said = json.loads(line, object_pairs_hook=_once, parse_constant=_never)
    if not isinstance(said, dict):
        raise ValueError("its JSON is no object")
    if said.get("version") != VERSION:
        raise ValueError(f"version {said.get('version')!r}; this program reads {VERSION}")
    if set(said) != set(ClaimRecord._fields):
        raise ValueError(f"missing or unknown: {', '.join(sorted(set(said) ^ set(ClaimRecord._fields)))}")
    for field, value in said.items():
        _check(field, value)
    record = ClaimRecord(**said)
    if named.groups() != (str(record.number), str(record.generation), str(record.sequence), record.state):
        raise ValueError(f"its subject names another claim than its body: {subject[:100]}")
    if number is not None and record.number != number:
        raise ValueError(f"it is the claim of #{record.number}, at the ref of #{number}")
    _make_sense(record)
    return record._replace(ttl=min(record.ttl, MAX_TTL_S))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice")
    return found


def _never(constant: str) -> None:
    raise ValueError(f"{constant} is no value")


def _check(field: str, value: Any) -> None:
    """Type and bounds of one field."""
    if value is None:
        good = field in _OPTIONAL
    elif field in _INTEGERS:
        good = type(value) is int and _INTEGERS[field] <= value <= _MOST.get(field, _MAX_INTEGER)
    elif not isinstance(value, str):
        good = False
    elif field in _WORDS:
        good = len(value) <= _MAX_WORD_CHARS
    elif field in ("base", "head"):
        good = bool(_SHA.fullmatch(value))
    elif field == "nonce":
        good = bool(_NONCE.fullmatch(value))
    elif field == "state":
        good = value in STATES
    else:
        most = MAX_BODY_BYTES if field == "body" else _MAX_TITLE_BYTES
        good = len(value.encode("utf-8", "surrogatepass")) <= most
    if not good:
        raise ValueError(f"{field} is {str(value)[:60]!r}")


def _make_sense(record: ClaimRecord) -> None:
    """What a state needs so that anyone can go on from it."""
    if record.state == "released" and record.outcome not in ("retry", "human"):
        raise ValueError(f"released to {record.outcome!r}")
    if record.state in ("published", "pr") and record.head is None:
        raise ValueError(f"{record.state} without a head")
    if record.state == "published" and (record.title is None or record.body is None):
        raise ValueError("published without the words of its pull request")
    if record.state == "pr" and record.pr is None:
        raise ValueError("pr without a number")
