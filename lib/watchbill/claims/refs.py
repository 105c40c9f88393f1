"""Claim refs in the repository itself: read, written, and moved by compare-and-swap (DESIGN section 6).

A push that did not end cleanly is not an answer. The refs are read again, and only what they say, or the server's own
reason, makes a verdict; a network error is never a loss and never a win.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from watchbill import git
from watchbill.claims import hold, rules
from watchbill.claims import record as codec
from watchbill.claims.hold import HoldRecord
from watchbill.claims.record import ClaimRecord, Unreadable
from watchbill.errors import Fixable
from watchbill.git import GitError, Identity, Pushed, Remote
from watchbill.mirror import Mirror

NAMESPACE = "refs/watchbill/claims/"
#: Where the namespace is refused: `[repo."..."] claims = "refs/heads"`.
FALLBACK_NAMESPACE = "refs/heads/watchbill/claims/"
_BRANCHES = f"refs/heads/{rules.work_branch(0).removesuffix('0')}"
_SETTING = {NAMESPACE: "refs/watchbill", FALLBACK_NAMESPACE: "refs/heads"}
_SEEN = "refs/watchbill/seen/"
_WHO = Identity("watchbill", "watchbill@watchbill.invalid")
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")  # decimal, no padding: one issue, one name
_READS = 3
_HOLD_S = 20.0  # to fetch one commit without a parent
#: Before a push without a clear answer is made once more.
_PAUSES_S = (0.5,)
#: After a bare `(failed)`: GitHub says it when several refs of a repository are pushed within seconds.
_BUSY_PAUSES_S = (2.0, 5.0, 10.0)
#: Rejections that say "not now" (another push at the same moment) and not "never". The rest is the server's reason.
_PASSING = re.compile(
    r"stale info|atomic|already exists|incorrect old value|failed to (?:update ref|lock)|(?:cannot|unable to) lock|"
    r"remote failed to report|fetch first|^failed$|transaction failed|permanent storage|internal (?:server )?error|"
    r"timed? ?out|unpacker error", re.IGNORECASE)  # fmt: skip
#: git has no field for these, but one language (LC_ALL=C).
_UNAUTHORISED = re.compile(
    r"returned error: 40[13]\b|HTTP 40[13]\b|Authentication failed|could not read (?:Username|Password)|"
    r"Permission denied \(|Permission to \S+ denied|Host key verification failed", re.IGNORECASE)  # fmt: skip
#: What makes an `unpacker error`, which may also be a full disk or a pack cut short, the server's answer for good.
_UNFIT = re.compile(
    r"exceeds maximum allowed size|fsck error in pack|returned error: 413\b|HTTP 413\b|"
    r"^remote: error: object [0-9a-f]+: \w+:", re.IGNORECASE | re.MULTILINE)  # fmt: skip
_NOT_HERE = re.compile(r"hidden ref|outside refs/heads|funny refname", re.IGNORECASE)
#: The credential was let in, as git asked for the refs, and what was then sent was turned away without a reason.
_TURNED_DOWN = re.compile(r"RPC failed; HTTP 403\b")
#: What git says after every failure, whatever the cause.
_EMPTY_WORDS = ("fatal: the remote end hung up", "fatal: Could not read from remote", "error: failed to push some refs",
                "Please make sure you have the correct", "and the repository exists", "send-pack: unexpected disc",
                "error: remote unpack failed")  # fmt: skip


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
    wip_tip: str | None = None  # of work in progress that a stopped firing left, at the same moment
    hold_tip: str | None = None  # of the stop that stands in this repository, at the same moment


class Survey(NamedTuple):
    """What one look at a repository's refs shows."""

    claims: dict[int, str]  # number -> tip of its claim ref
    base: str | None  # tip of the branch that was asked for; None: no such branch
    hold_tip: str | None  # of the stop; None: none stands here


class ClaimRefs:
    """A session with the claim refs of one repository."""

    def __init__(
        self,
        mirror: Mirror,
        remote: Remote,
        namespace: str = NAMESPACE,
        sleep: Callable[[float], None] = time.sleep,
        push_timeout_s: float = 120.0,
        pace: Callable[[], None] = lambda: None,
        patient: bool = True,
    ) -> None:
        self.mirror = mirror
        self.remote = remote
        self.namespace = namespace
        self._sleep = sleep
        self._push_timeout_s = push_timeout_s
        self._pace = pace  # called before each push; returns when it may be made
        self._patient = patient  # is a push without a clear answer made again?

    def ref(self, number: int) -> str:
        return f"{self.namespace}{number}"

    def wip_ref(self, number: int) -> str:
        """Where work in progress of a firing that was stopped waits for the next generation."""
        return f"{self._own}wip/{number}"

    def kept_ref(self, number: int, generation: int) -> str:
        """Where the work branch of a generation goes that a person, or GitHub, has ended."""
        return f"{self._own}kept/{number}/g{generation}"

    @property
    def hold_ref(self) -> str:
        """Where a stop stands for every host to read."""
        return hold_ref(self.namespace)

    @staticmethod
    def branch_ref(number: int) -> str:
        return f"refs/heads/{rules.work_branch(number)}"

    @property
    def _own(self) -> str:
        """What claims, work in progress and kept work have in common."""
        return self.namespace.removesuffix("claims/")

    @property
    def _other(self) -> str:
        """The claims of a host with the other setting."""
        return NAMESPACE if self.namespace == FALLBACK_NAMESPACE else FALLBACK_NAMESPACE

    def tips(self) -> dict[int, str]:
        """Every claim ref of the repository, in one request."""
        return self.survey("").claims

    def survey(self, branch: str) -> Survey:
        """Every claim ref, the tip of `branch` and the stop, if one stands here; in one request."""
        ref = f"refs/heads/{branch}"
        shown = self._listed(f"{self.namespace}*", f"{self._other}*", self.hold_ref, *([ref] if branch else []))
        return Survey(_numbered(shown, self.namespace), shown.get(ref), shown.get(self.hold_ref))

    def hold_tip(self) -> str | None:
        """The stop that stands here; None: none. GitError when the repository does not answer."""
        return git.ls_remote(self.remote, self.hold_ref).refs.get(self.hold_ref)

    def hold_at(self, tip: str) -> HoldRecord | Unreadable:
        """What the commit at the hold ref says; a commit that cannot be had makes no sense either."""
        path = self.mirror.path
        try:
            self.mirror.ensure()
            if not git.has_commit(path, tip):
                git.fetch(path, self.remote, self.hold_ref, timeout_s=_HOLD_S)
            if git.has_commit(path, tip):
                return hold.parse(git.message_of(path, tip))
        except GitError as error:
            return Unreadable(_last_line(error.stderr) or "it could not be read")
        return Unreadable(f"{self.hold_ref} does not lead to a commit")

    def read(self, number: int) -> Seen:
        """The claim, its work branch and work in progress as they are now; the claim's commit is in the mirror then."""
        self.mirror.ensure()
        ref, branch, wip, path = self.ref(number), self.branch_ref(number), self.wip_ref(number), self.mirror.path
        tip = None
        around: tuple[str | None, str | None, str | None] = (None, None, None)
        for _ in range(_READS):  # again when it moved between the two requests, and not forward
            shown = self._listed(ref, f"{self._other}{number}", branch, wip, self.hold_ref)
            tip, around = shown.get(ref), (shown.get(branch), shown.get(wip), shown.get(self.hold_ref))
            if tip is None:
                return Seen(None, None, *around)
            if not git.has_commit(path, tip):
                git.fetch(path, self.remote, ref)  # into no ref: concurrent firings would fight for its lock file
            if git.has_commit(path, tip):
                # Keeps the chain from a clean-up. Losing the race for this lock costs nothing: the winner keeps it.
                git.run("update-ref", f"{_SEEN}{number}", tip, git_dir=path, check=False)
                return Seen(tip, codec.parse(git.message_of(path, tip), number), *around)
        return Seen(tip, Unreadable(f"{ref} does not lead to a commit"), *around)

    def records(self, numbers: Iterable[int] | None = None) -> dict[int, Seen]:
        """Every claim, or those of `numbers` that there are, as at one moment; all in one listing and one fetch.

        A claim that moved between the two, and not forward, is read again by itself.
        """
        self.mirror.ensure()
        wanted = None if numbers is None else set(numbers)
        shown = self._listed(f"{self.namespace}*", f"{self._other}*", f"{_BRANCHES}*", f"{self._own}wip/*")
        found = _numbered(shown, self.namespace)
        tips = {number: tip for number, tip in sorted(found.items()) if wanted is None or number in wanted}
        messages = self._messages(tips)
        self._keep({number: tip for number, tip in tips.items() if tip in messages})
        seen = {}
        for number, tip in tips.items():
            if tip not in messages:
                seen[number] = self.read(number)
                continue
            record = codec.parse(messages[tip], number)
            seen[number] = Seen(tip, record, shown.get(self.branch_ref(number)), shown.get(self.wip_ref(number)))
        return {number: claim for number, claim in seen.items() if claim.tip is not None}

    def _messages(self, tips: Mapping[int, str]) -> dict[str, bytes]:
        """Claim commit -> its message, of those that are in the mirror after at most one fetch."""
        path = self.mirror.path
        here = git.messages(path, tips.values())
        missing = {number: tip for number, tip in tips.items() if tip not in here}
        if missing:
            # It fails as a whole when one ref is gone by now: then each is read by itself, and says what is wrong.
            with contextlib.suppress(GitError):
                git.fetch(path, self.remote, *(self.ref(number) for number in missing))
            here |= git.messages(path, missing.values())
        return here

    def _keep(self, tips: Mapping[int, str]) -> None:
        """Keep the chains from a clean-up, as `read` does; a lost race for a lock costs nothing."""
        path = self.mirror.path
        kept = git.refs(path, _SEEN)
        lines = [f"update {_SEEN}{n} {tip}\n" for n, tip in tips.items() if kept.get(f"{_SEEN}{n}") != tip]
        if lines:
            git.run("update-ref", "--stdin", git_dir=path, stdin="".join(lines).encode(), check=False)

    def history(self, number: int) -> list[tuple[str, ClaimRecord | Unreadable]]:
        """The issue's claim commits by first parents, newest first; [] when there is no claim."""
        seen = self.read(number)
        if seen.tip is None:
            return []
        path = self.mirror.path
        if not git.has_commit(path, seen.tip):
            return [(seen.tip, Unreadable(f"{self.ref(number)} does not lead to a commit"))]
        empty = git.hash_object(path, b"", "tree")
        chain = []
        for line in git.run("log", "--first-parent", "--format=%H %T", seen.tip, git_dir=path).text.splitlines():
            commit, _, tree = line.partition(" ")
            chain.append(commit)
            if tree != empty:  # somebody's work, put where a claim belongs: what lies behind it is no claim of ours
                break
        said = git.messages(path, chain)
        return [(commit, codec.parse(said.get(commit, b""), number)) for commit in chain]

    def _listed(self, *patterns: str) -> dict[str, str]:
        """Refs of the remote; Fixable when claims lie where a host with another setting puts them."""
        shown = git.ls_remote(self.remote, *patterns).refs
        astray = _numbered(shown, self._other)
        if astray:
            which = f"#{min(astray)}" + (f" and {len(astray) - 1} more" if len(astray) > 1 else "")
            mine, theirs = (_SETTING[space] for space in (self.namespace, self._other))
            raise Fixable(
                "WB-CLAIM-02",
                f"{self.remote.url} has the claim of {which} below {self._other}, and ours are below {self.namespace}",
                why="another host has another setting, or it was changed; with both, an issue could have two owners",
                fix=f'give every host [repo."..."] claims = "{theirs}"; or, if all have "{mine}" and nothing runs, '
                f"delete the refs below {self._other}",
            )
        return shown

    def published(self, number: int, commit: str) -> bool:
        """Whether some generation of the claim has pushed this very commit as its work."""
        return any(isinstance(record, ClaimRecord) and record.head == commit for _, record in self.history(number))

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
        for attempt in itertools.count():
            pushed = self._push(moves)
            if pushed.exit == 0 and all(move.ref in pushed.refs for move in moves if move.expected or move.new):
                return Verdict("ok", "", {})
            verdict = self._judge(moves, pushed, first=attempt == 0)
            pauses = _BUSY_PAUSES_S if _is_busy(pushed) else _PAUSES_S
            if verdict.kind != "unknown" or attempt >= len(pauses) or not self._patient:
                return verdict
            # By up to a half shorter or longer, as the commit's id has it: those who collided part.
            self._sleep(pauses[attempt] * (0.5 + int((moves[0].new or moves[0].expected)[:4], 16) / 0xFFFF))
        raise AssertionError

    def _check(self, moves: tuple[Move, ...]) -> None:
        first = moves[0]
        if first.expected == first.new:
            raise ValueError(
                f"{first.ref} does not advance: git would leave it out of the push, and it would fence nothing"
            )
        work = [m.ref for m in moves if m.ref.startswith("refs/heads/") and not m.ref.startswith(self._own)]
        if work and not first.ref.startswith(self.namespace):
            raise ValueError(f"a push to {work[0]} that is not fenced by a claim")

    def _push(self, moves: tuple[Move, ...]) -> Pushed:
        made = [move for move in moves if move.expected or move.new]  # git calls deleting what is not there an error
        specs = [f"{move.new}:{move.ref}" for move in made]
        leases = {move.ref: move.expected for move in made}
        self._pace()
        return git.push(self.mirror.path, self.remote, specs, leases, timeout_s=self._push_timeout_s)

    def _judge(self, moves: tuple[Move, ...], pushed: Pushed, *, first: bool) -> Verdict:
        """The verdict of a push that did not end cleanly."""
        said, refusal = _reason(pushed), self._refusal(moves, pushed)
        try:
            shown = git.ls_remote(self.remote, *(move.ref for move in moves)).refs
        except GitError as error:
            if refusal.startswith("auth") and first:  # turned away at the door, and there was no earlier try
                return Verdict("refused", refusal, {})
            return Verdict("unknown", f"{said}; and the refs could not be read again: {_last_line(error.stderr)}", {})
        seen = {move.ref: shown.get(move.ref, "") for move in moves}
        claim, others = moves[0], moves[1:]
        if seen[claim.ref] == claim.new:
            left = [m.ref for m in others if m.new != m.expected and seen[m.ref] == m.expected]
            if left:
                return Verdict("refused", f"the remote moved {claim.ref} and not {left[0]}: it is not atomic", seen)
            return Verdict("ok", "", seen)  # what else has moved since was moved after our transaction
        if seen[claim.ref] != claim.expected:
            there = f"at {seen[claim.ref]}" if seen[claim.ref] else "gone: deleted, or hidden by the server"
            return Verdict("lost", f"{claim.ref} is {there}", seen)
        for move in others:
            if seen[move.ref] != move.expected:
                there, expected = seen[move.ref] or "gone", move.expected or "absent"
                return Verdict("moved", f"{move.ref} is {there}, expected {expected}", seen, move.ref)
        if refusal:
            return Verdict("refused", refusal, seen)
        if "[rejected] (stale info)" in said:
            said = f"the server shows {claim.ref} to readers and not to pushes: a copy is behind, or it is hidden"
        return Verdict("unknown", said, seen)

    def _refusal(self, moves: tuple[Move, ...], pushed: Pushed) -> str:
        """Why the server will not take this push the next time either; "" when it did not say so."""
        said = _reason(pushed)
        gits = "\n".join(line for line in pushed.stderr.splitlines() if not line.startswith("remote:"))
        turned_down = bool(_TURNED_DOWN.search(gits))
        if _UNAUTHORISED.search(gits) and not turned_down:  # git's own words: those of a hook are not
            return f"auth: {said}"
        own = [move.ref for move in moves if move.ref.startswith(self._own) and not move.ref.startswith("refs/heads/")]
        if own and (turned_down or any(_NOT_HERE.search(text) for text in _refusals(pushed))):
            return f'{said}; if it takes branches only, give every host [repo."..."] claims = "refs/heads"'
        final = turned_down or _refusals(pushed) or _UNFIT.search(pushed.stderr)
        return said if final or "does not support --atomic" in gits else ""


def namespace_of(setting: str) -> str:
    """Where claims are by the `claims` setting of a repository."""
    return next(space for space, said in _SETTING.items() if said == setting)


def hold_ref(namespace: str) -> str:
    """Where a stop stands, beside the claims of a namespace."""
    return f"{namespace.removesuffix('claims/')}hold"


def _numbered(shown: Mapping[str, str], namespace: str) -> dict[int, str]:
    """The claims among listed refs: only decimal numbers are, as people write them."""
    names = {name.removeprefix(namespace): sha for name, sha in shown.items() if name.startswith(namespace)}
    return {int(name): sha for name, sha in names.items() if _NUMBER.fullmatch(name)}


def _refusals(pushed: Pushed) -> list[str]:
    """What the server itself gave as reasons, and will give again."""
    given = []
    for status in pushed.refs.values():
        if status.flag == "!" and status.summary.startswith("[remote rejected]"):
            text = status.summary.removeprefix("[remote rejected]").strip().removeprefix("(").removesuffix(")")
            if text and not _PASSING.search(text):
                given.append(text)
    return given


def _is_busy(pushed: Pushed) -> bool:
    """Did the server say no more than that it failed?"""
    return any(status.summary == "[remote rejected] (failed)" for status in pushed.refs.values())


def _reason(pushed: Pushed) -> str:
    """One line for people: the server's reasons, what it printed, else what git said last."""
    if pushed.exit is None:
        return "the push was not answered in time"
    printed = [
        line.removeprefix("remote:").strip() for line in pushed.stderr.splitlines() if line.startswith("remote:")
    ]
    rejected = [status.summary for status in pushed.refs.values() if status.flag == "!"]
    parts = _refusals(pushed) or rejected[:1]
    parts += [line for line in printed if line] or ([] if parts else [_last_line(pushed.stderr)])
    return "; ".join(dict.fromkeys(part for part in parts if part))[:1000] or f"git push ended with {pushed.exit}"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(_EMPTY_WORDS)] or lines
    causes = [line for line in told if line.startswith(("fatal:", "ERROR:", "error: RPC"))]  # the first is the cause
    return (causes[:1] or told[-1:] or [""])[0]
