"""Other hosts of the fleet, as their claims show them: said when there are more than fleet.toml knows of.

Hosts share no ledger. Each counts the caps for itself, so a host too many is a budget too many; that another host is at
work shows in the records of its claims, and nowhere else. It is taken to be there for a week after its last new claim
was seen. What firings of this very ledger claimed, under an id that this host had before, is no other host's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import NamedTuple

from watchbill.claims.record import ClaimRecord
from watchbill.claims.refs import Seen
from watchbill.compiled import Fleet, Repo
from watchbill.errors import Fixable
from watchbill.ledger import firings, polls
from watchbill.ledger.db import Ledger
from watchbill.live import Firing

_ROW = "other hosts"
_THERE_S = 7 * 86_400


class Other(NamedTuple):
    """Another host, by its newest claim that we saw."""

    host: str
    agent: str
    issue: str  # "acme/api#41"
    issued: int  # by its own clock, and compared with nothing but other claims of its
    at: int  # when we first saw it, UTC epoch seconds


def notice(f: Firing, repo: Repo, claims: Iterable[Seen]) -> None:
    """Remember whose claims these are. A host that comes on top of those that are known of is said once, on stderr and
    in the agent's log; `status` says it for as long as it is so."""
    records = [seen.record for seen in claims if isinstance(seen.record, ClaimRecord)]
    newest = {record.host: record for record in sorted(records, key=lambda record: record.issued)}
    newest.pop(f.row.host, None)
    if not newest:  # of a fleet of one host: always
        return
    known = _known(f.ledger)
    new = {
        host: Other(host, record.agent, f"{repo.full_name}#{record.number}", record.issued, f.now)
        for host, record in newest.items()
        if (host not in known or known[host].issued < record.issued) and firings.get(f.ledger, record.firing) is None
    }
    if not new:
        return
    before = {one.host for one in there(f.ledger, f.now)}
    with f.ledger.transaction():
        if polls.take(f.ledger, _ROW, f.id, f.now, f.now + 1):
            polls.put(f.ledger, _ROW, f.id, None, f.now * 1000, list({**known, **new}.values()))
    problem = too_many(f.ledger, f.fleet, f.now)
    if problem is not None and set(new) - before:
        f.note(str(problem))
        print(problem, file=sys.stderr)


def there(ledger: Ledger, now: int) -> list[Other]:
    """The other hosts that made a claim lately, as far as this one has seen, the latest first."""
    found = [one for one in _known(ledger).values() if now < one.at + _THERE_S]
    return sorted(found, key=lambda one: -one.at)


def too_many(ledger: Ledger, fleet: Fleet, now: int) -> Fixable | None:
    """More hosts than fleet.toml says, as a problem with its fix; None when all is well."""
    others = there(ledger, now)
    if 1 + len(others) <= fleet.hosts:
        return None
    named = ", ".join(f"{one.host} ({one.agent}, {one.issue})" for one in others[:3])
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
    return Fixable(
        "WB-FLEET-01",
        f"fleet.toml says hosts = {fleet.hosts}, and claims of {len(others)} other{'s' if len(others) > 1 else ''} were"
        f" seen: {named}{more}",
        why="hosts share no ledger: each allows the caps of fleet.toml to itself, so together they may spend"
        f" {1 + len(others)} / {fleet.hosts} of them; pauses and rate limits are each host's own as well",
        fix=f"say `hosts = {1 + len(others)}` below [fleet] on every one of them, which divides the caps; or take the"
        " others out of service, which is believed a week after their last claim",
    )


def _known(ledger: Ledger) -> dict[str, Other]:
    return {one[0]: Other(*one) for one in polls.get(ledger, _ROW).body or ()}
