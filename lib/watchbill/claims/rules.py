"""The rules of claims: which move is legal, who may begin anew, which pull request is ours (DESIGN section 6).

Rule 1: everything that decides about a claim's state stands here, and nothing here reads a clock, a file or the net.
Rule 2: `MOVES` is executed: `refs.write` makes no claim commit that is not a cell of it.
"""

from __future__ import annotations

from typing import NamedTuple

from watchbill.claims.record import ClaimRecord, Unreadable
from watchbill.forge.base import Pull

__all__ = ["MOVES", "ClaimRecord", "IllegalMove", "Refusal", "Start", "Takeover", "Unreadable", "follow", "is_ours",
           "may_roll_forward", "may_start", "move", "next_generation", "phase", "work_branch"]  # fmt: skip

#: phase -> operation -> phase. Every phase is listed; an operation that is not is illegal.
MOVES: dict[str, dict[str, str]] = {
    "none": {"claim": "active"},
    "active": {
        "renew": "active",
        "takeover": "active",
        "publish": "published",
        "release(retry)": "released(retry)",
        "release(human)": "released(human)",
    },
    "published": {"finish": "pr", "release(human)": "released(human)"},
    "pr": {"borrow": "active(role)", "claim": "active", "merge": "done", "release(human)": "released(human)"},
    # Another role at work on the pull request: it ends where it began, also when its owner died.
    "active(role)": {"renew": "active(role)", "return": "pr"},
    "done": {"claim": "active"},
    "released(retry)": {"claim": "active"},
    "released(human)": {"claim": "active"},
}
#: Operations that begin a generation; the others continue one.
BEGIN = frozenset({"claim", "takeover", "borrow"})


class IllegalMove(ValueError):
    """A bug of ours: nothing was written."""


class Takeover(NamedTuple):
    """What this host knows about the owner of an active claim."""

    dead_here: bool  # it was a firing of this host, and its process is gone
    unchanged_s: float  # how long this host has seen this very tip, by its own clock that counts sleep
    grace_s: float  # on top of the record's ttl


class Start(NamedTuple):
    """A new generation may begin."""

    generation: int
    label_event: int  # what authorises it
    operation: str  # claim | takeover


class Refusal(NamedTuple):
    """No new generation may begin."""

    reason_id: str
    text: str


def phase(record: ClaimRecord | None) -> str:
    """The row of MOVES that a record stands in; None is a ref that does not exist."""
    if record is None:
        return "none"
    if record.state == "released":
        return f"released({record.outcome})"
    if record.state == "active" and record.pr is not None:
        return "active(role)"
    return record.state


def move(at: str, operation: str) -> str:
    """The phase an operation leads to."""
    try:
        return MOVES[at][operation]
    except KeyError:
        allowed = ", ".join(MOVES.get(at, {})) or "nothing"
        raise IllegalMove(f"{operation} from {at}: only {allowed} may follow") from None


def follow(before: ClaimRecord | None, after: ClaimRecord) -> str:
    """The operation that makes `after` out of `before`; IllegalMove when none does."""
    at, to = phase(before), phase(after)
    if before is None:
        anew, next_one = True, after.sequence == 0
    else:
        if (before.repo_id, before.number) != (after.repo_id, after.number):
            raise IllegalMove(f"the claim of #{before.number} cannot become one of #{after.number}")
        anew = after.generation > before.generation
        same = after.generation == before.generation and after.firing == before.firing
        next_one = after.sequence == 0 if anew else same and after.sequence == before.sequence + 1
    for operation, end in MOVES[at].items():
        if end == to and (operation in BEGIN) == anew and next_one:
            return operation
    was = f"g{before.generation}.{before.sequence} {at}" if before else at
    raise IllegalMove(f"from {was} to g{after.generation}.{after.sequence} {to} no operation leads")


def next_generation(previous: ClaimRecord | None, known: int = 0) -> int:
    """The number of a new owner; `known` is the highest this host ever saw, lest a deleted ref make one twice."""
    return max(previous.generation if previous else 0, known) + 1


def may_start(
    tip: ClaimRecord | Unreadable | None, label_event: int, takeover: Takeover, known_generation: int = 0
) -> Start | Refusal:
    """May a new generation begin, on the word of `label_event`, the newest that counts (by a person, not by us)?"""
    if isinstance(tip, Unreadable):
        return Refusal("claim-unreadable", f"its claim record makes no sense ({tip.reason}); held for a person")
    at, generation = phase(tip), next_generation(tip, known_generation)
    if tip is None:
        return Start(generation, label_event, "claim")
    if at == "released(retry)":
        return Start(generation, tip.label_event, "claim")
    if at in ("released(human)", "pr", "done"):
        if label_event > tip.label_event:
            return Start(generation, label_event, "claim")
        return Refusal("needs-new-label", f"its last claim ended as {at}: it takes a newer label by a person")
    if at == "published":
        return Refusal("published", f"firing {tip.firing} has pushed its work: that is rolled forward, not done again")
    if at == "active(role)":
        return Refusal("pull-request-busy", f"firing {tip.firing} ({tip.role}) works on pull request #{tip.pr}")
    left_s = tip.ttl + takeover.grace_s - takeover.unchanged_s
    if takeover.dead_here or left_s <= 0:
        return Start(generation, tip.label_event, "takeover")
    return Refusal("claimed", f"firing {tip.firing} of host {tip.host} owns it (generation {tip.generation});"
                   f" if it stays silent it can be taken over in {max(1, round(left_s))} s")  # fmt: skip


def may_roll_forward(record: ClaimRecord, takeover: Takeover) -> bool:
    """May somebody else than its owner open the pull request of published work?"""
    return record.state == "published" and (takeover.dead_here or takeover.unchanged_s >= takeover.grace_s)


def work_branch(number: int) -> str:
    """Named by the issue alone, over all generations: the forge itself then allows one open pull request."""
    return f"watchbill/issue-{number}"


def is_ours(pull: Pull, record: ClaimRecord, repo_id: int) -> bool:
    """Is this the pull request of the record's generation? A fork's branch of the same name is not."""
    if pull.head_repo_id != repo_id or record.repo_id != repo_id:
        return False
    if record.pr is not None:
        return pull.number == record.pr
    return pull.head_ref == work_branch(record.number) and pull.number > record.pr_floor
