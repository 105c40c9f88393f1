"""Many claims at once, and one claim's history."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from support import repos
from support.repos import fenced
from watchbill import git
from watchbill.claims.record import ClaimRecord, Unreadable
from watchbill.claims.refs import Move

if TYPE_CHECKING:
    from tests.claims.conftest import Host, Origin  # only names: conftest is pytest's to load

BY_FILE = pytest.mark.parametrize("origin", ["file"], indirect=True)
REF, BRANCH = "refs/watchbill/claims/41", "refs/heads/watchbill/issue-41"


def _claim_many(host: Host, origin: Origin, numbers: range) -> dict[int, tuple[str, ClaimRecord]]:
    """Claims of other issues, written into the repository as their owners would have pushed them."""
    made = {}
    for number in numbers:
        record = host.record(number=number)
        made[number] = (host.refs.write(record, None, None), record)
    specs = [f"{commit}:refs/watchbill/claims/{number}" for number, (commit, _) in made.items()]
    git.run("push", "-q", origin.url, *specs, git_dir=host.mirror.path, remote=host.refs.remote)
    return made


def _asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The requests to the remote from now on, by git's own program name."""
    asked: list[str] = []
    real = git.run

    def run(*argv: str, **given: object) -> git.Done:
        if given.get("remote"):
            asked.append(argv[0])
        return real(*argv, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(git, "run", run)
    return asked


def test_hundreds_of_claims_are_one_listing_and_one_fetch(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken on purpose: each fetched by itself; three hundred requests."""
    a, b = origin.host("a"), origin.host("b")
    made = _claim_many(a, origin, range(100, 400))
    tip, record = a.claim()
    head = a.work()
    published = a.published(record, tip, head)
    assert fenced(a.refs, 41, tip, published, head).kind == "ok"
    wip = a.work()
    repos.git(origin.bare, "update-ref", "refs/watchbill/wip/100", wip)
    asked = _asked(monkeypatch)
    seen = b.refs.records()
    assert asked == ["ls-remote", "fetch"]
    assert {number: (claim.tip, claim.record) for number, claim in seen.items() if number != 41} == made
    assert (seen[41].tip, seen[41].branch_tip, seen[100].wip_tip) == (published, head, wip)
    assert seen[100].branch_tip is None
    assert seen == b.refs.records()
    assert asked == ["ls-remote", "fetch", "ls-remote"]
    assert b.refs.records([399, 41, 7]) == {41: seen[41], 399: seen[399]}
    kept = repos.refs(b.mirror.path)
    assert {kept[f"refs/watchbill/seen/{number}"] for number in seen} == {claim.tip for claim in seen.values()}


@BY_FILE
def test_what_leads_nowhere_spoils_no_other_claim(origin: Origin) -> None:
    a, b = origin.host("a"), origin.host("b")
    tip, record = a.claim()
    blob = repos.git(origin.bare, "hash-object", "-w", "--stdin", given=b"x")
    theirs = repos.commit_on(origin.bare, "x", {"a": "1"})
    for number, there in ((7, blob), (8, theirs), (9, tip)):
        repos.git(origin.bare, "update-ref", f"refs/watchbill/claims/{number}", there)
    seen = b.refs.records()
    assert seen[41] == (tip, record, None, None, None)
    assert {number: claim.tip for number, claim in seen.items()} == {7: blob, 8: theirs, 9: tip, 41: tip}
    assert all(isinstance(seen[number].record, Unreadable) for number in (7, 8, 9))


@BY_FILE
@pytest.mark.parametrize("moved", ["forward", "to an orphan", "away"])
def test_a_claim_that_moves_between_listing_and_fetch_is_never_misread(
    origin: Origin, monkeypatch: pytest.MonkeyPatch, moved: str
) -> None:
    """Broken on purpose: the fetched ref's record taken for the listed tip's; another owner's was shown there."""
    a, b = origin.host("a"), origin.host("b")
    made = _claim_many(a, origin, range(100, 103))
    tip, record = a.claim()
    after = a.refs.write(record._replace(sequence=1, nonce="1" * 16), tip, None)
    orphan = a.refs.write(a.record(nonce="2" * 16), None, None)
    to = {"forward": after, "to an orphan": orphan, "away": None}[moved]
    git.run("push", "-q", str(origin.bare), f"{after}:refs/heads/x", f"{orphan}:refs/heads/y", git_dir=a.mirror.path)
    real, left = git.fetch, [REF]

    def fetch(*argv: object, **given: object) -> None:
        while left:
            repos.git(origin.bare, "update-ref", *((left.pop(), to) if to else ("-d", left.pop())))
        real(*argv, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(git, "fetch", fetch)
    seen = b.refs.records()
    assert {number: (claim.tip, claim.record) for number, claim in seen.items() if number != 41} == made
    if to is None:
        assert 41 not in seen
        return
    found = seen[41]
    assert found.tip in (tip, to)
    assert isinstance(found.record, ClaimRecord)
    assert found.record.nonce == {tip: record.nonce, after: "1" * 16, orphan: "2" * 16}[found.tip]


@BY_FILE
def test_an_outage_is_no_answer(origin: Origin) -> None:
    a = origin.host("a")
    a.claim()
    origin.bare.rename(origin.bare.with_suffix(".away"))
    for ask in (a.refs.records, lambda: a.refs.history(41)):
        with pytest.raises(git.GitError):
            ask()


def test_the_history_of_an_issue_is_its_chain_newest_first(origin: Origin) -> None:
    """Broken on purpose: all parents followed; the work's own commits were shown as unreadable claims."""
    first, second, third, _ = origin.published_by_its_second_owner()
    c = origin.host("c")
    chain = c.refs.history(41)
    assert [commit for commit, _ in chain] == [third, second, first]
    assert [(r.generation, r.sequence, r.state, r.host) for _, r in chain if isinstance(r, ClaimRecord)] == [
        (2, 1, "published", "b"),
        (2, 0, "active", "b"),
        (1, 0, "active", "a"),
    ]
    assert c.refs.history(42) == []


@BY_FILE
def test_the_history_ends_where_a_person_put_something_else(origin: Origin) -> None:
    a = origin.host("a")
    theirs = repos.commit_on(origin.bare, "main", {"a": "1"})
    repos.git(origin.bare, "update-ref", REF, theirs)
    a.mirror.refresh("main")
    over = a.refs.write(a.record(nonce=os.urandom(8).hex()), theirs, None)
    assert a.refs.swap(Move(REF, theirs, over)).kind == "ok"
    chain = a.refs.history(41)
    assert [commit for commit, _ in chain] == [over, theirs]
    assert isinstance(chain[1][1], Unreadable)
    blob = repos.git(origin.bare, "hash-object", "-w", "--stdin", given=b"x")
    repos.git(origin.bare, "update-ref", REF, blob)
    assert [(commit, type(record)) for commit, record in a.refs.history(41)] == [(blob, Unreadable)]
