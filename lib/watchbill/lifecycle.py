"""From the truth to the one label that tells people: pure and total.

Rule 1: labels are a projection; nothing here, and nothing that reads this, decides who owns an issue.
Rule 2: a person's sticky label (`do-not-pickup`) is never touched, and beats everything.
Rule 3: add before remove, so that a torn edit leaves two labels, which is repaired, and never none.
"""

from __future__ import annotations

from typing import NamedTuple

from watchbill.compiled import Labels

#: States of a claim record, with the outcome of a release spelled out.
STATES = ("none", "active", "published", "pr", "done", "released(retry)", "released(human)")


class Edit(NamedTuple):
    """What to do to an issue's labels."""

    add: tuple[str, ...]
    remove: tuple[str, ...]


def label_for(state: str, issue_open: bool, labels: Labels) -> str | None:
    """The one lifecycle label an issue should carry; None: whatever people put there stands."""
    if state not in STATES:
        raise ValueError(f"no such state of a claim: {state}")
    if state == "none":
        return None
    if state == "done":
        return labels.done
    if not issue_open:
        return None
    return {
        "active": labels.in_flight,
        "published": labels.in_flight,
        "pr": labels.pr_open,
        "released(retry)": labels.implement,
        "released(human)": labels.needs_human,
    }[state]


def edit(state: str, issue_open: bool, present: frozenset[str], labels: Labels) -> Edit:
    """How to get there from the labels that are present."""
    if labels.do_not_pickup in present and state == "released(retry)":
        wanted = None  # a person said no: we take our own label away and put none in its place
        ours = {labels.in_flight}
    else:
        wanted = label_for(state, issue_open, labels)
        ours = {labels.implement, labels.in_flight, labels.pr_open, labels.done, labels.needs_human}
        if wanted is None and state == "none":
            return Edit((), ())
        if wanted is None:  # closed: people are done with it, and nobody works on it
            ours = {labels.in_flight}
    add = (wanted,) if wanted and wanted not in present else ()
    return Edit(add, tuple(sorted((ours - {wanted}) & present)))
