"""A firing that has begun to know itself, and how it ends when it is refused. Standard library only."""

import sys
from typing import NamedTuple

from watchbill.clock import Clock
from watchbill.errors import Fixable
from watchbill.home import Home
from watchbill.ledger import decisions, firings
from watchbill.ledger.db import Ledger, Refused
from watchbill.ledger.decisions import Decision
from watchbill.ledger.firings import Firing
from watchbill.outcomes import Ending
from watchbill.reports import ending as told


class Options(NamedTuple):
    """What was asked on the command line."""

    agent: str
    scheduled: bool = False  # by a timer: the shared poll may be up to `poll_s` old; by hand: asked anew
    dry_run: bool = False
    json: bool = False
    home: str | None = None


class Woken(NamedTuple):
    """A firing that has begun to know itself."""

    options: Options
    home: Home
    clock: Clock
    ledger: Ledger
    row: Firing  # as it will be written
    started_ms: int  # when the process started, UTC epoch ms


def refuse(woken: Woken, ending: Ending, verdicts: list[Decision]) -> int:
    """A firing that ends before it claims anything: one row, one line, gone."""
    now = int(woken.clock.now())
    row = woken.row._replace(
        ended=now, outcome=ending.outcome, exit=ending.exit, reason=ending.reason, reason_id=ending.reason_id
    )
    if not woken.options.dry_run:
        try:
            with woken.ledger.transaction():
                firings.refuse(woken.ledger, woken.row, ending, now)
                for verdict in verdicts:
                    decisions.add(woken.ledger, row.id, now, verdict)
        except (Fixable, Refused) as problem:  # it is refused all the same; only the record is missing
            print(problem, file=sys.stderr)
    told.tell(row, woken.home.logs, json=woken.options.json, scheduled=woken.options.scheduled)
    return ending.exit
