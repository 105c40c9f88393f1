"""Ids that sort by time. Standard library only: this module lies on the way to a refusal."""

from __future__ import annotations

import os

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, lower case: no i, l, o, u


def new_id(now: float) -> str:
    """16 characters: 9 of milliseconds since the epoch (good until 3084), 7 random (35 bits)."""
    milliseconds = int(now * 1000)
    random = int.from_bytes(os.urandom(5)) >> 5
    number = (milliseconds << 35) | random
    return "".join(_ALPHABET[(number >> shift) & 31] for shift in range(75, -1, -5))
