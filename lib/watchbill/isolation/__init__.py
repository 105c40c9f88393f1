"""The layers of isolation, the strongest first."""

from __future__ import annotations

from watchbill.errors import Fixable
from watchbill.isolation import bwrap, landlock, none
from watchbill.isolation.base import Isolation

KINDS: dict[str, Isolation] = {"bwrap": bwrap, "landlock": landlock, "none": none}


def choose(wanted: str) -> Isolation:
    """The layer for an agent's `isolation:`.

    "none" is none; "auto" the first of bwrap and Landlock that works here, else none; "required" one of those two:
    Fixable WB-ISOLATION-01 when there is no other.
    """
    reasons = []
    for kind in (bwrap, landlock) if wanted != "none" else ():
        why = kind.unavailable()
        if why is None:
            return kind
        reasons.append(why)
    if wanted != "required":
        return none
    raise Fixable(
        "WB-ISOLATION-01",
        "isolation is required, and no layer of it works on this host",
        why="; ".join(reasons),
        fix="apt install bubblewrap (or your system's package of that name); or `isolation: auto` in the agent file",
    )
