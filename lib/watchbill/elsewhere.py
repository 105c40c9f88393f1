"""A stop on another host: said in each repository of the fleet, heard wherever the claim refs are read.

A ledger is one host's; the repositories are what all hosts share. `stop` sets the hold ref in each (`announce`), and
`resume --fleet` deletes it (`withdraw`). A host that meets it where it reads claims anyway (`heed`) holds itself for
five minutes by a hold that heals: its canary looks at the refs again (`look_again`), and only an answer without the ref
lifts it. A repository that does not answer never does.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from typing import NamedTuple

from watchbill import git, holds, pill
from watchbill.claims import hold as codec
from watchbill.claims import refs
from watchbill.claims.hold import HoldRecord
from watchbill.compiled import Repo
from watchbill.errors import Fixable
from watchbill.git import GitError, Remote
from watchbill.ledger import holds as rows
from watchbill.ledger.holds import Hold
from watchbill.live import Firing
from watchbill.outcomes import Ended
from watchbill.ports import Ports

KIND = "stop_elsewhere"
#: So long a host stands still before its canary looks again.
LASTS_S = 300
#: What one repository is given for an answer.
ANSWER_S = 5.0


class Place(NamedTuple):
    """Where a stop is written in one repository."""

    remote: Remote
    ref: str


# Said and taken back


def announce(ports: Ports, record: HoldRecord, answer_s: float = ANSWER_S) -> dict[str, str]:
    """Set the hold ref in every repository of the roster, all at once.

    Repository -> "" when it stands there, else why not. None is waited for longer than about `answer_s`, and its git is
    ended then. No ledger and no mirror is needed: either may be locked by what is to be stopped.
    """

    def each(scratch: str) -> Callable[[Place], str]:
        commit = codec.commit(scratch, record)
        return lambda place: codec.announce(scratch, place.remote, place.ref, commit, answer_s)

    return _everywhere(ports, each)


def withdraw(ports: Ports, answer_s: float = ANSWER_S) -> dict[str, str]:
    """Delete the hold ref in every repository; the same answer: "" when no stop stands there any more."""

    def each(scratch: str) -> Callable[[Place], str]:
        return lambda place: codec.withdraw(scratch, place.remote, place.ref, answer_s)

    return _everywhere(ports, each)


def _everywhere(ports: Ports, prepare: Callable[[str], Callable[[Place], str]]) -> dict[str, str]:
    """In a repository of its own, which is gone afterwards, and in as many threads as there are repositories."""
    told: dict[str, str] = {}

    def ask(name: str, act: Callable[[Place], str], repo: Repo) -> None:
        try:
            told[name] = act(Place(ports.remote(repo), refs.hold_ref(refs.namespace_of(repo.claims))))
        except Fixable as problem:
            told[name] = problem.what
        except (GitError, OSError) as problem:
            told[name] = " ".join(str(problem).split())[:300]

    with tempfile.TemporaryDirectory(prefix="watchbill-stop-") as root:
        scratch = os.path.join(root, "scratch.git")
        try:
            git.init_bare(scratch)
            act = prepare(scratch)
            _ = ports.token if any(_needs_token(repo) for repo in ports.fleet.repos.values()) else ""
        except Fixable as problem:
            return dict.fromkeys(ports.fleet.repos, problem.what)
        except GitError as problem:
            return dict.fromkeys(ports.fleet.repos, " ".join(str(problem).split())[:300])
        threads = [
            threading.Thread(target=ask, args=(name, act, repo), name=f"hold {name}")
            for name, repo in ports.fleet.repos.items()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return {name: told.get(name, "it was not asked: this program ended") for name in ports.fleet.repos}


def _needs_token(repo: Repo) -> bool:
    return repo.remote.startswith(("http://", "https://"))


# Heard


def heed(f: Firing, repo: Repo, tip: str | None) -> None:
    """`tip` of the hold ref, as just read beside claims. Raises Ended `held` when it is another host's stop.

    A record that makes no sense is a stop all the same. Our own was written down here when it was made, and a person
    may have lifted it here since.
    """
    if tip is None:
        return
    said = f.ports.claim_refs(repo).hold_at(tip)
    if isinstance(said, HoldRecord):
        if said.host == f.row.host or (said.until is not None and said.until <= f.now):
            return
        reason = f"{repo.full_name} says: {said.reason}"
        author = f"{said.author} on host {said.host}"
    else:
        reason = f"the stop in {repo.full_name} cannot be read ({said.reason}), and is heeded all the same"
        author = "another host"
    hold = Hold(0, "fleet", "", KIND, f.redact(reason), f.redact(author), f.now, f.now + LASTS_S, repo.full_name)
    with f.ledger.transaction(durable=True):
        rows.heal_or_lengthen(f.ledger, hold)  # and never longer from time to time: somebody may resume any minute
    f.note("stopped elsewhere", repository=repo.full_name, tip=tip)
    raise Ended("held", holds.said(hold, f.agent.name, f.now), holds.reason_id(hold))


def look_again(f: Firing) -> None:
    """As the canary of another host's stop: read the hold refs, and lift ours only when no answer shows one."""
    standing = rows.standing(f.ledger, f.now) if f.canary_of else []
    mine = [hold for hold in standing if hold.id in f.canary_of and hold.kind == KIND]
    if not mine:
        return
    where = {hold.evidence for hold in mine}
    for name, repo in f.fleet.repos.items():
        try:
            tip = f.ports.claim_refs(repo).hold_tip()
        except (GitError, Fixable):
            if name in where:
                raise  # the one that said so: without its answer nothing is over
            continue
        heed(f, repo, tip)
    pill.answered(f, frozenset({"fleet"}))
