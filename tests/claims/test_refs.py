"""Claim refs over real git, by file and by smart HTTP: races, the fence, and every kind of answer to a push."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support import repos
from support.repos import fenced
from watchbill import git
from watchbill.claims.record import ClaimRecord, Unreadable
from watchbill.claims.refs import Move
from watchbill.claims.rules import IllegalMove
from watchbill.git import Remote

if TYPE_CHECKING:
    from tests.claims.conftest import Host, Origin, Pushes  # only names: conftest is pytest's to load

#: What does not depend on how the bytes travel.
BY_FILE = pytest.mark.parametrize("origin", ["file"], indirect=True)
EVERYWHERE = pytest.mark.parametrize(
    "origin",
    [
        "file",
        "http",
        pytest.param("https", marks=[pytest.mark.needs("openssl"), pytest.mark.thorough]),
        pytest.param("ssh", marks=[pytest.mark.needs("sshd", "ssh", "ssh-keygen"), pytest.mark.thorough]),
    ],
    indirect=True,
)
REF, BRANCH = "refs/watchbill/claims/41", "refs/heads/watchbill/issue-41"

# Once: races


RACER = """
import os, sys, time
from support.repos import claim_record
from watchbill.claims.refs import ClaimRefs, Move
from watchbill.git import Remote
from watchbill.mirror import Mirror
name, place, url = sys.argv[1:]
refs = ClaimRefs(Mirror(place, Remote(url)), Remote(url))
for line in sys.stdin:
    number = int(line)
    record = claim_record(number=number, generation=1, sequence=0, host=name, nonce=os.urandom(8).hex())
    commit = refs.write(record, None, None)
    print("ready", flush=True)
    sys.stdin.readline()
    time.sleep(int(name[1:]) % 4 * 0.03)  # some at once, some a little late
    print(refs.swap(Move(refs.ref(number), "", commit)).kind, commit, flush=True)
"""


def test_eight_processes_race_to_create_a_claim_and_exactly_one_wins(origin: Origin, tmp_path: Path) -> None:
    """Five rounds. Broken on purpose: `--force` instead of the leases; whoever came late won as well."""
    env = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(__file__))}
    argv = [sys.executable, "-c", RACER]
    racers = [
        subprocess.Popen([*argv, f"h{n}", str(tmp_path / f"m{n}"), origin.url], env=env, text=True,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for n in range(8)
    ]  # fmt: skip

    def tell(line: str) -> list[str]:
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write(line + "\n")
            racer.stdin.flush()
        return [racer.stdout.readline().strip() if racer.stdout else "" for racer in racers]

    try:
        for number in range(100, 105):
            assert tell(str(number)) == ["ready"] * 8
            answers = [answer.split() for answer in tell("go")]
            winners = [commit for kind, commit in answers if kind == "ok"]
            assert [origin.at(f"refs/watchbill/claims/{number}")] == winners
            assert sorted({kind for kind, _ in answers}) == ["lost", "ok"]
    finally:
        for racer in racers:
            racer.communicate()


def test_without_a_nonce_two_would_be_told_that_they_own_it(origin: Origin) -> None:
    """Why the nonce is there: git answers `up to date` to whoever pushes the very commit that is there already."""
    hosts = [origin.host("h1"), origin.host("h2")]
    same = hosts[0].record(nonce="0" * 16)
    commits = {host.refs.write(same, None, None) for host in hosts}
    assert len(commits) == 1
    assert [host.refs.swap(Move(REF, "", commit)).kind for host in hosts for commit in commits] == ["ok", "ok"]


@BY_FILE
def test_the_same_swap_may_be_tried_again(origin: Origin) -> None:
    """Which is what makes a lost answer harmless."""
    host = origin.host("h1")
    commit = host.refs.write(host.record(), None, None)
    assert [host.refs.swap(Move(REF, "", commit)).kind for _ in "ab"] == ["ok", "ok"]


# The fence


def _frozen(origin: Origin, pushes: Pushes) -> tuple[Host, Host, ClaimRecord, str, str]:
    """A owns the claim and is about to push; B will take over in the moment between A's reading and A's sending."""
    a, b = origin.host("a"), origin.host("b")
    tip, record = a.claim()
    taken = b.takeover(b.refs.read(41))
    pushes.freeze_for(
        f"{pushes.real} --git-dir={b.mirror.path} push -q --force-with-lease={REF}:{tip} {origin.url} {taken}:{REF}"
    )
    return a, b, record, tip, taken


@EVERYWHERE
def test_a_firing_that_froze_after_reading_the_refs_lands_nothing(origin: Origin, pushes: Pushes) -> None:
    """Broken on purpose: the claim pushed at its expected value, not its new one; the zombie's branch landed."""
    a, b, record, tip, taken = _frozen(origin, pushes)
    verdict = a.publish(record, tip, a.work())
    assert origin.at(BRANCH) is None
    assert origin.at(REF) == taken
    assert (verdict.kind, verdict.seen) == ("lost", {REF: taken, BRANCH: ""})
    pushes.do("real")
    seen = b.refs.read(41)
    assert isinstance(seen.record, ClaimRecord)
    head = b.work()
    assert b.publish(seen.record, taken, head).kind == "ok"
    assert origin.at(BRANCH) == head


def test_what_the_fence_protects_from(origin: Origin, pushes: Pushes) -> None:
    """The same with a claim that is listed, with its lease, but not advanced: git leaves it out of what it sends.

    This is not Watchbill's push. It lands, and so shows that the freeze of the test above is a real one.
    """
    a, _, _, tip, taken = _frozen(origin, pushes)
    head = a.work()
    done = git.push(a.mirror.path, Remote(origin.url), [f"{tip}:{REF}", f"{head}:{BRANCH}"], {REF: tip, BRANCH: ""})
    assert done.exit == 0
    assert origin.at(REF) == taken
    assert origin.at(BRANCH) == head


@BY_FILE
def test_an_unfenced_push_is_a_bug_and_is_not_made(origin: Origin, pushes: Pushes) -> None:
    a = origin.host("a")
    tip, _ = a.claim()
    pushed = pushes.count
    with pytest.raises(ValueError, match="does not advance"):
        a.refs.swap(Move(REF, tip, tip), Move(BRANCH, "", a.base))
    with pytest.raises(ValueError, match="not fenced"):
        a.refs.swap(Move(BRANCH, "", a.base))
    assert pushes.count == pushed


@BY_FILE
def test_a_zombie_of_before_the_takeover_and_its_release_change_nothing(origin: Origin) -> None:
    a, b = origin.host("a"), origin.host("b")
    tip, record = a.claim()
    taken = b.takeover(b.refs.read(41))
    assert b.refs.swap(Move(REF, tip, taken)).kind == "ok"
    released = record._replace(sequence=1, state="released", outcome="retry", nonce="1" * 16)
    assert a.refs.swap(Move(REF, tip, a.refs.write(released, tip, None))).kind == "lost"
    assert a.publish(record, tip, a.work()).kind == "lost"
    assert a.refs.swap(Move(REF, tip, "")).kind == "lost"
    assert (origin.at(REF), origin.at(BRANCH)) == (taken, None)


# Verdicts


def test_an_answer_lost_after_the_push_was_applied_is_a_success(origin: Origin, pushes: Pushes) -> None:
    """Broken on purpose: a push that did not end cleanly taken for `unknown` without reading again."""
    a = origin.host("a")
    tip, record = a.claim()
    pushes.do('real "$@" > /dev/null 2>&1; echo "fatal: the remote end hung up unexpectedly" >&2; exit 128')
    before, head = pushes.count, a.work()
    verdict = a.publish(record, tip, head)
    assert verdict.kind == "ok"
    assert pushes.count == before + 1
    assert origin.at(BRANCH) == head


def test_a_push_that_never_arrived_is_unknown_and_was_tried_twice(origin: Origin, pushes: Pushes) -> None:
    """Broken on purpose: such an answer taken for `lost`; then a network error had become a loss."""
    a = origin.host("a")
    commit = a.refs.write(a.record(), None, None)
    pushes.do('echo "fatal: the remote end hung up unexpectedly" >&2; exit 128')
    verdict = a.refs.swap(Move(REF, "", commit))
    assert (verdict.kind, pushes.count) == ("unknown", 2)
    assert "hung up" in verdict.reason
    assert origin.at(REF) is None


@BY_FILE
def test_a_push_that_arrives_at_the_second_try_is_a_success(origin: Origin, pushes: Pushes, tmp_path: Path) -> None:
    a = origin.host("a")
    commit = a.refs.write(a.record(), None, None)
    pushes.do(f"if mkdir {tmp_path}/once 2> /dev/null; then exit 128; fi")
    assert (a.refs.swap(Move(REF, "", commit)).kind, pushes.count) == ("ok", 2)


@BY_FILE
def test_a_push_that_never_arrived_while_another_won_is_lost(origin: Origin, pushes: Pushes) -> None:
    a, b = origin.host("a"), origin.host("b")
    commit = a.refs.write(a.record(), None, None)
    tip, _ = b.claim()
    pushes.do("exit 128")
    verdict = a.refs.swap(Move(REF, "", commit))
    assert (verdict.kind, verdict.seen) == ("lost", {REF: tip})


@BY_FILE
def test_a_push_without_an_answer_in_time_is_unknown(origin: Origin, pushes: Pushes) -> None:
    a = origin.host("a", push_timeout_s=0.3)
    commit = a.refs.write(a.record(), None, None)
    pushes.do("sleep 600")
    began = time.monotonic()
    verdict = a.refs.swap(Move(REF, "", commit))
    assert verdict.kind == "unknown"
    assert "in time" in verdict.reason
    assert time.monotonic() - began < 60


def test_a_remote_that_is_gone_is_unknown_and_no_read_is_an_answer(origin: Origin) -> None:
    a = origin.host("a")
    commit = a.refs.write(a.record(), None, None)
    origin.bare.rename(origin.bare.with_suffix(".away"))
    verdict = a.refs.swap(Move(REF, "", commit))
    assert (verdict.kind, verdict.seen) == ("unknown", {})
    assert "could not be read again" in verdict.reason
    for ask in (a.refs.tips, lambda: a.refs.read(41)):
        with pytest.raises(git.GitError):
            ask()


def test_a_branch_that_a_person_pushed_to_is_moved_not_lost(origin: Origin) -> None:
    """Broken on purpose: every ref judged like the claim's; this was `lost`, and the claim would have been given up."""
    a = origin.host("a")
    tip, record = a.claim()
    theirs = repos.commit_on(origin.bare, "watchbill/issue-41", {"by": "a person"})
    verdict = a.publish(record, tip, a.work())
    assert (verdict.kind, verdict.ref, verdict.seen) == ("moved", BRANCH, {REF: tip, BRANCH: theirs})
    assert (origin.at(REF), origin.at(BRANCH)) == (tip, theirs)


@BY_FILE
def test_what_moves_after_our_transaction_does_not_undo_it(origin: Origin, pushes: Pushes) -> None:
    a = origin.host("a")
    tip, record = a.claim()
    head = a.work()
    person = f"{pushes.real} --git-dir={origin.bare} update-ref {BRANCH} {a.base} {head}"
    pushes.do(f'real "$@" > /dev/null 2>&1; {person}; exit 128')
    assert a.publish(record, tip, head).kind == "ok"


@BY_FILE
def test_a_server_that_applies_half_of_it_is_refused_for_good(origin: Origin, pushes: Pushes) -> None:
    a = origin.host("a")
    tip, record = a.claim()
    head = a.work()
    commit = a.published(record, tip, head)
    pushes.do(f"{pushes.real} --git-dir={a.mirror.path} push -q {origin.url} +{commit}:{REF}; exit 1")
    verdict = fenced(a.refs, 41, tip, commit, head)
    assert verdict.kind == "refused"
    assert "not atomic" in verdict.reason


def test_deleting_moves_too(origin: Origin) -> None:
    """As when rejected work is put aside: the claim to released, the branch away, the work kept, in one push."""
    a = origin.host("a")
    tip, record = a.claim()
    head = a.work()
    published = a.published(record, tip, head)
    assert fenced(a.refs, 41, tip, published, head).kind == "ok"
    seen = a.refs.read(41)
    assert isinstance(seen.record, ClaimRecord)
    assert (seen.tip, seen.branch_tip) == (published, head)
    over = seen.record._replace(sequence=2, state="released", outcome="human", nonce="2" * 16)
    released = a.refs.write(over, published, head)
    kept = "refs/watchbill/kept/41/g1"
    moves = (Move(REF, published, released), Move(BRANCH, head, ""), Move(kept, "", head))
    assert a.refs.swap(*moves).kind == "ok"
    assert (origin.at(REF), origin.at(BRANCH), origin.at(kept)) == (released, None, head)


# Reading and writing


@BY_FILE
def test_reading_what_is_not_there(origin: Origin) -> None:
    a = origin.host("a")
    assert a.refs.read(41) == (None, None, None, None, None)
    assert a.refs.tips() == {}


def test_reading_brings_the_commit_and_writes_no_shared_ref(origin: Origin) -> None:
    a, b = origin.host("a"), origin.host("b")
    tip, record = a.claim()
    before = repos.refs(b.mirror.path)
    seen = b.refs.read(41)
    assert (seen.tip, seen.record) == (tip, record)
    assert repos.refs(b.mirror.path) == {**before, "refs/watchbill/seen/41": tip}
    assert b.refs.tips() == {41: tip}


@BY_FILE
def test_an_issues_owners_are_git_log_and_its_work_is_reachable(origin: Origin) -> None:
    first, second, third, head = origin.published_by_its_second_owner()
    assert repos.git(origin.bare, "log", "--first-parent", "--format=%H %an %s", REF).splitlines() == [
        f"{third} watchbill claim #41 g2.1 published b [skip ci]",
        f"{second} watchbill claim #41 g2.0 active b [skip ci]",
        f"{first} watchbill claim #41 g1.0 active a [skip ci]",
    ]
    assert repos.git(origin.bare, "rev-parse", f"{REF}^2") == head
    assert repos.listing(origin.bare, REF) == {}


@BY_FILE
def test_only_numbers_as_people_write_them_are_claims(origin: Origin) -> None:
    a = origin.host("a")
    tip, _ = a.claim()
    for name in ("041", "0", "probe-1", "42/x", "-1"):
        repos.git(origin.bare, "update-ref", f"refs/watchbill/claims/{name}", tip)
    assert a.refs.tips() == {41: tip}


@BY_FILE
@pytest.mark.parametrize("what", ["a blob", "a person's commit", "another's claim"])
def test_a_ref_that_leads_to_something_else_is_unreadable_not_free(origin: Origin, what: str) -> None:
    a = origin.host("a")
    there = {
        "a blob": lambda: repos.git(origin.bare, "hash-object", "-w", "--stdin", given=b"x"),
        "a person's commit": lambda: repos.commit_on(origin.bare, "x", {"a": "1"}),
        "another's claim": lambda: a.claim(42)[0],
    }[what]()
    repos.git(origin.bare, "update-ref", REF, there)
    seen = a.refs.read(41)
    assert seen.tip == there
    assert isinstance(seen.record, Unreadable)


@BY_FILE
def test_a_commit_that_does_not_follow_is_not_written(origin: Origin) -> None:
    a = origin.host("a")
    tip, record = a.claim()
    for wrong in (record, record._replace(sequence=2), record._replace(sequence=1, state="pr", pr=1, head=a.base)):
        with pytest.raises(IllegalMove):
            a.refs.write(wrong, tip, None)
    with pytest.raises(IllegalMove):
        a.refs.write(record._replace(state="done"), None, None)


@BY_FILE
def test_another_namespace(origin: Origin) -> None:
    """Where a server refuses ours, claims are branches; they fence in the same way."""
    a = origin.host("a")
    a.refs.namespace = "refs/heads/watchbill/claims/"
    tip, record = a.claim()
    assert a.refs.tips() == {41: tip}
    assert a.publish(record, tip, a.work()).kind == "ok"
    assert origin.at("refs/heads/watchbill/claims/41") is not None
