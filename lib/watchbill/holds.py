"""Which holds apply to whom: pure matching. Gates, canary and stop use it, and every effect again.

A *person's* hold (a pause, the stop) stops what it applies to wherever it is. An *automatic* one says that nothing new
should begin: whoever is at work already finds out by himself, and what was paid for is not thrown away for it.

An automatic hold with an end heals: at its end one firing, its canary, goes first. If that fares well the hold is
lifted, and the others are let in one by one; if not it lasts longer. Standard library only.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping

from watchbill.clock import moment
from watchbill.compiled import Agent, Use
from watchbill.ledger.holds import Hold

#: Kinds that no person set. Every other stops what runs.
AUTOMATIC = frozenset(
    {
        "rate_limit",  # of an account: the provider said so
        "billing",  # of an account: out of credit
        "overloaded",  # of an account: the provider has too much to do
        "auth",  # of an engine: its credentials were refused; does not heal
        "unmeasured",  # of an engine: nobody could say what it cost, and the fleet says `deny`; does not heal
        "breaker",  # of an agent: it failed again and again
        "github_primary",  # GitHub's quota of an hour
        "github_secondary",  # GitHub thinks we are too fast
    }
)
#: After a hold has healed the agents it held are let in over so many seconds, each at a moment of its own.
EASE_S = 60


def subjects_of(agent: Agent, host: str, use: Use | None) -> dict[str, str]:
    """What an agent is, scope by scope, when it runs on `use`; a hold on any of these holds it."""
    return {**_own(agent, host), **(_of_use(use) if use else {})}


def _own(agent: Agent, host: str) -> dict[str, str]:
    return {"fleet": "", "host": host, "agent": agent.name, "role": agent.role, "github": ""}


def _of_use(use: Use) -> dict[str, str]:
    return {"engine": use.engine, "account": use.account, "model": use.model or ""}


def on_candidate(repo: str, number: int) -> dict[str, str]:
    """What an issue is, scope by scope."""
    return {"repo": repo, "issue": f"{repo}#{number}"}


def applying(holds: Iterable[Hold], subjects: Mapping[str, str]) -> list[Hold]:
    """The holds whose scope and subject are among `subjects`; those that last longest first."""
    found = [hold for hold in holds if subjects.get(hold.scope) == hold.subject]
    return sorted(found, key=lambda hold: (hold.until is not None, -(hold.until or 0), hold.id))


def heeded(holds: Iterable[Hold], agent: str, now: int, firing: str = "") -> list[Hold]:
    """Those of the standing holds that this agent has to heed now; `firing`: as whose canary it may go on."""
    return [hold for hold in holds if now < free_at(hold, agent, now, firing)]


def free_at(hold: Hold, agent: str, now: int, firing: str = "") -> float:
    """From when on this hold does not keep the agent, as far as is known now, UTC epoch seconds.

    `firing`: one of the agent's that is past its gates; it may be the canary, and waits for no turn.
    """
    if hold.lifted_at is not None:
        over = bool(firing) or now < hold.lifted_at  # or the clock was set back since
        return now if over else hold.lifted_at + turn_s(hold, agent)
    if hold.until is None:
        return float("inf")
    if now < hold.until or not hold.heals:
        return hold.until
    if hold.canary is None or hold.canary == firing:
        return hold.until
    return hold.canary_until or hold.until


def turn_s(hold: Hold, agent: str) -> int:
    """How long after a hold has healed this agent waits for its turn; the same whoever asks."""
    span = max(0, (hold.eases_until or 0) - (hold.lifted_at or 0))
    return zlib.crc32(f"{hold.id} {agent}".encode()) % (span + 1)


def said(hold: Hold, agent: str = "", now: int = 0) -> str:
    """A hold as a sentence: who is held, why, by whom, and from when on that can be otherwise (for `agent`)."""
    who = f"{hold.scope} {hold.subject}".strip()
    free = int(min(free_at(hold, agent, now), 1 << 40))
    if hold.lifted_at is not None:
        end = f"which is over; agents are let in one by one, {agent or 'the last'} at {moment(free)}"
    elif hold.until is None:
        end = "until somebody resumes it"
    elif hold.heals and hold.canary is not None and hold.until <= now:
        end = f"firing {hold.canary} is trying whether it is over"
    else:
        end = f"until {moment(free)}"
    return f"{who} is held ({hold.kind} by {hold.author}: {hold.reason}), {end}"


def reason_id(hold: Hold) -> str:
    """`held-rate-limit`, `held-pause`: what programs and docs key on."""
    return f"held-{hold.kind.replace('_', '-')}"


def to_try(holds: Iterable[Hold], now: int) -> list[Hold]:
    """Those that wait for a canary."""
    return [hold for hold in holds if hold.heals and hold.lifted_at is None and (hold.until or 0) <= now]


def stops(hold: Hold) -> bool:
    """Whether it also stops what is under way."""
    return hold.kind not in AUTOMATIC
