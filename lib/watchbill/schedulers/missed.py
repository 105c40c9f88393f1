"""A slot that passed without a firing is caught up once. systemd does that by itself; here is who else has to be asked
for, by the loop when it begins, and on a Mac at login, since launchd forgets what passed while the host was off."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from watchbill.compiled import Compiled
from watchbill.home import Home
from watchbill.ledger import overdue
from watchbill.ledger.db import Ledger
from watchbill.ledger.overdue import Last
from watchbill.schedulers import manifest, slots
from watchbill.schedulers.base import File
from watchbill.schedulers.slots import Mask


def served(applied: int | None, last: Last | None, freed: int = 0) -> int | None:
    """Until when an agent's slots are done with, UTC epoch seconds: nothing that passed before it was applied, or while
    it was paused, is owed.

    `applied`: since when its timer is there; `freed`: when a pause of it ended. None: it has neither timer nor firing.
    """
    known = [at for at in (applied, last.started if last else None, last.due if last else None) if at is not None]
    return max((*known, freed)) if known else None


def slot_of(masks: tuple[Mask, ...], done: int, now: float) -> int | None:
    """An agent's latest slot, when it is after what is done with. However many passed, there is one."""
    latest = slots.due(masks, now)
    return latest if latest is not None and latest > done else None


def of_fleet(home: Home, ledger: Ledger, roster: Compiled, host: str, now: int) -> dict[str, int]:
    """By agent: until when its slots are done with. Left out: who was never applied, and never fired."""
    applied = manifest.applied_at(home)
    known = {
        name: served(applied.get(name), overdue.last_of(ledger, host, name, now), overdue.freed_at(ledger, host, name))
        for name in sorted(roster.agents)
    }
    return {name: at for name, at in known.items() if at is not None}


def begun(home: Home, names: Sequence[str], now: int) -> dict[str, int]:
    """Since when a loop has served those: now, or as an earlier one wrote it down, UTC epoch seconds.

    Kept in units/loop.json: of a fleet that nobody applies, each `watchbill loop --once` would else be the first.
    """
    path = os.path.join(home.units, "loop.json")
    try:
        before = {str(name): int(at) for name, at in json.loads(manifest.on_disk(path) or b"{}").items()}
    except (ValueError, TypeError, AttributeError):
        before = {}
    found = {name: min(before.get(name, now), now) for name in names}
    if found != before:
        manifest.put(File(path, json.dumps(found, indent=1).encode()), 0o600)
    return found
