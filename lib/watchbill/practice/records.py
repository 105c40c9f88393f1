"""What the practice forge knows, as frozen records: one `State` is the whole forge at one moment.

A state is never changed, only followed by another one, so that an old one can still be asked (the stale reads of the
fault plan) and a test may keep one. The dicts below are by agreement never written to after they were made.
Times are UTC epoch seconds, whole ones: GitHub's timestamps have no finer resolution.
"""

from __future__ import annotations

from typing import NamedTuple

#: What a login may do in a repository, weakest first (GitHub's repository roles).
ROLES = ("none", "read", "triage", "write", "maintain", "admin")


class User(NamedTuple):
    """An account."""

    id: int
    login: str
    token: str  # "" for an account nobody can act as
    kind: str  # "User" | "Bot" | "Organization"


class Label(NamedTuple):
    """A label of a repository."""

    id: int
    name: str
    color: str  # six hexadecimal digits, no "#"
    description: str | None


class Pull(NamedTuple):
    """What a pull request has beyond being an issue."""

    id: int
    head_ref: str  # branch name in the same repository
    head_sha: str  # as last seen in the bare repository; stays when the pull request is closed
    base_ref: str
    base_sha: str  # as last seen
    draft: bool
    merged_at: int | None
    merged_by: str | None  # login
    merge_sha: str | None


class Issue(NamedTuple):
    """An issue; a pull request is one with `pull` set, and shares the row of numbers."""

    id: int
    number: int
    title: str
    body: str | None
    state: str  # "open" | "closed"
    state_reason: str | None  # "completed" | "not_planned" | "reopened"
    labels: tuple[str, ...]  # names, in the order they were put on
    author: str  # login
    created_at: int
    updated_at: int
    closed_at: int | None
    closed_by: str | None  # login
    locked: bool
    pull: Pull | None


class Comment(NamedTuple):
    """A comment on an issue."""

    id: int
    number: int  # of the issue
    author: str  # login
    body: str
    created_at: int
    updated_at: int


class Event(NamedTuple):
    """One line of an issue's event log."""

    id: int  # increasing over the whole forge
    number: int  # of the issue
    kind: str  # "labeled" | "unlabeled" | "closed" | "reopened" | "renamed" | "merged"
    actor: str  # login
    at: int
    label: str | None  # for labeled and unlabeled
    renamed: tuple[str, str] | None  # for renamed: from, to
    commit: str | None  # for merged


class Status(NamedTuple):
    """A commit status."""

    id: int
    sha: str
    state: str  # "error" | "failure" | "pending" | "success"
    context: str
    description: str | None
    target_url: str | None
    creator: str  # login
    at: int


class Repo(NamedTuple):
    """A repository: everything but its git side, which is the bare repository at `git`."""

    id: int
    full_name: str
    git: str  # absolute path of the bare repository
    private: bool  # True: only those with a role see it
    archived: bool
    has_issues: bool
    created_at: int
    roles: dict[str, str]  # lower-case login -> one of ROLES
    labels: dict[str, Label]  # by lower-case name: GitHub does not tell cases apart
    issues: dict[int, Issue]  # by number, ascending
    comments: dict[int, Comment]  # by id, ascending
    events: tuple[Event, ...]  # oldest first
    statuses: tuple[Status, ...]  # oldest first


class State(NamedTuple):
    """The whole forge at one moment."""

    writes: int  # how many changes came before
    next_id: int  # one row of ids for everything
    users: dict[str, User]  # by lower-case login
    repos: dict[int, Repo]  # by id


def role_of(repo: Repo, login: str | None) -> str:
    """A login's role; everybody, also nobody in particular (None), may read a public repository."""
    listed = repo.roles.get(login.lower()) if login else None
    return listed or ("none" if repo.private else "read")


def allows(role: str, needed: str) -> bool:
    """Is `role` at least `needed`?"""
    return ROLES.index(role) >= ROLES.index(needed)


def find_repo(state: State, full_name: str) -> Repo | None:
    """By name, whatever its case."""
    wanted = full_name.lower()
    return next((repo for repo in state.repos.values() if repo.full_name.lower() == wanted), None)
