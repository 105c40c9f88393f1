"""Where the role scripts lie: in the package of an installed wheel, in `bin/` of a checkout. Standard library only."""

from __future__ import annotations

import os

_PACKAGE = os.path.dirname(os.path.abspath(__file__))


def directory() -> str:
    """The folder of the role scripts."""
    inside = os.path.join(_PACKAGE, "bin")
    return inside if os.path.isdir(inside) else os.path.normpath(os.path.join(_PACKAGE, "..", "..", "bin"))


def script_of(role: str) -> str:
    """The script that plays a role."""
    return os.path.join(directory(), role)
