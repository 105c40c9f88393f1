"""The label that people see: every phase of a claim x every state of the issue x every set of labels."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from watchbill import lifecycle
from watchbill.claims import rules
from watchbill.compiled import Labels
from watchbill.lifecycle import PHASES, STATES, Edit, edit, label_for

ROOT = Path(__file__).resolve().parents[1]
NAMES = Labels()
OWN = Labels(*(f"x/{name}" for name in NAMES))
LIFE = lifecycle.ours(NAMES)
#: Of people and of other programs; two stand for the sticky ones of ours.
OTHERS = frozenset({NAMES.do_not_pickup, NAMES.fixes_base, "bug"})
ISSUE = {"open": True, "closed": False, "gone": None}


def sets(of: frozenset[str]) -> Iterator[frozenset[str]]:
    for size in range(len(of) + 1):
        yield from map(frozenset, itertools.combinations(sorted(of), size))


#: Phase, issue, labels, a person's newer word: 9 x 3 x 256 x 2.
ALL = [
    (state, is_open, present, word)
    for state in PHASES
    for is_open in ISSUE.values()
    for present in sets(LIFE | OTHERS)
    for word in (False, True)
]


def after(present: frozenset[str], change: Edit) -> frozenset[str]:
    return (present | set(change.add)) - set(change.remove)


def torn(present: frozenset[str], change: Edit) -> Iterator[frozenset[str]]:
    """What an edit that was cut off leaves behind: one request a label, additions first."""
    yield present
    present = present | set(change.add)
    for gone in change.remove:
        yield present
        present = present - {gone}


def test_its_states_are_the_phases_of_the_rules() -> None:
    assert set(STATES) == set(rules.MOVES)


def test_every_state_has_an_edit_that_is_done_in_one_round() -> None:
    """Broken on purpose: with only the first label taken away, `active` with two wrong ones took two rounds."""
    assert len(ALL) == 13824
    for state, is_open, present, word in ALL:
        there = after(present, edit(state, is_open, present, NAMES, word))
        assert edit(state, is_open, there, NAMES, word) == Edit((), ()), (state, is_open, present)


def test_two_labels_of_the_lifecycle_never_stay() -> None:
    """Broken on purpose: with only the first label taken away, `done` stayed beside `in-flight`; with none added to a
    `pr`, an issue without any had none."""
    for state, is_open, present, word in ALL:
        if is_open is None or state in ("none", "unreadable"):
            continue  # what people put there stands
        there = after(present, edit(state, is_open, present, NAMES, word)) & LIFE
        assert len(there) <= 1, (state, is_open, present, there)
        if is_open:
            assert len(there) == 1, (state, present)


def test_what_is_not_of_the_lifecycle_is_never_touched() -> None:
    for state, is_open, present, word in ALL:
        change = edit(state, is_open, present, NAMES, word)
        assert {*change.add, *change.remove} <= LIFE, (state, is_open, present)
        assert set(change.remove) <= present
        assert not set(change.add) & present


def test_other_peoples_labels_change_nothing() -> None:
    for state, is_open, present, word in ALL:
        assert edit(state, is_open, present, NAMES, word) == edit(state, is_open, present & LIFE, NAMES, word)


def test_a_torn_edit_never_leaves_none_and_is_mended_to_the_same() -> None:
    """From every cut of every edit the next round ends where the whole edit would have ended.

    Broken on purpose: with only the first label taken away, what was left of a cut depended on where it was cut.
    """
    for state, is_open, present, word in ALL:
        change = edit(state, is_open, present, NAMES, word)
        whole = after(present, change)
        for cut in torn(present, change):
            if present & LIFE and whole & LIFE:
                assert cut & LIFE, (state, is_open, present, cut)
            assert after(cut, edit(state, is_open, cut, NAMES, word)) == whole, (state, is_open, present, cut)


def test_names_are_the_fleets_own() -> None:
    rename = dict(zip(NAMES, OWN, strict=True))

    def renamed(labels: tuple[str, ...] | frozenset[str]) -> list[str]:
        return [rename.get(label, label) for label in labels]

    for state, is_open, present, word in ALL:
        change = edit(state, is_open, present, NAMES, word)
        wanted = Edit(tuple(renamed(change.add)), tuple(renamed(change.remove)))
        assert edit(state, is_open, frozenset(renamed(present)), OWN, word) == wanted


def test_no_other_state_is_one() -> None:
    for state in ("released", "released(nobody)", "", "foreign"):
        with pytest.raises(ValueError, match="no such state"):
            edit(state, True, frozenset(), NAMES)


def test_the_issue_is_gone() -> None:
    assert {edit(state, None, present, NAMES, word) for state, is_open, present, word in ALL if is_open is None} == {
        Edit((), ())
    }


@pytest.mark.parametrize("state", ["none", "unreadable"])
def test_without_a_claim_that_we_can_read_labels_are_peoples(state: str) -> None:
    assert {edit(state, is_open, present, NAMES, word) for _, is_open, present, word in ALL} == {Edit((), ())}


def said(state: str, *present: str, is_open: bool | None = True, new_word: bool = False) -> set[str]:
    return set(after(frozenset(present), edit(state, is_open, frozenset(present), NAMES, new_word)))


@pytest.mark.parametrize("state", ["active", "published", "pr", "active(role)"])
def test_while_somebody_works_or_a_pull_request_is_open_the_label_is_put_right(state: str) -> None:
    """Taking in-flight off stops nobody, and `implement` cannot be had twice: both are words for the label events."""
    right = label_for(state, True, NAMES)
    assert right == (NAMES.in_flight if state in ("active", "published") else NAMES.pr_open)
    assert said(state) == {right}
    assert said(state, NAMES.implement) == {right}
    assert said(state, str(right), NAMES.implement, NAMES.do_not_pickup) == {right, NAMES.do_not_pickup}


@pytest.mark.parametrize("old", [NAMES.needs_human, NAMES.pr_open, NAMES.done])
@pytest.mark.parametrize("state", ["released(human)", "done"])
def test_a_label_put_back_after_the_end_is_not_eaten(state: str, old: str) -> None:
    """Broken on purpose: with `new_word` not looked at, `agent:implement` was taken off at once."""
    assert said(state, old, NAMES.implement, new_word=True) == {NAMES.implement}
    assert said(state, NAMES.implement, is_open=False, new_word=True) == {NAMES.implement}


@pytest.mark.parametrize(("state", "right"), [("released(human)", NAMES.needs_human), ("done", NAMES.done)])
def test_an_old_word_is_none(state: str, right: str) -> None:
    """Left by a torn edit, or put on while somebody worked: no generation would begin on it, so it must not stay.

    Broken on purpose: with every `implement` taken for a new word, it stayed.
    """
    assert said(state, NAMES.implement) == said(state, NAMES.implement, NAMES.in_flight) == {right}


def test_given_back_to_be_tried_again() -> None:
    assert said("released(retry)") == said("released(retry)", NAMES.in_flight) == {NAMES.implement}
    assert said("released(retry)", NAMES.in_flight, is_open=False) == {NAMES.implement}  # for when it is reopened
    held = {NAMES.implement, NAMES.do_not_pickup}  # waits there until the person takes that off
    assert said("released(retry)", NAMES.in_flight, NAMES.do_not_pickup) == held
    assert said("released(retry)", *held) == held


def test_a_persons_turn_is_shown() -> None:
    assert said("released(human)") == {NAMES.needs_human}
    assert said("released(human)", NAMES.in_flight, NAMES.do_not_pickup) == {NAMES.needs_human, NAMES.do_not_pickup}
    assert said("released(human)", is_open=False) == set()
    assert said("released(human)", NAMES.in_flight, is_open=False) == set()
    assert said("released(human)", NAMES.needs_human, is_open=False) == {NAMES.needs_human}


def test_done_stays_done_when_it_is_reopened() -> None:
    assert said("done", NAMES.pr_open, is_open=False) == said("done", is_open=True) == {NAMES.done}


def test_closed_in_the_middle() -> None:
    assert said("active", is_open=False) == set()
    assert said("active", NAMES.in_flight, is_open=False) == {NAMES.in_flight}  # until it has stopped
    assert said("pr", NAMES.pr_open, is_open=False) == {NAMES.pr_open}  # the pull request is still there
    assert said("pr", NAMES.in_flight, is_open=False) == set()
