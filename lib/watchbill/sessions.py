"""sessions: what an engine and its model had said when a firing was stopped, for the firing that goes on from there.

The conversation is a file below the engine's HOME, which goes with the worktree; it is kept as evidence, without its
secrets, and written into the next engine's HOME. Its tools can write in that HOME too, so nothing is followed there.
A conversation belongs to the work that it made: it is gone on with only by the next generation, that begins from that
work, on words that are still the same. What cannot be kept or restored costs money, and is no reason to fail.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from watchbill import engines, evidence
from watchbill.engines import bill
from watchbill.engines.base import Conversation, Engine, Session, Tokens, Usage
from watchbill.engines.transcripts import folder, opened
from watchbill.ledger import evidence as rows
from watchbill.ledger import sessions
from watchbill.ledger.db import Ledger
from watchbill.ledger.evidence import Evidence
from watchbill.live import Firing, Target, Tree

#: Kinds of evidence: a conversation that was left, and one that was gone on with.
LEFT, RESUMED = "session", "resumed"
#: A larger one would not fit into any model's context again.
MOST_BYTES = 32 << 20
#: By then people have moved on, and the provider's cache of it is long cold.
FRESH_S = 7 * 86_400

_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")  # it becomes a word of a command line


class Kept(NamedTuple):
    """A conversation to go on with."""

    firing: str  # whose it was
    id: str  # the engine's own name for it
    path: str  # of its file, relative to the engine's HOME
    digest: str
    blob: str  # path of its bytes


def keep(f: Firing) -> None:
    """Of a run whose work did not land, the living's or a dead one's. Call it after the work itself was kept."""
    if f.claim is None or f.tree is None or f.published or not f.engine_started:
        return
    try:
        name, engine = _engine_of(f)
        found = engine.session(f.tree.home) if engine is not None else None
        if engine is not None and found is not None:
            _keep(f, name, engine, f.tree.home, found)
    except Exception as error:  # also an adapter's mistake: the claim still has to be given back
        f.note("the engine's conversation is not kept", error=f"{type(error).__name__}: {error}")


def go_on(f: Firing, tree: Tree, options: Mapping[str, Any]) -> Session | None:
    """The conversation of the firing before, restored below `tree.home` and on record; None to begin a new one.

    `options`: of the engine; `resume = false` always begins a new one.
    """
    kept = earlier(f, f.target) if options.get("resume", True) is not False else None
    if kept is None:
        return None
    try:
        session = restore(f.ports.engine, kept, tree.home)
        size = os.stat(os.path.join(tree.home, kept.path)).st_size
    except (OSError, ValueError) as error:
        f.note("an earlier conversation cannot be gone on with", of=kept.firing, error=str(error))
        return None
    summary = {"of": kept.firing, "id": kept.id, "before": _as_object(session.before)}
    with f.ledger.transaction():
        rows.add(f.ledger, Evidence(f.id, RESUMED, kept.digest, size, summary, f.now))
    f.note("going on with an earlier conversation", of=kept.firing, id=kept.id, tokens=session.before.tokens)
    return session


def begin_anew(f: Firing, tree: Tree) -> None:
    """The engine could not go on with it after all: an empty HOME once more, and nothing was used before. OSError."""
    os.rename(tree.home, f"{tree.home}.resumed")  # all of it: what the engine wrote repeats what was restored
    os.mkdir(tree.home, 0o700)
    last = [row for row in rows.of_firing(f.ledger, f.id) if row.kind == RESUMED][-1]
    summary = {**last.summary, "given_up": True, "before": _as_object(Usage())}
    with f.ledger.transaction():
        rows.add(f.ledger, last._replace(summary=summary, at=f.now))
    f.note("the engine could not go on with the earlier conversation; a new one", of=last.summary["of"])


def earlier(f: Firing, target: Target) -> Kept | None:
    """What the generation before left, if this firing begins from its work and runs on the same engine."""
    if f.earlier != "applied" or f.use is None:
        return None
    left = sessions.of_generation(f.ledger, f.row.host, target.repo_id, target.issue.number, target.generation - 1)
    if left is None:
        return None
    said = left.summary
    blob = evidence.blob_path(f.ports.home, left.digest)
    problem = (
        "it is of another engine" if said.get("engine") != f.use.engine
        else "the worktree begins from other work" if said.get("commit") != target.wip_tip
        else "the issue's words have changed since" if said.get("issue") != target.digest
        else "it is too old" if f.now - left.at > FRESH_S
        else "its bytes are gone" if not os.path.isfile(blob)
        else None
    )  # fmt: skip
    if problem is not None:
        f.note("an earlier conversation is not gone on with", of=left.firing, why=problem)
        return None
    return Kept(left.firing, str(said["id"]), str(said["path"]), left.digest, blob)


def restore(engine: Engine, kept: Kept, home: str) -> Session:
    """Write it below an engine's HOME, where nothing is in its way, and measure what it had used.

    OSError, ValueError when that cannot be done; nothing of it is left then.
    """
    _checked(Conversation(kept.id, kept.path))
    with open(kept.blob, "rb") as file:
        data = file.read(MOST_BYTES + 1)
    if hashlib.sha256(data).hexdigest() != kept.digest:
        raise ValueError(f"{kept.blob} is damaged")
    above, _, name = kept.path.rpartition("/")
    with folder(home, above, make=True) as within:
        fd = os.open(name, _WRITE, 0o600, dir_fd=within)
        try:
            with open(fd, "wb") as written:
                written.write(data)
            return Session(kept.id, bill.read_whole(engine.transcript(home)))
        except BaseException:
            os.unlink(name, dir_fd=within)
            raise


def before(ledger: Ledger, firing: str) -> Usage:
    """What the conversation that a firing went on with had used before; nothing when it began a new one.

    For who bills it once it is dead: its engine's files count over the whole conversation.
    """
    found = [row.summary["before"] for row in rows.of_firing(ledger, firing) if row.kind == RESUMED]
    return _as_usage(found[-1]) if found else Usage()


def _engine_of(f: Firing) -> tuple[str, Engine | None]:
    """What it ran on: of a dead firing by its row, whose session has the ports of the one who repairs it."""
    if f.row.ended is None:
        assert f.use is not None
        return f.use.engine, f.ports.engine
    return (f.row.engine, engines.named(f.row.engine)) if f.row.engine else ("", None)


def _keep(f: Firing, name: str, engine: Engine, home: str, found: Conversation) -> None:
    _checked(found)
    data = _clean(f, _read(home, found.path))
    digest = evidence.write_blob(f.ports.home, data)
    known = rows.of_firing(f.ledger, f.id)
    if any(row.kind == LEFT and row.digest == digest for row in known):
        return  # a repair that was interrupted, and is made again
    used = bill.read_whole(engine.transcript(home))
    summary = {"engine": name, "id": found.id, "path": found.path, "issue": _words(f, known), "commit": f.kept_commit,
               "input_tokens": used.input_tokens, "output_tokens": used.output_tokens}  # fmt: skip
    with f.ledger.transaction():
        evidence.write_blob(f.ports.home, data)  # again: nothing referred to it until now, and it may have been pruned
        rows.add(f.ledger, Evidence(f.id, LEFT, digest, len(data), summary, f.now))


def _words(f: Firing, known: list[Evidence]) -> str | None:
    """The digest of the issue that the engine was told of: of a dead firing, its issue may be another by now."""
    told = [row.summary.get("issue") for row in known if row.kind == "brief"]
    if told and told[-1] is not None:
        return str(told[-1])
    return f.target.digest if f.row.ended is None else None


def _checked(found: Conversation) -> None:
    """ValueError for a name or a path that an engine's file must not have."""
    parts = found.path.split("/")
    sound = found.path.endswith(".jsonl") and len(found.path) <= 1024 and "\0" not in found.path
    if not sound or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{found.path!r} is no path of a conversation")
    if not _ID.fullmatch(found.id):
        raise ValueError(f"{found.id!r} is no name of a conversation")


def _clean(f: Firing, data: bytes) -> bytes:
    """Line by line without secrets, and still JSON; ValueError when it is not. Half a last line is left out."""
    *lines, rest = data.split(b"\n")
    if rest and _is_json(rest):
        lines.append(rest)
    found = []
    for line in lines:
        if not line.strip():
            continue
        if not _is_json(line):
            raise ValueError("a line of it is no JSON")
        text = line.decode()
        redacted = f.redact(text)
        if redacted != text and not _is_json(redacted.encode()):
            raise ValueError("a line of it is no JSON without its secrets")
        found.append(redacted.encode())
    if not found:
        raise ValueError("it is empty")
    return b"".join(line + b"\n" for line in found)


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line.decode()), dict)
    except (ValueError, RecursionError):
        return False


def _read(home: str, path: str) -> bytes:
    """A regular file below an engine's HOME. OSError, or ValueError when it is too large."""
    with opened(home, path) as (fd, _), open(fd, "rb", closefd=False) as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"it is larger than {MOST_BYTES} bytes")
    return data


def _as_object(usage: Usage) -> dict[str, Any]:
    by_model = [[model, *tokens] for model, tokens in usage.unpriced]
    return {"input": usage.input_tokens, "output": usage.output_tokens, "turns": usage.turns,
            "cost_micro": usage.cost_micro, "by_model": by_model}  # fmt: skip


def _as_usage(said: Mapping[str, Any]) -> Usage:
    by_model = tuple((model, Tokens(*tokens)) for model, *tokens in said["by_model"])
    return Usage(said["input"], said["output"], said["turns"], said["cost_micro"], by_model)
