"""Table `firings`: one row a run of an agent."""

from typing import NamedTuple

from watchbill.ledger.db import Ledger, as_it_lies
from watchbill.outcomes import DIED, Ending


class Firing(NamedTuple):
    """One row."""

    id: str
    agent: str
    role: str
    host: str  # this host's id, see host.py
    boot: str  # boot id: pids and clocks mean nothing across boots
    pid: int
    pid_started: int  # ticks after boot, as /proc/PID/stat has it: tells a reused pid
    due: int | None  # when the schedule wanted it
    started: int
    ended: int | None = None
    outcome: str | None = None  # a key of outcomes.EXIT, or `died`
    exit: int | None = None
    reason: str | None = None
    reason_id: str | None = None
    config: str = ""  # digest of the roster
    repo_id: int | None = None
    repo: str | None = None
    number: int | None = None
    pull_request: int | None = None
    branch: str | None = None
    generation: int | None = None
    cost_micro: int | None = None
    cost_basis: str | None = None
    engine: str | None = None  # what it ran on; None: no engine was started
    account: str | None = None  # whose quota that draws on
    model: str | None = None
    tokens: int | None = None  # input and output
    turns: int | None = None


#: The engine of a firing whose program did not write that down.
UNKNOWN = "?"


def begin(ledger: Ledger, firing: Firing) -> None:
    """db.Refused when another firing of this agent lives on this host."""
    ledger.write("firing_begin", **firing._asdict())


def refuse(ledger: Ledger, firing: Firing, ending: Ending, at: int) -> None:
    """The whole life of a firing that a gate refused, as one row."""
    fields = firing._asdict()
    fields.update(ended=at, outcome=ending.outcome, exit=ending.exit, reason=ending.reason, reason_id=ending.reason_id)
    ledger.write("firing_refuse", **fields)


def target(ledger: Ledger, id: str, repo_id: int, repo: str, number: int, branch: str, generation: int) -> None:
    ledger.write(
        "firing_target", id=id, repo_id=repo_id, repo=repo, number=number, branch=branch, generation=generation
    )


def opened(ledger: Ledger, id: str, pull_request: int) -> None:
    ledger.write("firing_pull", id=id, pull_request=pull_request)


def starts_engine(ledger: Ledger, id: str, engine: str, account: str, model: str | None) -> None:
    """From here on it may spend."""
    ledger.write("firing_engine", id=id, engine=engine, account=account, model=model)


class Used(NamedTuple):
    """What a firing is billed."""

    cost_micro: int | None
    basis: str | None  # engine | priced | ceiling | stream | transcript | reservation | unmeasured | free | not started
    tokens: int | None = None
    turns: int | None = None


def end(ledger: Ledger, id: str, ending: Ending, at: int, used: Used) -> bool:
    """False when it had ended already."""
    died = ending.outcome == DIED
    changed = ledger.write(
        "firing_end",
        id=id,
        ended=at,
        outcome=ending.outcome,
        exit=None if died else ending.exit,
        reason=ending.reason,
        reason_id=ending.reason_id,
        cost_micro=used.cost_micro,
        cost_basis=used.basis,
        tokens=used.tokens,
        turns=used.turns,
    )
    return changed == 1


def get(ledger: Ledger, id: str) -> Firing | None:
    row = ledger.row("firing_get", id=id)
    return Firing(*row) if row else None


def like(ledger: Ledger, prefix: str) -> list[str]:
    """At most three ids that start so."""
    return [row[0] for row in ledger.rows("firings_like", prefix=prefix, beyond=prefix + "\x7f")]


def live(ledger: Ledger, host: str) -> list[Firing]:
    return [Firing(*row) for row in ledger.rows("firings_live", host=host)]


def live_elsewhere(ledger: Ledger, host: str) -> list[Firing]:
    """Rows of another host id, as a copied or moved home brings them along."""
    return [Firing(*row) for row in ledger.rows("firings_live_elsewhere", host=host)]


def of_agent(ledger: Ledger, agent: str, count: int = 1) -> list[Firing]:
    """Newest first."""
    return [Firing(*row) for row in ledger.rows("firings_of_agent", agent=agent, count=count)]


def of_issue(ledger: Ledger, repo: str, number: int) -> list[Firing]:
    """Oldest first."""
    return [Firing(*row) for row in ledger.rows("firings_of_issue", repo=repo, number=number)]


def newest(path: str) -> int | None:
    """When the firing began that began last, UTC epoch seconds, by the ledger as it lies there; nothing is written."""
    with as_it_lies(path) as ledger:
        row = ledger.row("firings_newest") if ledger else None
    return int(row[0]) if row else None
