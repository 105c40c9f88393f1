"""The story of one issue, in order of time: every generation on every host, and what people said in between.

From three sources: the claim ref's history (all hosts), this host's ledger (its own firings, in detail), and the
forge's label events. Each is told once: what the ledger knows better the ref does not repeat. Nothing is decided here.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from watchbill import money
from watchbill.claims.record import ClaimRecord, Unreadable
from watchbill.clock import moment
from watchbill.forge.base import LabelEvent
from watchbill.ledger.decisions import Decision
from watchbill.ledger.evidence import Evidence
from watchbill.ledger.firings import Firing
from watchbill.ledger.stories import Done
from watchbill.outcomes import DIED
from watchbill.reports import claims as words

Chain = Sequence[tuple[str, ClaimRecord | Unreadable]]


class Event(NamedTuple):
    """One thing that happened: one line."""

    at: int  # UTC epoch seconds
    kind: str  # person | claim | told | died | ended | passed
    text: str  # for people
    agent: str | None = None
    host: str | None = None
    firing: str | None = None
    generation: int | None = None
    times: int = 1  # how often, from `at` to `until`
    until: int | None = None
    order: float = 0  # within one second: effects in the order in which they were meant


class Own(NamedTuple):
    """A firing of this host's ledger that had the issue."""

    row: Firing
    kept: tuple[Evidence, ...]
    over: bool  # it has ended, or its process is gone
    last_at: int  # when its last step began: UTC epoch seconds


class Sources(NamedTuple):
    """Everything that is known, as it was read."""

    here: str  # this host's id
    own: tuple[Own, ...]
    done: tuple[Done, ...]  # every effect of this host on the issue
    decisions: tuple[Decision, ...]  # on the issue, oldest first
    chain: Chain | None  # oldest first; None: the remote did not answer
    labels: tuple[LabelEvent, ...] | None  # by people; None: the forge did not answer
    agents: dict[str, str]  # firing -> agent, as far as the ledger knows
    at: int  # the moment of which it is told: UTC epoch seconds


#: Within one second: what somebody said or a death comes before what follows from it, an end after what led to it.
_BEFORE, _AFTER, _LAST = -1, 1_000_000, 1_000_001


def tell(known: Sources) -> list[Event]:
    """Everything in order of time."""
    moves = [*_moves(known), *_moves_by_ledger(known)]
    found = sorted([*_people(known), *moves, *_told(known), *_firings(known)], key=_in_order)
    whole = [*found, *_passed_by(known, [event.at for event in found])]
    name = namer(known)
    return [event._replace(text=name(event.text)) for event in sorted(whole, key=_in_order)]


def _in_order(event: Event) -> tuple[int, float]:
    return event.at, event.order


# People


def _people(known: Sources) -> Iterator[Event]:
    """Who labelled, by the forge's own record."""
    for said in known.labels or ():
        change = ("put", "on") if said.added else ("took", "off")
        yield Event(said.at, "person", f"{said.actor.login} {change[0]} {said.label} {change[1]}",
                    order=_BEFORE)  # fmt: skip


# The claim, over all hosts


def _moves(known: Sources) -> Iterator[Event]:
    """Every move of the claim ref. When, and by whom if not by its owner, this host's ledger knows of its own."""
    ours = {str(done.receipt.get("tip")): (done, order) for order, done in enumerate(known.done) if done.receipt}
    before: ClaimRecord | Unreadable | None = None
    at = 0
    for tip, record in known.chain or ():
        done, order = ours.get(tip, (None, 0))
        issued = record.issued if isinstance(record, ClaimRecord) else at
        at = max(at, done.at if done else issued)
        text = words.said(before, record, known.here)
        renewed = isinstance(record, ClaimRecord) and text == words.RENEWED
        before = record
        if renewed:
            continue
        if isinstance(record, Unreadable):
            found_now = tip == (known.chain or ())[-1][0]  # when it was written, nobody can tell
            yield Event(known.at if found_now else at, "claim", f"the claim's record is {text}", order=order)
            continue
        text += _in_place_of(known, record.firing, done)
        text += words.spent(record) if record.host != known.here else ""  # our own firings' ends say what they cost
        yield Event(at, "claim", text, record.agent, record.host, record.firing, record.generation, order=order)


#: What a claim became, in the words of an effect, for when the ref itself cannot be read.
_BECAME = {
    "active": "renewed",
    "published": "work pushed",
    "pr": "pull request open",
    "done": "pull request merged",
    "released(retry)": "given back, to be tried again",
    "released(human)": "handed to a person",
    "released": "given back",
}


def _moves_by_ledger(known: Sources) -> Iterator[Event]:
    """What this host's effects know of moves that the ref, as far as it was read, does not show (any more)."""
    shown = {tip for tip, _ in known.chain or ()}
    rows = {own.row.id: own.row for own in known.own}
    opened = {done.generation for done in known.done if done.kind == "pull request" and done.receipt}
    for order, done in enumerate(known.done):
        if done.receipt is None or done.receipt.get("verdict") != "ok" or done.receipt.get("tip") in shown:
            continue
        row, to = rows.get(done.firing), str(done.intent.get("to"))
        if done.kind.startswith("claim by") and row is not None:
            text = f"claimed by {row.agent} on {words.place(row.host, known.here)}: {_terms(known, row)}"
        elif "claim ref to" in done.kind and to != "active" and not (to == "pr" and done.generation in opened):
            text = _BECAME.get(to, to) + (f" as {str(done.intent['head'])[:12]}" if to == "published" else "")
        else:
            continue
        owner = next((own.row.id for own in known.own if own.row.generation == done.generation), done.firing)
        text += _in_place_of(known, owner, done)
        yield Event(done.at, "claim", text, known.agents.get(done.firing), known.here, done.firing, done.generation,
                    order=order)  # fmt: skip


def _terms(known: Sources, row: Firing) -> str:
    for decision in known.decisions:
        if decision.firing == row.id and decision.reason_id == "eligible":
            return f"try {decision.numbers.get('attempt')}, {decision.reason.partition(':')[0]}"  # labelled by octocat
    return f"generation {row.generation}"


def _in_place_of(known: Sources, owner: str, done: Done | None) -> str:
    """Why it was moved, and by whom if that was not its owner."""
    if done is None:
        return ""
    released = str(done.intent.get("to")).startswith("released")  # of a merge or a reopening the move itself says why
    why = f": {done.intent['why']}" if released and done.intent.get("why") else ""
    if done.firing != owner:
        return f"{why} (by {known.agents.get(done.firing, 'hand')})"
    row = next((own.row for own in known.own if own.row.id == owner), None)
    return why + (" (by a later firing, in its place)" if row is not None and _late(row, done) else "")


def _late(row: Firing, done: Done) -> bool:
    """Whether an effect of a firing that died was made after its death, in its place."""
    if row.outcome != DIED or row.ended is None or done.firing != row.id:
        return False
    moving = "claim ref to" in done.kind and done.intent.get("to") not in ("active", "published")
    return done.at > row.ended or (done.at == row.ended and moving)


def _gives_back(row: Firing, done: Done) -> bool:
    return done.firing == row.id and done.kind.startswith("claim ref to released")


# What people were told


def _told(known: Sources) -> Iterator[Event]:
    """Labels and pull requests, by this host."""
    finished = {record.generation for _, record in known.chain or () if isinstance(record, ClaimRecord) and record.pr}
    for order, done in enumerate(known.done):
        said = _effect(done, finished)
        if said is not None:
            agent = known.agents.get(done.firing)
            yield Event(done.at, "told", said, agent, known.here, done.firing, done.generation, order=order)


def _effect(done: Done, finished: set[int]) -> str | None:
    """One effect in words; None for what another line says, or nobody cares about."""
    receipt, kind = done.receipt, done.kind
    if receipt is None:
        if kind == "pull request":
            return "a pull request was about to be opened; whether it was is not on record, the next firing looks"
        return None
    if kind == "pull request" and done.generation not in finished:
        return f"pull request #{receipt.get('number')} opened"
    if re.match(r"(re)?label (?!pull)", kind):
        added, removed = receipt.get("added") or [], receipt.get("removed") or []
        if not added and not removed:
            return None
        if not added:
            return f"label {', '.join(removed)} taken off"
        return f"label {', '.join(added)}" + (f" instead of {', '.join(removed)}" if removed else "")
    return None


# This host's own firings


def _firings(known: Sources) -> Iterator[Event]:
    for own in known.own:
        row = own.row

        def event(at: int, text: str, order: float, kind: str = "ended", row: Firing = row) -> Event:
            return Event(at, kind, text, row.agent, row.host, row.id, row.generation, order=order)

        for kept in own.kept:
            if row.ended is not None and kept.at > row.ended:  # else its end says so
                yield event(kept.at, f"what {row.agent} had done so far is kept as {kept.summary.get('ref')}", _BEFORE)
        if row.outcome == DIED and row.ended is not None:
            after = [order for order, done in enumerate(known.done) if _late(row, done)]
            yield event(row.ended, _ended(row), min(after) - 0.5 if after else _AFTER, "died")
        elif row.ended is not None:
            # Why it was given back comes before that it was: settle decides in this order, and releases first.
            back = [(order, done.at) for order, done in enumerate(known.done) if _gives_back(row, done)]
            order, at = back[0] if back else (_AFTER, row.ended)
            yield event(min(at, row.ended), _ended(row), order - 0.5)
        elif own.over:
            yield event(own.last_at, f"{row.agent}'s process was gone before its end", _AFTER)


_BASIS = {
    "reservation": ", all it had reserved",
    "ceiling": ", its cap: its engine said nothing",
    "unmeasured": ", not measured: its engine said nothing",
}


def _ended(row: Firing) -> str:
    """How it ended, how long it took, what it cost."""
    assert row.ended is not None
    cost = ""
    if row.cost_basis not in (None, "not started"):
        cost = f"; {money.usd(row.cost_micro or 0)}{_BASIS.get(row.cost_basis or '', '')}"
    reason = re.sub(r" \(kept: (\S+)\)", r"; its work is kept as \1", row.reason or "")
    if row.outcome == DIED:
        return f"{row.agent} died: {reason}{cost}"
    after = f"after {words.span(row.ended - row.started)}"
    if row.outcome == "pull_request":
        return f"{row.agent} was done {after}{cost}"
    return f"{row.agent} ended {after}, {(row.outcome or '').replace('_', ' ')}: {reason}{cost}"


# Who looked and passed by


def _passed_by(known: Sources, at: Sequence[int]) -> Iterator[Event]:
    """Verdicts of firings that left it alone; those of one reason with nothing in between are one line."""

    def stretch(decision: Decision) -> int:
        return bisect_right(at, decision.at)

    owners = {own.row.id for own in known.own if own.row.generation is not None}
    passed = [d for d in known.decisions if _matters(d) and not (d.firing in owners and d.verdict == "take")]
    for _, group in groupby(passed, key=lambda d: (stretch(d), d.reason_id, d.verdict)):
        every = list(group)
        first, last = every[0], every[-1]
        if last.step == "claims":
            yield Event(last.at, "person", f"released by hand {last.reason}", firing=last.firing, order=_BEFORE)
            continue
        if last.step == "sweep":  # what it did put right, the claim's moves and the labels say
            if last.verdict == "failed":
                who = known.agents.get(last.firing, "a sweep")
                yield Event(
                    last.at, "passed", f"{who} could not put it right: {last.reason}", who, known.here, last.firing
                )
            continue
        times = len({d.firing for d in every})
        who = " and ".join(sorted({known.agents.get(d.firing, "an agent") for d in every}))
        until = last.at if times > 1 else None
        often = f" {times} times until {_clock(until)}" if until is not None else ""
        text = f"{who} looked{often}: {last.reason}"
        yield Event(first.at, "passed", text, who, known.here, last.firing, None, times, until, _LAST)


def _matters(decision: Decision) -> bool:
    return bool(decision.reason) and decision.verdict not in ("take", "pass")


# Words


def _clock(at: int) -> str:
    return moment(at).split(" ")[1]


def namer(known: Sources) -> Callable[[str], str]:
    """Names instead of ids: whoever reads this knows bosun, not 1m7z9skrymejtj23."""
    names = dict(known.agents)
    for _, record in known.chain or ():
        if isinstance(record, ClaimRecord):
            names.setdefault(record.firing, record.agent)

    def name(text: str) -> str:
        for id, agent in names.items():
            text = text.replace(f"{agent} (firing {id})", agent).replace(f"firing {id}", agent)
        return text.replace(f"host {known.here}", "this host")

    return name


def lines(events: Iterable[dict[str, Any]]) -> Iterator[str]:
    """One line an event, below a line for each day. Events as `as_objects` has them."""
    day = ""
    for event in events:
        date, clock, zone = moment(event["at"]).split(" ")
        if date != day:
            day = date
            yield f"{date} {zone}"
        yield f"  {clock}  {event['text']}"


def as_objects(events: Iterable[Event]) -> list[dict[str, Any]]:
    """Flat, as `why --json` prints them."""
    return [{name: value for name, value in event._asdict().items() if name != "order"} for event in events]
