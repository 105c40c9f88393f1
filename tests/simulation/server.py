"""The model of a forge: issues, label events, comments, pull requests, and the git repository they are about.

It is the linearisation point of everything: each mutation is one line of `log`, which is what the invariants read.
Lists may be asked as they were a while ago; reads by number and refs are always of now, as GitHub's are as far as is
known. Timestamps are whole seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from simulation.world import EPOCH, World
from watchbill.claims import record as codec
from watchbill.claims.record import ClaimRecord
from watchbill.forge.base import Comment, Issue, LabelEvent, NotFound, Person, Pull, Refused

REPO = "acme/api"
REPO_ID = 7
CLAIMS = "refs/watchbill/claims/"
WORK = "refs/heads/watchbill/issue-"
PERSON = Person(1, "octocat", "User")
BOT = Person(9, "watchbill-bot", "Bot")
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


class Commit(NamedTuple):
    """An object."""

    tree: str
    parents: tuple[str, ...]
    message: str
    ours: bool  # False: a person made it


class Entry(NamedTuple):
    """One thing that happened, in the order of the server."""

    at: float
    kind: str
    number: int  # the issue it is about; 0: none
    by: Any  # the Proc that asked, None for a person
    facts: dict[str, Any]


class _Issue:
    def __init__(self, number: int, title: str) -> None:
        self.number = number
        self.title = title
        self.body = "It is broken."
        self.state = "open"
        self.labels: list[str] = []
        self.events: list[tuple[LabelEvent, bool, float]] = []  # event, by a person, when
        self.comments: list[Comment] = []
        self.updated = 0.0


class Server:
    """One repository."""

    def __init__(self, world: World, account: Person) -> None:
        self.world = world
        self.account = account  # whom the fleet acts as
        self.issues: dict[int, _Issue] = {}
        self.pulls: dict[int, Pull] = {}
        self.refs: dict[str, str] = {}
        self.commits: dict[str, Commit] = {}
        self.log: list[Entry] = []
        self.listeners: list[Callable[[Entry], None]] = []
        self._past: list[tuple[float, tuple[Issue, ...], tuple[Pull, ...]]] = []
        self._numbers = 0
        self._events = 1000
        self._comments = 5000
        first = self.commit("base-tree", (), "first\n", ours=False)
        self.refs["refs/heads/main"] = first

    @property
    def seconds(self) -> int:
        return int(EPOCH + self.world.now)

    def happened(self, kind: str, number: int, by: Any, **facts: Any) -> None:
        entry = Entry(self.world.now, kind, number, by, facts)
        self.log.append(entry)
        if self.world.trace is not None:
            who = by.name if by is not None else "(person)"
            told = " ".join(f"{key}={short(value)}" for key, value in facts.items())
            self.world.say("SERVER", f"{kind} #{number} by {who} {told}")
        for listener in self.listeners:
            listener(entry)

    # Issues

    def open_issue(self, title: str) -> int:
        self._numbers += 1
        self.issues[self._numbers] = _Issue(self._numbers, title)
        self._changed(self.issues[self._numbers])
        return self._numbers

    def _changed(self, issue: _Issue | None = None) -> None:
        if issue is not None:
            issue.updated = self.world.now
        listed = tuple(self.issue(number) for number in self.issues)
        self._past.append((self.world.now, listed, tuple(self.pulls.values())))

    def issue(self, number: int) -> Issue:
        """As read by number, just now. A pull request is an issue too."""
        found = self.issues.get(number)
        if found is None:
            pull = self.pulls.get(number)
            if pull is None:
                raise NotFound(f"no issue {number}", 404)
            return Issue(
                number, pull.title, pull.body, pull.state, (), pull.author, "MEMBER", 0, 0, 0, pull.url, False, True
            )
        return Issue(
            number,
            found.title,
            found.body,
            found.state,
            tuple(found.labels),
            PERSON,
            "MEMBER",
            len(found.comments),
            int(EPOCH),
            int(EPOCH + found.updated),
            f"https://forge/{number}",
            False,
            False,
        )

    def past(self, ago_s: float) -> tuple[tuple[Issue, ...], tuple[Pull, ...]]:
        """Issues and pull requests as they were so long ago."""
        when = self.world.now - ago_s
        for at, issues, pulls in reversed(self._past):
            if at <= when:
                return issues, pulls
        return (), ()

    def label(self, number: int, names: tuple[str, ...], actor: Person, by: Any) -> None:
        issue = self.issues.get(number)
        if issue is None:
            return  # of a pull request: nothing here looks at those
        for name in names:
            if name not in issue.labels:
                issue.labels.append(name)
                self._labelled(issue, name, True, actor, by)

    def unlabel(self, number: int, name: str, actor: Person, by: Any) -> None:
        issue = self.issues.get(number)
        if issue is not None and name in issue.labels:
            issue.labels.remove(name)
            self._labelled(issue, name, False, actor, by)

    def _labelled(self, issue: _Issue, name: str, added: bool, actor: Person, by: Any) -> None:
        self._events += 1
        event = LabelEvent(self._events, name, added, actor, self.seconds)
        issue.events.append((event, by is None, self.world.now))
        self._changed(issue)
        self.happened("labelled" if added else "unlabelled", issue.number, by, label=name)

    def label_events(self, number: int, ago_s: float) -> tuple[LabelEvent, ...]:
        when = self.world.now - ago_s
        found = self.issues.get(number)
        return tuple(event for event, _, at in found.events if at <= when) if found else ()

    def set_state(self, number: int, state: str, by: Any) -> None:
        issue = self.issues[number]
        if issue.state != state:
            issue.state = state
            self._changed(issue)
            self.happened("closed" if state == "closed" else "reopened", number, by)

    def comment(self, number: int, body: str, actor: Person, by: Any) -> Comment:
        self._comments += 1
        made = Comment(self._comments, actor, "MEMBER", body, self.seconds, self.seconds)
        if number in self.issues:
            self.issues[number].comments.append(made)
        self.happened("commented", number, by)
        return made

    def edit_comment(self, number: int, id: int, body: str, actor: Person) -> Comment:
        comments = self.issues[number].comments if number in self.issues else []
        for at, old in enumerate(comments):
            if old.id == id:
                comments[at] = old._replace(body=body, updated_at=self.seconds)
                return comments[at]
        raise NotFound(f"no comment {id} of {actor.login}", 404)

    def comments(self, number: int, ago_s: float) -> tuple[Comment, ...]:
        when = int(EPOCH + self.world.now - ago_s)
        return tuple(c for c in self.issues[number].comments if c.created_at <= when) if number in self.issues else ()

    # Pull requests

    def create_pull(self, head: str, base: str, title: str, body: str, draft: bool, actor: Person, by: Any) -> Pull:
        tip = self.refs.get(f"refs/heads/{head}")
        if tip is None or f"refs/heads/{base}" not in self.refs:
            raise Refused("422 head invalid", 422)
        if any(p.head_ref == head and p.state == "open" for p in self.pulls.values()):
            raise Refused(f"422 A pull request already exists for acme:{head}", 422)
        if self.is_ancestor(tip, self.refs[f"refs/heads/{base}"]):
            raise Refused(f"422 No commits between {base} and {head}", 422)
        self._numbers += 1
        number = self._numbers
        pull = Pull(
            number, head, tip, REPO_ID, base, "open", False, draft, title, body, actor, f"https://forge/{number}"
        )
        self.pulls[number] = pull
        self._changed()
        self.happened("pull opened", issue_of(f"refs/heads/{head}"), by, pull=number, head=tip)
        return pull

    def close_pull(self, number: int, by: Any, why: str = "") -> None:
        pull = self.pulls[number]
        if pull.state == "open":
            self.pulls[number] = pull._replace(state="closed")
            self._changed()
            self.happened("pull closed", issue_of(f"refs/heads/{pull.head_ref}"), by, pull=number, why=why)

    def reopen_pull(self, number: int, by: Any) -> bool:
        """Only while its branch is as it was, and no other pull request is open for it."""
        pull = self.pulls[number]
        taken = any(p.head_ref == pull.head_ref and p.state == "open" for p in self.pulls.values())
        if (
            pull.merged
            or pull.state == "open"
            or taken
            or self.refs.get(f"refs/heads/{pull.head_ref}") != pull.head_sha
        ):
            return False
        self.pulls[number] = pull._replace(state="open")
        self._changed()
        self.happened("pull reopened", issue_of(f"refs/heads/{pull.head_ref}"), by, pull=number)
        return True

    def merge_pull(self, number: int, squash: bool, delete_branch: bool) -> bool:
        """By a person; what the pull request closes is closed with it."""
        pull = self.pulls[number]
        if pull.state != "open":
            return False
        main, ref = "refs/heads/main", f"refs/heads/{pull.head_ref}"
        parents = (self.refs[main],) if squash else (self.refs[main], pull.head_sha)
        self.refs[main] = self.commit(f"merged-{number}", parents, f"merge {number}\n", ours=False)
        self.pulls[number] = pull._replace(state="closed", merged=True)
        self._changed()
        issue = issue_of(ref)
        self.happened("pull merged", issue, None, pull=number)
        if issue in self.issues:
            self.set_state(issue, "closed", None)
        if delete_branch and ref in self.refs:
            self._move(ref, "", None)
        return True

    # git

    def commit(self, tree: str, parents: tuple[str, ...], message: str, *, ours: bool, salt: str = "") -> str:
        """Equal commits are one commit."""
        sha = hashlib.sha1(f"{tree}\0{parents}\0{message}\0{salt}".encode()).hexdigest()
        self.commits.setdefault(sha, Commit(tree, parents, message, ours))
        return sha

    def is_ancestor(self, old: str, new: str) -> bool:
        todo, seen = [new], set()
        while todo:
            sha = todo.pop()
            if sha == old:
                return True
            if sha not in seen:
                seen.add(sha)
                todo += self.commits[sha].parents
        return False

    def update(self, commands: Mapping[str, tuple[str, str]], by: Any) -> dict[str, str] | None:
        """ref -> (old, new) as a client sent them, all or nothing. None: done; else why not, by ref."""
        wrong = {
            ref: "incorrect old value provided" for ref, (old, _) in commands.items() if self.refs.get(ref, "") != old
        }
        if wrong:
            return {ref: wrong.get(ref, "atomic transaction failed") for ref in commands}
        for ref, (_, new) in commands.items():
            self._move(ref, new, by, {ref: new for ref, (_, new) in commands.items()})
        return None

    def push_by_person(self, branch: str) -> None:
        """One more commit on a branch, or a first one."""
        ref = f"refs/heads/{branch}"
        parent = self.refs.get(ref) or self.refs["refs/heads/main"]
        self._move(ref, self.commit(f"by-hand-{self.world.now}", (parent,), "by hand\n", ours=False), None)

    def _move(self, ref: str, new: str, by: Any, together: Mapping[str, str] | None = None) -> None:
        old = self.refs.get(ref, "")
        if new:
            self.refs[ref] = new
        else:
            self.refs.pop(ref, None)
        number = issue_of(ref)
        if ref.startswith(CLAIMS):
            said = codec.parse(self.commits[new].message) if new else None
            record = said if isinstance(said, ClaimRecord) else None
            self.happened("claim", number, by, old=old, new=new, record=record)
        elif ref.startswith(WORK):
            kept = together is not None and any(r != ref and sha == old for r, sha in together.items())
            self.happened("branch", number, by, ref=ref, old=old, new=new, kept=kept)
            self._follow(ref, new, by)
        else:
            self.happened("ref", number, by, ref=ref, new=new)

    def _follow(self, ref: str, new: str, by: Any) -> None:
        """Open pull requests follow their branch, and close when it goes."""
        for number, pull in list(self.pulls.items()):
            if pull.state == "open" and f"refs/heads/{pull.head_ref}" == ref:
                if new:
                    self.pulls[number] = pull._replace(head_sha=new)
                    self._changed()
                else:
                    self.close_pull(number, by, "its branch is gone")

    def claim_of(self, number: int) -> ClaimRecord | None:
        tip = self.refs.get(f"{CLAIMS}{number}")
        said = codec.parse(self.commits[tip].message, number) if tip else None
        return said if isinstance(said, ClaimRecord) else None

    def pulls_of(self, number: int) -> list[Pull]:
        return [p for p in self.pulls.values() if issue_of(f"refs/heads/{p.head_ref}") == number]


def issue_of(ref: str) -> int:
    """Which issue a claim ref or a work branch is about; 0: none."""
    for prefix in (CLAIMS, WORK):
        if ref.startswith(prefix):
            digits = ref.removeprefix(prefix).partition("-")[0]
            return int(digits) if digits.isdecimal() else 0
    if ref.startswith(("refs/watchbill/wip/", "refs/watchbill/kept/")):
        digits = ref.split("/")[3]
        return int(digits) if digits.isdecimal() else 0
    return 0


def short(value: Any) -> str:
    """For traces."""
    if isinstance(value, ClaimRecord):
        more = f" pr={value.pr}" if value.pr else ""
        out = f"({value.outcome})" if value.outcome else ""
        owner = f"{value.firing[-4:]}@{value.host}"
        return f"g{value.generation}.{value.sequence} {value.state}{out}{more} try {value.attempt} of {owner}"
    text = str(value)
    return text[:8] if len(text) == 40 else text[:60]
