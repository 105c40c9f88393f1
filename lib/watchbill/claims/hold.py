"""The stop as the other hosts read it: one ref of each repository, its record, and the pushes that set and delete it.

`refs/watchbill/hold` lies beside the claim refs, and leads to a commit like theirs: an empty tree, one line of JSON.
Unlike a claim it has no owner: the newest stop is written over the one before it, and whoever resumes deletes it. The
record is strict in both directions; one that makes no sense is a stop all the same.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from watchbill import git
from watchbill.claims.record import Unreadable
from watchbill.git import GitError, Identity, Remote

VERSION = 1
_WHO = Identity("watchbill", "watchbill@watchbill.invalid")
_MOST_BYTES = 16 * 1024
_TRIES = 3
_MOST_CHARS = {"kind": 40, "reason": 2000, "author": 200, "host": 200, "nonce": 64}


class HoldRecord(NamedTuple):
    """What the commit at the hold ref says."""

    version: int
    kind: str  # stop
    reason: str
    author: str
    host: str  # random id of the host that was told to stop
    since: int  # UTC epoch seconds, by that host's clock
    until: int | None  # None: until somebody resumes
    nonce: str  # makes every commit unique, so that deleting one never deletes another


def render(record: HoldRecord) -> str:
    """The commit message. ValueError for a record that `parse` would not give back."""
    host = re.sub(r"[^A-Za-z0-9._-]", "-", record.host) or "-"
    message = f"hold {record.kind} {host} [skip ci]\n\n{json.dumps(record._asdict(), separators=(',', ':'))}\n"
    back = parse(message.encode())
    if back != record:
        raise ValueError(back.reason if isinstance(back, Unreadable) else "it does not read back as it was written")
    return message


def parse(message: bytes) -> HoldRecord | Unreadable:
    """The record of a commit message. Never raises."""
    try:
        return _parse(message)
    except (ValueError, TypeError, RecursionError) as error:  # UnicodeError and JSONDecodeError are ValueErrors
        return Unreadable(str(error)[:200] or "it is nested too deeply")


def _parse(message: bytes) -> HoldRecord:
    if len(message) > _MOST_BYTES:
        raise ValueError(f"a message of {len(message)} bytes")
    said: Any = json.loads(message.decode("utf-8").partition("\n\n")[2])
    if not isinstance(said, dict) or set(said) != set(HoldRecord._fields):
        raise ValueError("its fields are not those of a hold")
    record = HoldRecord(**said)
    if record.version != VERSION:
        raise ValueError(f"version {record.version!r}; this program reads {VERSION}")
    if type(record.since) is not int or (record.until is not None and type(record.until) is not int):
        raise ValueError("its times are no numbers")
    for field, most in _MOST_CHARS.items():
        value = said[field]
        if not isinstance(value, str) or len(value) > most:
            raise ValueError(f"{field} is {str(value)[:60]!r}")
        if "\0" in value.encode("utf-8").decode():  # a lone surrogate is a UnicodeEncodeError: no ledger can hold it
            raise ValueError(f"{field} has a null character in it")
    return record


def commit(git_dir: str, record: HoldRecord) -> str:
    """The commit of a hold in a repository on this host, not yet pushed; its id."""
    return git.commit_tree(git_dir, git.hash_object(git_dir, b"", "tree"), [], render(record), _WHO, record.since)


def announce(git_dir: str, remote: Remote, ref: str, new: str, timeout_s: float) -> str:
    """Set the ref, whatever it was at: the newest stop counts. "" when it is so, else why not."""
    for _ in range(_TRIES):  # once more when another stop was set at the very moment
        pushed = git.push(git_dir, remote, [f"+{new}:{ref}"], {}, timeout_s=timeout_s)
        if pushed.exit == 0 and ref in pushed.refs:
            return ""
        if not pushed.refs:
            break  # no answer: it is not waited for twice
    return _reason(pushed)


def withdraw(git_dir: str, remote: Remote, ref: str, timeout_s: float) -> str:
    """Delete the ref as it is now; "" when none is left, else why not. A stop that came meanwhile stays."""
    try:
        tip = _tip(remote, ref, timeout_s)
        if tip is None:
            return ""
        pushed = git.push(git_dir, remote, [f":{ref}"], {ref: tip}, timeout_s=timeout_s)
        if pushed.exit == 0 and ref in pushed.refs:
            return ""
        now = _tip(remote, ref, timeout_s)
    except GitError as error:
        return _words(error.exit, error.stderr)
    if now is None:
        return ""  # somebody else was faster
    return _reason(pushed) if now == tip else "another stop was set there just now"


def _tip(remote: Remote, ref: str, timeout_s: float) -> str | None:
    return git.ls_remote(remote, ref, timeout_s=timeout_s).refs.get(ref)


def _reason(pushed: git.Pushed) -> str:
    said = [status.summary for status in pushed.refs.values() if status.flag == "!"]
    return said[0] if said else _words(pushed.exit, pushed.stderr)


def _words(exit: int | None, stderr: str) -> str:
    if exit is None:
        return "it did not answer in time"
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    causes = [line for line in lines if line.startswith(("fatal:", "ERROR:", "error: RPC"))]
    return (causes or lines or [f"git ended with {exit}"])[0][:300]
