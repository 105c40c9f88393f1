"""Where the role scripts and unit templates lie: in the package of an installed wheel, beside `lib/` in a checkout.

Standard library only.
"""

from __future__ import annotations

import os

_PACKAGE = os.path.dirname(os.path.abspath(__file__))


def beside(folder: str) -> str:
    """`bin`, `launchd` or `systemd`."""
    inside = os.path.join(_PACKAGE, folder)
    return inside if os.path.isdir(inside) else os.path.normpath(os.path.join(_PACKAGE, "..", "..", folder))


def script_of(role: str) -> str:
    """The script that plays a role."""
    return os.path.join(beside("bin"), role)
