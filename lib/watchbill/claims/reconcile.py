"""reconcile: from what was seen of one issue to what has to be done about it. Pure and total.

Rule 1: the claim ref moves first (the truth), then the labels (what people see); a crash between any two leaves a state
        from which the same end is reached.
Rule 2: nothing follows from an absence. `pull` is "none" only where it was read by number, or listed absent twice, a
        grace apart; until then it is "unsure", and that changes nothing.
Rule 3: a claim whose owner may be alive is left alone, and so are its labels for a grace after it has moved.
Rule 4: whoever applies this moves the claim by compare-and-swap from the tip that was read; one who was faster wins.
"""

from __future__ import annotations

from typing import NamedTuple

from watchbill import lifecycle
from watchbill.compiled import Labels

#: What this host knows of the owner, from "may well be at work" to "is over".
LIVE, QUIET, SILENT, DEAD = "live", "quiet", "silent", "dead"
OWNERS = (LIVE, QUIET, SILENT, DEAD)
ISSUES = ("open", "closed", "gone")
PULLS = ("none", "unsure", "open", "merged", "closed")


class Facts(NamedTuple):
    """One issue as just read; nothing here is from a list alone."""

    phase: str  # rules.phase of its claim, or "unreadable"
    owner: str  # LIVE | QUIET (tip unchanged for the grace) | SILENT (for ttl + grace) | DEAD (a firing of this host)
    issue: str  # one of ISSUES; "gone": deleted, or not visible to us
    labels: frozenset[str]
    pull: str  # one of PULLS: this generation's own
    branch: bool  # the work branch is there
    spent_tries: bool  # this generation was the last try
    failed_rolls: bool  # its pull request could not be opened, often enough
    new_word: bool  # a person has put the label to be taken there since this generation was authorised
    old: bool  # unreadable, and unchanged for a day


class Move(NamedTuple):
    """Move the claim ref by one operation of rules.MOVES."""

    operation: str
    why: str  # for people
    aside: bool = False  # in the same push, the work branch goes to refs/.../kept/<number>/g<k>


class OpenPull(NamedTuple):
    """Open this generation's pull request from the words in its record."""


class Relabel(NamedTuple):
    """Put the labels right: add, then remove."""

    add: tuple[str, ...]
    remove: tuple[str, ...]


Repair = Move | OpenPull | Relabel


def reconcile(seen: Facts, names: Labels) -> tuple[Repair, ...]:
    """What to do, in this order. Empty: everything is as it should be, or somebody is at work on it."""
    first = _claim(seen, names)
    if not first and seen.owner == LIVE:
        return ()  # whoever moved the claim a moment ago is about to tell people
    return (*first, *_labels(after(seen, *first), names))


def after(seen: Facts, *repairs: Repair) -> Facts:
    """The facts once these repairs are done: what the next look would see."""
    for repair in repairs:
        if isinstance(repair, OpenPull):
            seen = seen._replace(pull="open")
        elif isinstance(repair, Relabel):
            seen = seen._replace(labels=(seen.labels | set(repair.add)) - set(repair.remove))
        else:
            seen = seen._replace(phase=_ENDS[repair.operation], owner=LIVE, branch=seen.branch and not repair.aside)
    return seen


_ENDS = {
    "release(retry)": "released(retry)",
    "release(human)": "released(human)",
    "finish": "pr",
    "return": "pr",
    "reopen": "pr",
    "merge": "done",
}


def _claim(seen: Facts, names: Labels) -> tuple[Repair, ...]:
    said_no = _said_no(seen, names)
    over = seen.owner in (SILENT, DEAD)
    if seen.phase == "active":
        if not over:
            return ()
        if said_no:
            return (Move("release(human)", said_no),)
        if seen.spent_tries:
            return (Move("release(human)", "its last try came to no end"),)
        return (Move("release(retry)", "its firing died" if seen.owner == DEAD else "its host fell silent"),)
    if seen.phase == "active(role)":
        return (Move("return", "its firing is over"),) if over else ()
    if seen.phase == "published":
        return _published(seen, said_no)
    if seen.phase == "pr":
        if seen.pull == "merged":
            return (Move("merge", "its pull request was merged", aside=True),)
        if seen.pull == "closed":
            return (Move("release(human)", "its pull request was closed unmerged", aside=True),)
    if seen.phase == "released(human)":
        if seen.pull == "merged":
            return (Move("merge", "its pull request was merged after all", aside=True),)
        if seen.pull == "open":
            return (Move("reopen", "its pull request was opened again"),)
    return ()


def _published(seen: Facts, said_no: str | None) -> tuple[Repair, ...]:
    """The commit record: from here on anybody brings it to its end, when its owner does not."""
    if seen.pull == "merged":
        return (Move("merge", "its pull request was merged", aside=True),)
    if seen.pull == "closed":
        return (Move("release(human)", "its pull request was closed unmerged", aside=True),)
    if seen.owner == LIVE or seen.pull == "unsure":
        return ()
    if seen.pull == "open":
        return (Move("finish", "its pull request is open"),)
    if said_no:
        return (Move("release(human)", said_no, aside=True),)
    if not seen.branch:
        return (Move("release(human)", "its work branch was deleted before a pull request was opened"),)
    if seen.failed_rolls:
        return (Move("release(human)", "its pull request could not be opened", aside=True),)
    return (OpenPull(), Move("finish", "its work was published"))


def _said_no(seen: Facts, names: Labels) -> str | None:
    if seen.issue != "open":
        return "its issue was closed" if seen.issue == "closed" else "its issue is gone"
    if names.do_not_pickup in seen.labels:
        return f"it was labelled {names.do_not_pickup}"
    return None


def _labels(seen: Facts, names: Labels) -> tuple[Relabel, ...]:
    if seen.issue == "gone" or seen.phase == "none" or (seen.phase == "unreadable" and not seen.old):
        return ()
    ours = lifecycle.ours(names) & seen.labels
    if seen.phase.startswith("released") and not ours:
        return ()  # a torn edit leaves two labels and never none: a person took it off
    phase = "released(human)" if seen.phase == "unreadable" else seen.phase
    wanted = lifecycle.edit(phase, seen.issue == "open", seen.labels, names, seen.new_word)
    return (Relabel(*wanted),) if wanted != lifecycle.NOTHING else ()
