"""What Watchbill asks of a forge: three small Protocols and the records that travel through them.

A read that failed is never an answer: it raises one of the errors below, so that "the forge is down" and "there are
no issues" can never be the same value.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Person(NamedTuple):
    """An account."""

    id: int  # numeric and permanent; logins change
    login: str
    kind: str  # "User" | "Bot" | "Organization"


class Issue(NamedTuple):
    """An issue (or a pull request seen as one) as last read."""

    number: int
    title: str
    body: str  # "" when absent
    state: str  # "open" | "closed"
    labels: tuple[str, ...]
    author: Person
    association: str  # author_association: OWNER, MEMBER, COLLABORATOR, CONTRIBUTOR, NONE, ...
    comments: int  # how many there are
    created_at: int  # UTC epoch seconds
    updated_at: int
    url: str  # html_url
    locked: bool
    is_pull: bool


class Comment(NamedTuple):
    """A comment on an issue."""

    id: int
    author: Person
    association: str
    body: str
    created_at: int
    updated_at: int


class LabelEvent(NamedTuple):
    """A label put on or taken off, as the forge's event log has it."""

    id: int  # increasing within an issue
    label: str
    added: bool
    actor: Person
    at: int


class Pull(NamedTuple):
    """A pull request."""

    number: int
    head_ref: str  # branch name without refs/heads/
    head_sha: str
    head_repo_id: int | None  # None when the fork is gone
    base_ref: str
    state: str  # "open" | "closed"
    merged: bool
    draft: bool
    title: str
    body: str
    author: Person
    url: str


class RepositoryFacts(NamedTuple):
    """A repository; `id` keys every row of the ledger, since names change."""

    id: int
    full_name: str
    default_branch: str
    archived: bool
    has_issues: bool
    can_push: bool  # may the account we act as write contents


class Listing(NamedTuple):
    """The answer to a conditional list."""

    issues: tuple[Issue, ...] | None  # None: not modified since `validator`
    validator: str | None  # ETag to send next time
    calls: int  # requests it took


class Issues(Protocol):
    """Issues, their labels and comments. `repo` is a full name, "acme/api"."""

    def listed(self, repo: str, label: str, validator: str | None, *, closed: bool = False) -> Listing:
        """Open issues with a label, oldest first, pull requests left out; with `closed` the closed ones too."""

    def read(self, repo: str, number: int) -> Issue: ...

    def comments(self, repo: str, number: int) -> tuple[Comment, ...]: ...

    def label_events(self, repo: str, number: int) -> tuple[LabelEvent, ...]:
        """Every labeled and unlabeled event, oldest first."""

    def add_labels(self, repo: str, number: int, labels: tuple[str, ...]) -> None: ...

    def remove_label(self, repo: str, number: int, label: str) -> None:
        """A label that is not there is already removed: no error."""

    def comment(self, repo: str, number: int, body: str) -> Comment: ...

    def edit_comment(self, repo: str, comment_id: int, number: int, body: str) -> Comment: ...


class Pulls(Protocol):
    """Pull requests."""

    def by_head(self, repo: str, branch: str) -> tuple[Pull, ...]:
        """All, open or closed, over every base, whose head is `branch` of this same repository; newest first."""

    def open_from(self, repo: str, prefix: str) -> tuple[Pull, ...]:
        """All open ones whose head is a branch of this same repository that starts with `prefix`."""

    def read(self, repo: str, number: int) -> Pull: ...

    def create(self, repo: str, *, head: str, base: str, title: str, body: str, draft: bool) -> Pull:
        """Asked once, never retried blindly: `Unknown` when the answer was lost, `Refused` (422) when one exists."""


class Repository(Protocol):
    """The repository and who may do what in it."""

    def facts(self, repo: str) -> RepositoryFacts: ...

    def permission(self, repo: str, login: str) -> str:
        """admin | maintain | write | triage | read | none."""

    def whoami(self) -> Person: ...

    def labels(self, repo: str) -> tuple[str, ...]: ...

    def create_label(self, repo: str, name: str, color: str, description: str) -> None:
        """One that exists already is no error."""


class Forge(Protocol):
    """A session with one forge, as one account."""

    issues: Issues
    pulls: Pulls
    repository: Repository
    calls: int  # requests made so far

    def close(self) -> None: ...


class Answer(NamedTuple):
    """What an answer that was no refusal for a limit says about limits."""

    writes: bool  # it answers a write: what is limited may be those alone
    counted: bool  # it cost something of the quota; a 304 does not
    remaining: int | None  # requests left until the reset; None: not told
    limit: int | None  # of so many
    resets_at: int | None  # UTC epoch seconds of this host's clock


class Limits(Protocol):
    """Who keeps a forge's limits for everybody who would run into them: told of each answer, asked before each request.

    A limit that one session hit binds the others of this host, which a session by itself cannot know.
    """

    def before(self) -> None:
        """Raises `RateLimited`, and no request is made, while a limit is known to stand."""

    def limited(self, error: RateLimited) -> None:
        """A request was answered so."""

    def answered(self, answer: Answer) -> None:
        """A request was answered, with whatever else."""


class _Unlimited:
    """Nobody keeps them."""

    def before(self) -> None: ...

    def limited(self, error: RateLimited) -> None: ...

    def answered(self, answer: Answer) -> None: ...


UNLIMITED: Limits = _Unlimited()


class ForgeError(Exception):
    """Anything a forge did not do for us. `status` is the HTTP status, 0 when no answer came."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Unreachable(ForgeError):
    """A read got no answer, or a 5xx: we know nothing."""


class Unknown(ForgeError):
    """A write got no answer, or a 5xx: it may have happened. Look before doing anything else."""


class Unauthorized(ForgeError):
    """401, or 403 without a rate limit in it: this account may not."""


class NotFound(ForgeError):
    """404 (which also means: not visible to this account) and 410."""


class Refused(ForgeError):
    """409 and 422: the forge understood and said no."""


class RateLimited(ForgeError):
    """403/429 with a primary or secondary limit; status 0: known beforehand, and nothing was asked."""

    def __init__(self, message: str, status: int, *, until: int | None, secondary: bool) -> None:
        super().__init__(message, status)
        self.until = until  # UTC epoch seconds of this host's clock, as told and not yet believed; None: not told
        self.secondary = secondary
