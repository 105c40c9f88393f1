"""What was applied on this host: `units/applied.json` and a copy of every file, so that an edit shows as one."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from typing import Any, NamedTuple

from watchbill.home import Home
from watchbill.schedulers.base import File

_VERSION = 1


class Applied(NamedTuple):
    """One agent's unit, as it was last brought to the system."""

    name: str
    at: int  # since when it is there, UTC epoch seconds: slots before that are nobody's
    files: tuple[File, ...]
    schedule: str  # as it was written then; empty for what is no agent's


class Manifest(NamedTuple):
    """All of them."""

    scheduler: str | None  # which system they were brought to; None: none was
    agents: dict[str, Applied]
    pending: tuple[str, ...] = ()  # agents that are being changed: who is found unarmed then was left so by a crash


NOTHING = Manifest(None, {})
_DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError)


def read(home: Home) -> Manifest:
    """What was applied, as far as it is on record: a manifest that is damaged is as good as none."""
    try:
        raw = _raw(home)
        found = {str(name): _applied(home, one) for name, one in raw["agents"].items()}
        return Manifest(raw["scheduler"], found, tuple(str(name) for name in raw["pending"]))
    except _DAMAGED:
        return NOTHING


class Since(NamedTuple):
    """What an agent's timer goes by."""

    at: int  # since when, UTC epoch seconds
    schedule: str


def since(home: Home) -> dict[str, Since]:
    """Of each agent, as it was applied; no unit is read."""
    try:
        agents = _raw(home)["agents"].items()
        return {str(name): Since(int(one["at"]), str(one["schedule"])) for name, one in agents}
    except _DAMAGED:
        return {}


def applied_at(home: Home) -> dict[str, int]:
    """Since when each agent's unit is there, UTC epoch seconds."""
    return {name: one.at for name, one in since(home).items()}


def _raw(home: Home) -> dict[str, Any]:
    with open(_path(home), encoding="utf-8") as file:
        raw = json.load(file)
    if raw["version"] != _VERSION:
        raise ValueError(f"version {raw['version']}")
    scheduler = None if raw["scheduler"] is None else str(raw["scheduler"])
    return {"scheduler": scheduler, "agents": dict(raw["agents"]), "pending": list(raw["pending"])}


def _applied(home: Home, raw: dict[str, Any]) -> Applied:
    paths = list(raw["files"])
    files = tuple(File(str(path), _copy(home, str(path))) for path in paths)
    return Applied(str(raw["name"]), int(raw["at"]), files, str(raw["schedule"]))


def _copy(home: Home, path: str) -> bytes:
    try:
        with open(os.path.join(_copies(home), os.path.basename(path)), "rb") as file:
            return file.read()
    except OSError:
        return b""


def write(home: Home, manifest: Manifest) -> None:
    """Whole, or as it was before. Copies first: a manifest without them would call every unit edited."""
    wanted = {os.path.basename(file.path): file for one in manifest.agents.values() for file in one.files}
    os.makedirs(_copies(home), mode=0o700, exist_ok=True)
    for name, file in wanted.items():
        copy = File(os.path.join(_copies(home), name), file.content)
        if on_disk(copy.path) != copy.content:
            put(copy, 0o600)
    agents = {
        name: {"name": one.name, "at": one.at, "files": [file.path for file in one.files], "schedule": one.schedule}
        for name, one in sorted(manifest.agents.items())
    }
    whole = {"version": _VERSION, "scheduler": manifest.scheduler, "agents": agents, "pending": manifest.pending}
    text = json.dumps(whole, indent=1)
    if on_disk(_path(home)) != text.encode():
        put(File(_path(home), text.encode()), 0o600)
    for name in set(os.listdir(_copies(home))) - set(wanted):
        os.unlink(os.path.join(_copies(home), name))


def put(file: File, mode: int = 0o644) -> None:
    """Write one file, whole or not at all; a link in its place is replaced, not followed."""
    folder = os.path.dirname(file.path)
    os.makedirs(folder, exist_ok=True)
    handle, aside = tempfile.mkstemp(prefix=".watchbill-", dir=folder)
    try:
        with os.fdopen(handle, "wb") as out:
            os.fchmod(out.fileno(), mode)
            out.write(file.content)
            out.flush()
            os.fsync(out.fileno())
        os.replace(aside, file.path)
    except BaseException:
        os.unlink(aside)
        raise


def on_disk(path: str) -> bytes | None:
    """None: nothing is there; nothing in it: no file, but something else of that name. What cannot be read is an
    OSError, and no answer."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except IsADirectoryError:
        return b""


def differing(files: Iterable[File]) -> tuple[File, ...]:
    """Those that do not lie on disk as they are here."""
    return tuple(file for file in files if on_disk(file.path) != file.content)


def present(files: Iterable[File]) -> tuple[File, ...]:
    """As they lie on disk now; those that do not are left out."""
    found = ((file.path, on_disk(file.path)) for file in files)
    return tuple(File(path, content) for path, content in found if content is not None)


def _path(home: Home) -> str:
    return os.path.join(home.units, "applied.json")


def _copies(home: Home) -> str:
    return os.path.join(home.units, "applied")
