"""The rules of claims: which move is legal, who may begin anew, which pull request is ours (DESIGN section 6).

Rule 1: everything that decides about a claim's state stands here, and nothing here reads a clock, a file or the net.
Rule 2: `MOVES` is executed: `refs.write` makes no claim commit that is not a cell of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from watchbill.claims.record import ClaimRecord, Unreadable
from watchbill.forge.base import LabelEvent, Person, Pull

__all__ = ["BRANCHES", "MOST_TRIES", "MOVES", "ClaimRecord", "IllegalMove", "Refusal", "Start", "Takeover",
           "Unreadable", "begins_anew", "follow", "is_ours", "last_word", "may_start", "move", "next_generation",
           "owner", "phase", "work_branch"]  # fmt: skip

#: What every work branch begins with.
BRANCHES = "watchbill/issue-"
#: How often an issue is tried before it goes to a person (DESIGN section 2).
MOST_TRIES = 3
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
    "published": {"finish": "pr", "merge": "done", "release(human)": "released(human)"},
    "pr": {"borrow": "active(role)", "claim": "active", "merge": "done", "release(human)": "released(human)"},
    # Another role at work on the pull request: it ends where it began, also when its owner died.
    "active(role)": {"renew": "active(role)", "return": "pr"},
    "done": {"claim": "active"},
    "released(retry)": {"claim": "active"},
    # A person may open a closed pull request again, and merge it after all.
    "released(human)": {"claim": "active", "reopen": "pr", "merge": "done"},
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


def begins_anew(record: ClaimRecord) -> bool:
    """Whether only a person's newer word begins the generation after this one: nothing of it is gone on with."""
    return phase(record) in ("pr", "done", "released(human)")


def owner(record: ClaimRecord, known: Takeover) -> str:
    """What this host may say of a claim's owner: live | quiet | silent | dead.

    `quiet` is enough to bring published work to its pull request, which repeats nothing; `silent` to begin anew.
    """
    if known.dead_here:
        return "dead"
    if known.unchanged_s >= record.ttl + known.grace_s:
        return "silent"
    return "quiet" if known.unchanged_s >= known.grace_s else "live"


def last_word(events: Sequence[LabelEvent], label: str, me: Person) -> LabelEvent | None:
    """The newest time that somebody else than our bot put the label on; None when somebody else took it off since.

    Our own edits are projections: a label that we put back after a failed try stands on the word of whoever put it
    there first. Where we act in a person's name (`auth = "gh"`), what this person did counts as a person's.
    """
    for event in reversed(events):
        if event.label != label or (event.actor.id == me.id and me.kind != "User"):
            continue
        return event if event.added else None
    return None


def work_branch(number: int) -> str:
    """Named by the issue alone, over all generations: the forge itself then allows one open pull request."""
    return f"{BRANCHES}{number}"


def is_ours(pull: Pull, record: ClaimRecord, repo_id: int) -> bool:
    """Is this the pull request of the record's generation? A fork's branch of the same name is not."""
    if pull.head_repo_id != repo_id or record.repo_id != repo_id:
        return False
    if record.pr is not None:
        return pull.number == record.pr
    return pull.head_ref == work_branch(record.number) and pull.number > record.pr_floor
