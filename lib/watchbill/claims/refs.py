"""Claim refs in the repository itself: read, written, and moved by compare-and-swap (DESIGN section 6).

A push that did not end cleanly is not an answer. The refs are read again, and only what they say, or the server's own
reason, makes a verdict; a network error is never a loss and never a win.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from watchbill import git
from watchbill.claims import record as codec
from watchbill.claims import rules
from watchbill.claims.record import ClaimRecord, Unreadable
from watchbill.git import GitError, Identity, Pushed, Remote
from watchbill.mirror import Mirror

NAMESPACE = "refs/watchbill/claims/"
#: Where the namespace is refused.
FALLBACK_NAMESPACE = "refs/heads/watchbill/claims/"
_SEEN = "refs/watchbill/seen/"
_WHO = Identity("watchbill", "watchbill@watchbill.invalid")
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")  # decimal, no padding: one issue, one name
_TRIES = 2
_READS = 3
_PAUSE_S = 0.5
#: Rejections that say "not now" (another push at the same moment) and not "never". The rest is the server's reason.
_PASSING = re.compile(
    r"stale info|atomic|already exists|incorrect old value|failed to (?:update ref|lock)|(?:cannot|unable to) lock|"
    r"remote failed to report|fetch first|^failed$|internal (?:server )?error|timed? ?out", re.IGNORECASE)  # fmt: skip
#: git has no field for these, but one language (LC_ALL=C).
_UNAUTHORISED = re.compile(
    r"returned error: 40[13]\b|HTTP 40[13]\b|Authentication failed|could not read (?:Username|Password)|"
    r"Permission denied \(|Permission to \S+ denied", re.IGNORECASE)  # fmt: skip


class Move(NamedTuple):
    """One ref of a swap."""

    ref: str  # full name
    expected: str  # commit it must be at; "" : it must not exist
    new: str  # commit it shall be at; "" : it shall not exist


class Verdict(NamedTuple):
    """What became of a swap."""

    kind: str  # ok | lost | moved (a further ref, while the claim is still ours) | unknown | refused
    reason: str  # for people; "" when ok; begins with "auth" when the remote refused our credential
    seen: Mapping[str, str]  # ref -> commit ("" absent) as read again; empty when that was not needed or not possible
    ref: str = ""  # moved: which


class Seen(NamedTuple):
    """A claim as just read."""

    tip: str | None  # None: there is no claim ref
    record: ClaimRecord | Unreadable | None
    branch_tip: str | None  # of the work branch, at the same moment


class ClaimRefs:
    """A session with the claim refs of one repository."""

    def __init__(
        self,
        mirror: Mirror,
        remote: Remote,
        namespace: str = NAMESPACE,
        sleep: Callable[[float], None] = time.sleep,
        push_timeout_s: float = 120.0,
    ) -> None:
        self.mirror = mirror
        self.remote = remote
        self.namespace = namespace
        self._sleep = sleep
        self._push_timeout_s = push_timeout_s

    def ref(self, number: int) -> str:
        return f"{self.namespace}{number}"

    @staticmethod
    def branch_ref(number: int) -> str:
        return f"refs/heads/{rules.work_branch(number)}"

    def tips(self) -> dict[int, str]:
        """Every claim ref of the repository, in one request."""
        return self.survey("")[0]

    def survey(self, branch: str) -> tuple[dict[int, str], str | None]:
        """Every claim ref and the tip of `branch` (None: no such branch), in one request."""
        ref = f"refs/heads/{branch}"
        shown = git.ls_remote(self.remote, f"{self.namespace}*", *([ref] if branch else [])).refs
        names = {name.removeprefix(self.namespace): sha for name, sha in shown.items()}
        return {int(name): sha for name, sha in names.items() if _NUMBER.fullmatch(name)}, shown.get(ref)

    def read(self, number: int) -> Seen:
        """The claim and its work branch as they are now; the claim's commit is in the mirror afterwards."""
        self.mirror.ensure()
        ref, branch, path = self.ref(number), self.branch_ref(number), self.mirror.path
        tip = branch_tip = None
        for _ in range(_READS):  # again when it moved between the two requests, and not forward
            shown = git.ls_remote(self.remote, ref, branch).refs
            tip, branch_tip = shown.get(ref), shown.get(branch)
            if tip is None:
                return Seen(None, None, branch_tip)
            if not git.has_commit(path, tip):
                git.fetch(path, self.remote, ref)  # into no ref: concurrent firings would fight for its lock file
            if git.has_commit(path, tip):
                # Keeps the chain from a clean-up. Losing the race for this lock costs nothing: the winner keeps it.
                git.run("update-ref", f"{_SEEN}{number}", tip, git_dir=path, check=False)
                return Seen(tip, codec.parse(git.message_of(path, tip), number), branch_tip)
        return Seen(tip, Unreadable(f"{ref} does not lead to a commit"), branch_tip)

    def record_at(self, number: int, commit: str) -> ClaimRecord | None:
        """The record of a claim commit that lies in the mirror."""
        if not git.has_commit(self.mirror.path, commit):
            return None
        found = codec.parse(git.message_of(self.mirror.path, commit), number)
        return found if isinstance(found, ClaimRecord) else None

    def write(self, record: ClaimRecord, parent: str | None, head: str | None) -> str:
        """A claim commit in the mirror, not yet pushed; its id, which the ledger writes down before the swap.

        An empty tree; parents: the claim commit before it, then the work's head, so that the work cannot be collected.
        rules.IllegalMove when the record does not follow from its parent's.
        """
        self.mirror.ensure()
        path = self.mirror.path
        before = codec.parse(git.message_of(path, parent), record.number) if parent else None
        if not isinstance(before, Unreadable):  # a person's record is written over whatever stands there
            rules.follow(before, record)
        message = codec.render(record).decode("ascii")
        parents = [commit for commit in (parent, head) if commit]
        return git.commit_tree(path, git.hash_object(path, b"", "tree"), parents, message, _WHO, record.issued)

    def swap(self, *moves: Move) -> Verdict:
        """One atomic push of all moves, the claim's first. The verdict is what the refs, or the server, say."""
        self._check(moves)
        verdict = Verdict("unknown", "", {})
        for attempt in range(_TRIES):
            if attempt:
                self._sleep(_PAUSE_S)
            pushed = self._push(moves)
            if pushed.exit == 0 and all(move.ref in pushed.refs for move in moves):
                return Verdict("ok", "", {})
            verdict = self._judge(moves, pushed, first=attempt == 0)
            if verdict.kind != "unknown":
                break
        return verdict

    def _check(self, moves: tuple[Move, ...]) -> None:
        first = moves[0]
        if first.expected == first.new:
            raise ValueError(
                f"{first.ref} does not advance: git would leave it out of the push, and it would fence nothing"
            )
        work = [move.ref for move in moves if move.ref.startswith("refs/heads/")]
        if work and not first.ref.startswith(self.namespace):
            raise ValueError(f"a push to {work[0]} that is not fenced by a claim")

    def _push(self, moves: tuple[Move, ...]) -> Pushed:
        specs = [f"{move.new}:{move.ref}" for move in moves]
        leases = {move.ref: move.expected for move in moves}
        return git.push(self.mirror.path, self.remote, specs, leases, timeout_s=self._push_timeout_s)

    def _judge(self, moves: tuple[Move, ...], pushed: Pushed, *, first: bool) -> Verdict:
        """The verdict of a push that did not end cleanly."""
        said = _reason(pushed)
        unauthorised = bool(_UNAUTHORISED.search(pushed.stderr))
        try:
            shown = git.ls_remote(self.remote, *(move.ref for move in moves)).refs
        except GitError as error:
            if unauthorised and first:  # it was turned away at the door, and there was no earlier try
                return Verdict("refused", f"auth: {said}", {})
            return Verdict("unknown", f"{said}; and the refs could not be read again: {_last_line(error.stderr)}", {})
        seen = {move.ref: shown.get(move.ref, "") for move in moves}
        claim, others = moves[0], moves[1:]
        if seen[claim.ref] == claim.new:
            left = [m.ref for m in others if m.new != m.expected and seen[m.ref] == m.expected]
            if left:
                return Verdict("refused", f"the remote moved {claim.ref} and not {left[0]}: it is not atomic", seen)
            return Verdict("ok", "", seen)  # what else has moved since was moved after our transaction
        if seen[claim.ref] != claim.expected:
            return Verdict("lost", f"{claim.ref} is at {seen[claim.ref] or 'nothing'}", seen)
        for move in others:
            if seen[move.ref] != move.expected:
                there, expected = seen[move.ref] or "gone", move.expected or "absent"
                return Verdict("moved", f"{move.ref} is {there}, expected {expected}", seen, move.ref)
        if unauthorised:
            return Verdict("refused", f"auth: {said}", seen)
        if _refusals(pushed) or "does not support --atomic" in pushed.stderr:
            return Verdict("refused", said, seen)
        return Verdict("unknown", said, seen)


def _refusals(pushed: Pushed) -> list[str]:
    """What the server itself gave as reasons, and will give again."""
    given = []
    for status in pushed.refs.values():
        if status.flag == "!" and status.summary.startswith("[remote rejected]"):
            text = status.summary.removeprefix("[remote rejected]").strip().removeprefix("(").removesuffix(")")
            if text and not _PASSING.search(text):
                given.append(text)
    return given


def _reason(pushed: Pushed) -> str:
    """One line for people: the server's reasons, what it printed, else what git said last."""
    if pushed.exit is None:
        return "the push was not answered in time"
    printed = [
        line.removeprefix("remote:").strip() for line in pushed.stderr.splitlines() if line.startswith("remote:")
    ]
    rejected = [status.summary for status in pushed.refs.values() if status.flag == "!"]
    parts = _refusals(pushed) or rejected[:1]
    parts += [line for line in printed if line] or [_last_line(pushed.stderr)]
    return "; ".join(dict.fromkeys(part for part in parts if part))[:1000] or f"git push ended with {pushed.exit}"


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith(("fatal:", "error: RPC"))]  # the first is the cause
    return (fatal[:1] or lines[-1:] or [""])[0].strip()
