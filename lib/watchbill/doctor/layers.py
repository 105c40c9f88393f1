"""Does isolation hold here? From inside each layer that works, every way out that we know of is tried."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

from watchbill import isolation
from watchbill.doctor.finding import Finding, Look, of_problem
from watchbill.errors import Fixable
from watchbill.isolation import bwrap, landlock, probe
from watchbill.isolation.probe import Tried


class Layer(NamedTuple):
    """A layer of isolation on this host."""

    name: str
    unavailable: str | None  # why
    tried: tuple[Tried, ...]


def tried(it: Look) -> Iterator[Layer]:
    """Every one; what is made for that goes away again."""
    base = it.home.root if os.access(it.home.root, os.W_OK) else tempfile.gettempdir()
    for layer in (bwrap, landlock):
        why = layer.unavailable()
        try:
            ways = () if why else probe.probe(layer, base)
        except OSError as error:  # a full disk
            ways = (Tried("any", "get out at all", None, None, str(error)),)
        yield Layer(layer.name, why, ways)


def told(it: Look, layers: tuple[Layer, ...]) -> Iterator[Finding]:
    """What each does on this host, and whether agents have what they ask for."""
    for layer in layers:
        if layer.unavailable is None:
            yield from _held(layer)
        else:
            fix = "apt install bubblewrap (or your system's package of that name)" if layer.name == "bwrap" else None
            yield Finding("isolation", layer.name, "note", layer.unavailable, fix=fix)
    wanted = {agent.isolation for agent in it.roster.agents.values() if agent.uses} if it.roster else {"auto"}
    if wanted == {"none"} or any(layer.unavailable is None for layer in layers):
        return
    try:
        isolation.choose("required")
    except Fixable as problem:
        # Elsewhere than on Linux an engine's own sandbox is all there is.
        bad = "required" in wanted or sys.platform == "linux"
        yield of_problem("isolation", "agents", "wrong" if bad else "note", problem)


def _held(layer: Layer) -> Iterator[Finding]:
    held = [one for one in layer.tried if one.held]
    ways = f"{len(layer.tried)} {'way' if len(layer.tried) == 1 else 'ways'}"
    yield Finding("isolation", layer.name, "ok", f"held {len(held)} of {ways} out")
    for one in layer.tried:
        if one.held is False and one.known is not None:
            yield Finding("isolation", layer.name, "gap", f"a program can {one.what}: {one.known}")
        elif one.held is False:
            fix = "report it with `watchbill doctor --json`; until it holds, `watchbill pause --fleet`"
            yield Finding("isolation", layer.name, "wrong", f"a program can {one.what}", "WB-DOCTOR-02", fix)
        elif one.held is None:
            what = f"nobody can tell whether a program can {one.what}: {one.detail}"
            fix = "run it again where nothing else runs"
            yield Finding("isolation", layer.name, "wrong", what, "WB-DOCTOR-03", fix)
