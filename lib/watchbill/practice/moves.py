"""Everything that can happen to a forge: pure functions from a state to the next one.

Each takes the state, the repository's id, who does it (a login) and when (epoch seconds). Permission was checked
before.
"""

from __future__ import annotations

from watchbill.practice.records import Comment, Event, Issue, Label, Pull, Repo, State, Status


def _put(state: State, repo: Repo, *, ids: int = 0) -> State:
    return state._replace(repos={**state.repos, repo.id: repo}, next_id=state.next_id + ids)


def _event(
    state: State,
    repo_id: int,
    number: int,
    kind: str,
    actor: str,
    at: int,
    *,
    label: str | None = None,
    renamed: tuple[str, str] | None = None,
    commit: str | None = None,
) -> State:
    repo = state.repos[repo_id]
    event = Event(state.next_id, number, kind, actor, at, label, renamed, commit)
    return _put(state, repo._replace(events=(*repo.events, event)), ids=1)


def _replace_issue(state: State, repo_id: int, number: int, at: int, /, **changes: object) -> State:
    repo = state.repos[repo_id]
    issue = repo.issues[number]._replace(**{"updated_at": at, **changes})  # type: ignore[arg-type]
    return _put(state, repo._replace(issues={**repo.issues, number: issue}))


def create_label(state: State, repo_id: int, name: str, color: str, description: str | None) -> State:
    """A new label; the caller has seen that there is none of that name."""
    repo = state.repos[repo_id]
    label = Label(state.next_id, name, color, description)
    return _put(state, repo._replace(labels={**repo.labels, name.lower(): label}), ids=1)


def open_issue(
    state: State, repo_id: int, author: str, title: str, body: str | None, at: int, pull: Pull | None = None
) -> tuple[State, int]:
    """The next state and the new issue's number."""
    repo = state.repos[repo_id]
    number = max(repo.issues, default=0) + 1
    issue = Issue(state.next_id, number, title, body, "open", None, (), author, at, at, None, None, False, pull)
    if pull is not None:
        issue = issue._replace(pull=pull._replace(id=state.next_id + 1))
    return _put(state, repo._replace(issues={**repo.issues, number: issue}), ids=2), number


def add_labels(state: State, repo_id: int, number: int, names: tuple[str, ...], actor: str, at: int) -> State:
    """Put labels on, making those that the repository does not have; one that is on already leaves no event."""
    for wanted in names:
        if wanted.lower() not in state.repos[repo_id].labels:
            state = create_label(state, repo_id, wanted, "ededed", None)
        name = state.repos[repo_id].labels[wanted.lower()].name
        issue = state.repos[repo_id].issues[number]
        if name not in issue.labels:
            state = _replace_issue(state, repo_id, number, at, labels=(*issue.labels, name))
            state = _event(state, repo_id, number, "labeled", actor, at, label=name)
    return state


def remove_label(state: State, repo_id: int, number: int, name: str, actor: str, at: int) -> State:
    """Take one label off that is on."""
    issue = state.repos[repo_id].issues[number]
    kept = tuple(label for label in issue.labels if label != name)
    state = _replace_issue(state, repo_id, number, at, labels=kept)
    return _event(state, repo_id, number, "unlabeled", actor, at, label=name)


def set_labels(state: State, repo_id: int, number: int, names: tuple[str, ...], actor: str, at: int) -> State:
    """Exactly these labels."""
    wanted = {name.lower() for name in names}
    for name in state.repos[repo_id].issues[number].labels:
        if name.lower() not in wanted:
            state = remove_label(state, repo_id, number, name, actor, at)
    return add_labels(state, repo_id, number, names, actor, at)


def edit_issue(
    state: State, repo_id: int, number: int, actor: str, at: int, *, title: str | None = None, body: str | None = None
) -> State:
    """A new title, a new body, or both; None leaves it."""
    issue = state.repos[repo_id].issues[number]
    if title is not None and title != issue.title:
        state = _replace_issue(state, repo_id, number, at, title=title)
        state = _event(state, repo_id, number, "renamed", actor, at, renamed=(issue.title, title))
    if body is not None:
        state = _replace_issue(state, repo_id, number, at, body=body)
    return state


def close(state: State, repo_id: int, number: int, actor: str, at: int, reason: str | None = "completed") -> State:
    """Close an open issue or pull request; a closed one stays as it is."""
    issue = state.repos[repo_id].issues[number]
    if issue.state == "closed":
        return state
    state = _replace_issue(
        state,
        repo_id,
        number,
        at,
        state="closed",
        state_reason=None if issue.pull else reason,
        closed_at=at,
        closed_by=actor,
    )
    return _event(state, repo_id, number, "closed", actor, at)


def reopen(state: State, repo_id: int, number: int, actor: str, at: int) -> State:
    """Open a closed issue or pull request again; an open one stays as it is."""
    issue = state.repos[repo_id].issues[number]
    if issue.state == "open":
        return state
    reason = None if issue.pull else "reopened"
    state = _replace_issue(
        state, repo_id, number, at, state="open", state_reason=reason, closed_at=None, closed_by=None
    )
    return _event(state, repo_id, number, "reopened", actor, at)


def comment(state: State, repo_id: int, number: int, author: str, body: str, at: int) -> tuple[State, int]:
    """The next state and the new comment's id."""
    new = Comment(state.next_id, number, author, body, at, at)
    repo = state.repos[repo_id]
    state = _put(state, repo._replace(comments={**repo.comments, new.id: new}), ids=1)
    return _replace_issue(state, repo_id, number, at), new.id


def edit_comment(state: State, repo_id: int, comment_id: int, body: str, at: int) -> State:
    """Another body for a comment."""
    repo = state.repos[repo_id]
    edited = repo.comments[comment_id]._replace(body=body, updated_at=at)
    return _put(state, repo._replace(comments={**repo.comments, comment_id: edited}))


def move_pull(state: State, repo_id: int, number: int, at: int, /, **changes: object) -> State:
    """Write what the bare repository says, or a merge, into a pull request: any field of `Pull`."""
    pull = state.repos[repo_id].issues[number].pull
    assert pull is not None
    return _replace_issue(state, repo_id, number, at, pull=pull._replace(**changes))  # type: ignore[arg-type]


def merged(state: State, repo_id: int, number: int, actor: str, at: int, merge_sha: str) -> State:
    """The pull request was merged by `merge_sha`."""
    state = move_pull(state, repo_id, number, at, merged_at=at, merged_by=actor, merge_sha=merge_sha)
    state = _event(state, repo_id, number, "merged", actor, at, commit=merge_sha)
    return close(state, repo_id, number, actor, at)


def add_status(state: State, repo_id: int, status: Status) -> State:
    """A commit status; its id is given here."""
    repo = state.repos[repo_id]
    return _put(state, repo._replace(statuses=(*repo.statuses, status._replace(id=state.next_id))), ids=1)
