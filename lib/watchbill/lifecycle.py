"""From the truth to the one label that tells people: pure and total.

Rule 1: labels are a projection; nothing here, and nothing that reads this, decides who owns an issue.
Rule 2: a person's sticky label (`do-not-pickup` and the other modifiers) is never touched. It beats everything where it
        counts, in `look`, `examine` and `land`, not here.
Rule 3: add before remove, so that a torn edit leaves two labels, which is repaired, and never none.
Rule 4: a label is also a person's word. Whether a word counts is read from the label events; here it is only not lost.
"""

from __future__ import annotations

from typing import NamedTuple

from watchbill.compiled import Labels

#: The phases of a claim, see claims/rules.py.
STATES = ("none", "active", "published", "pr", "active(role)", "done", "released(retry)", "released(human)")
#: And what a claim is whose record makes no sense to this program.
PHASES = (*STATES, "unreadable")


class Edit(NamedTuple):
    """What to do to an issue's labels: first every `add`, then every `remove`."""

    add: tuple[str, ...]
    remove: tuple[str, ...]


NOTHING = Edit((), ())
#: What people put there stands: nobody has claimed it, or we cannot read who has.
_PEOPLES = ("none", "unreadable")
#: Where a new generation may begin on a person's newer label.
_ANEW = ("released(human)", "done")


def ours(labels: Labels) -> frozenset[str]:
    """The labels of the lifecycle: an issue of ours carries at most one of them."""
    return frozenset((labels.implement, labels.in_flight, labels.pr_open, labels.done, labels.needs_human))


def label_for(state: str, issue_open: bool | None, labels: Labels) -> str | None:
    """The one label such an issue is given; None: it is given none. ValueError for what is no phase of a claim.

    `issue_open`: None when the issue is gone. A closed one is told nothing new, but how it ended, and what a stale
    label has to give way to.
    """
    if state not in PHASES:
        raise ValueError(f"no such state of a claim: {state}")
    if issue_open is None or state in _PEOPLES:
        return None
    if not issue_open and state not in ("done", "released(retry)"):
        return None
    return _true(state, labels)


def _true(state: str, labels: Labels) -> str:
    """The label that says what a claim's phase is."""
    return {
        "active": labels.in_flight,
        "published": labels.in_flight,
        "pr": labels.pr_open,
        "active(role)": labels.pr_open,
        "done": labels.done,
        "released(retry)": labels.implement,
        "released(human)": labels.needs_human,
    }[state]


def edit(state: str, issue_open: bool | None, present: frozenset[str], labels: Labels, new_word: bool = False) -> Edit:
    """How to get there from the labels that are present. Applied to its own result it changes nothing.

    `new_word`: by the label events a person has put `implement` there since the claim's generation was authorised;
    where a new generation may begin on it, it stands instead of what the old one ended as.
    """
    given = label_for(state, issue_open, labels)
    if issue_open is None or state in _PEOPLES:
        return NOTHING
    stays = _true(state, labels)
    if new_word and state in _ANEW and labels.implement in present:
        given = stays = labels.implement
    add = (given,) if given is not None and given not in present else ()
    return Edit(add, tuple(sorted((ours(labels) & present) - {stays})))
