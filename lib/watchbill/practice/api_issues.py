"""Routes of issues: their labels, comments and events."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from watchbill.practice import moves, pulls, render
from watchbill.practice.records import Comment, Event, Issue, State
from watchbill.practice.routes import (
    Answer,
    Call,
    Refusal,
    find_issue,
    invalid,
    may,
    not_found,
    page,
    route,
    text,
    view,
)

_SORTS: dict[str, Callable[[Issue], int]] = {
    "created": lambda one: one.created_at,
    "updated": lambda one: one.updated_at,
}


@route("GET", "/repos/{repo}/issues")
def issues(call: Call) -> Answer:
    """Pull requests are among them, as at GitHub."""
    query = call.query
    if not call.repo.has_issues:
        raise Refusal(410, "Issues are disabled for this repo")
    found = [one for one in call.repo.issues.values() if query.get("state", "open") in {"all", one.state}]
    if wanted := {name.strip().lower() for name in query.get("labels", "").split(",") if name.strip()}:
        found = [one for one in found if wanted <= {label.lower() for label in one.labels}]
    if since := query.get("since"):
        floor = _epoch(since)
        found = [one for one in found if one.updated_at >= floor]
    if creator := query.get("creator"):
        found = [one for one in found if one.author.lower() == creator.lower()]
    key = _SORTS.get(query.get("sort", "created"), _SORTS["created"])
    # Timestamps have whole seconds: the number decides among equals.
    found.sort(key=lambda one: (key(one), one.number), reverse=query.get("direction", "desc") != "asc")
    return page(call, found, lambda one: render.issue(view(call), call.repo, one, whole=False))


def _epoch(stamp: str) -> float:
    try:
        return datetime.fromisoformat(stamp).timestamp()
    except ValueError:
        raise invalid("Issue", "invalid", field="since") from None


@route("POST", "/repos/{repo}/issues")
def create_issue(call: Call) -> Answer:
    if not call.repo.has_issues:
        raise Refusal(410, "Issues are disabled for this repo")
    title = text(call.fields, "title", "Issue", required=True) or ""
    body = text(call.fields, "body", "Issue")
    # GitHub silently drops the labels of a caller who may not label.
    labels = _names(call.fields.get("labels") or []) if may(call, "triage") else ()

    def move(state: State, at: int) -> tuple[State, tuple[State, int]]:
        after, number = moves.open_issue(state, call.repo_id, call.login, title, body, at)
        after = moves.add_labels(after, call.repo_id, number, labels, call.login, at)
        return after, (after, number)

    after, number = call.store.change(move)
    return _shown(call, after, number, 201)


def _shown(call: Call, state: State, number: int, status: int = 200) -> Answer:
    repo = state.repos[call.repo_id]
    return Answer(status, render.issue(view(call, state), repo, repo.issues[number]))


@route("GET", "/repos/{repo}/issues/{n}")
def issue(call: Call) -> Answer:
    return _shown(call, call.state, find_issue(call, call.args[0]).number)


@route("PATCH", "/repos/{repo}/issues/{n}")
def edit_issue(call: Call) -> Answer:
    found = find_issue(call, call.args[0])
    fields, number = call.fields, found.number
    mine = found.author.lower() == call.login.lower()
    title, body = text(fields, "title", "Issue"), text(fields, "body", "Issue")
    wanted, reason = text(fields, "state", "Issue"), text(fields, "state_reason", "Issue")
    if ((title is not None or body is not None) and not (mine or may(call, "write"))) or (
        wanted is not None and not (mine or may(call, "triage"))
    ):
        raise Refusal(403, "Must have admin rights to Repository.")
    if wanted not in {None, "open", "closed"}:
        raise invalid("Issue", "invalid", field="state")
    labels = _names(fields["labels"] or []) if "labels" in fields and may(call, "triage") else None

    def move(state: State, at: int) -> tuple[State, State]:
        state = moves.edit_issue(state, call.repo_id, number, call.login, at, title=title, body=body)
        if labels is not None:
            state = moves.set_labels(state, call.repo_id, number, labels, call.login, at)
        if wanted == "closed":
            state = moves.close(state, call.repo_id, number, call.login, at, reason or "completed")
        if wanted == "open":
            pulls.check_reopening(state, call.repo_id, number)
            state = moves.reopen(state, call.repo_id, number, call.login, at)
        return state, state

    return _shown(call, call.store.change(move), number)


def _names(raw: object) -> tuple[str, ...]:
    """Names of labels out of a list of names, or of objects with a name."""
    if not isinstance(raw, list):
        raise invalid("Label", "invalid", field="labels")
    names = [one.get("name") if isinstance(one, dict) else one for one in raw]
    if not all(isinstance(name, str) and name for name in names):
        raise invalid("Label", "invalid", field="name")
    return tuple(str(name) for name in names)


@route("GET", "/repos/{repo}/issues/{n}/labels")
def issue_labels(call: Call) -> Answer:
    found = find_issue(call, call.args[0])
    return page(call, render.labels(view(call), call.repo, found.labels), lambda one: one)


def _change_labels(call: Call, change: Callable[..., State]) -> Answer:
    number = find_issue(call, call.args[0]).number
    # Both bodies are taken at GitHub: {"labels": [...]} and a bare list.
    names = _names(call.body if isinstance(call.body, list) else call.body.get("labels", []))

    def move(state: State, at: int) -> tuple[State, State]:
        after = change(state, call.repo_id, number, names, call.login, at)
        return after, after

    after = call.store.change(move)
    repo = after.repos[call.repo_id]
    return Answer(200, render.labels(view(call, after), repo, repo.issues[number].labels))


@route("POST", "/repos/{repo}/issues/{n}/labels", needs="triage")
def add_labels(call: Call) -> Answer:
    return _change_labels(call, moves.add_labels)


@route("PUT", "/repos/{repo}/issues/{n}/labels", needs="triage")
def set_labels(call: Call) -> Answer:
    return _change_labels(call, moves.set_labels)


@route("DELETE", "/repos/{repo}/issues/{n}/labels", needs="triage")
def clear_labels(call: Call) -> Answer:
    _change_labels(call._replace(body=[]), moves.set_labels)
    return Answer(204)


@route("DELETE", "/repos/{repo}/issues/{n}/labels/{name}", needs="triage")
def remove_label(call: Call) -> Answer:
    number, wanted = find_issue(call, call.args[0]).number, call.args[1].lower()

    def move(state: State, at: int) -> tuple[State, State]:
        on = {name.lower(): name for name in state.repos[call.repo_id].issues[number].labels}
        if wanted not in on:
            raise Refusal(404, "Label does not exist")
        after = moves.remove_label(state, call.repo_id, number, on[wanted], call.login, at)
        return after, after

    after = call.store.change(move)
    repo = after.repos[call.repo_id]
    return Answer(200, render.labels(view(call, after), repo, repo.issues[number].labels))


@route("GET", "/repos/{repo}/issues/{n}/comments")
def comments(call: Call) -> Answer:
    number = find_issue(call, call.args[0]).number
    found = [one for one in call.repo.comments.values() if one.number == number]
    if since := call.query.get("since"):
        floor = _epoch(since)
        found = [one for one in found if one.updated_at >= floor]
    return page(call, found, lambda one: render.comment(view(call), call.repo, one))


@route("POST", "/repos/{repo}/issues/{n}/comments")
def create_comment(call: Call) -> Answer:
    found = find_issue(call, call.args[0])
    if found.locked and not may(call, "write"):
        raise Refusal(403, "Unable to create comment because issue is locked.")
    body = text(call.fields, "body", "IssueComment", required=True) or ""

    def move(state: State, at: int) -> tuple[State, tuple[State, int]]:
        after, comment_id = moves.comment(state, call.repo_id, found.number, call.login, body, at)
        return after, (after, comment_id)

    after, comment_id = call.store.change(move)
    return _comment_shown(call, after, comment_id, 201)


def _comment_shown(call: Call, state: State, comment_id: int, status: int = 200) -> Answer:
    repo = state.repos[call.repo_id]
    return Answer(status, render.comment(view(call, state), repo, repo.comments[comment_id]))


def _find_comment(call: Call) -> Comment:
    found = call.repo.comments.get(int(call.args[0]))
    if found is None:
        raise not_found()
    return found


@route("GET", "/repos/{repo}/issues/comments/{n}")
def comment(call: Call) -> Answer:
    return _comment_shown(call, call.state, _find_comment(call).id)


@route("PATCH", "/repos/{repo}/issues/comments/{n}")
def edit_comment(call: Call) -> Answer:
    found = _find_comment(call)
    if found.author.lower() != call.login.lower() and not may(call, "write"):
        raise Refusal(403, "Must have admin rights to Repository.")
    body = text(call.fields, "body", "IssueComment", required=True) or ""

    def move(state: State, at: int) -> tuple[State, State]:
        after = moves.edit_comment(state, call.repo_id, found.id, body, at)
        return after, after

    return _comment_shown(call, call.store.change(move), found.id)


def _events(call: Call) -> list[Event]:
    number = find_issue(call, call.args[0]).number
    return [one for one in call.repo.events if one.number == number]


@route("GET", "/repos/{repo}/issues/{n}/events")
def events(call: Call) -> Answer:
    return page(call, _events(call), lambda one: render.event(view(call), call.repo, one))


@route("GET", "/repos/{repo}/issues/{n}/timeline")
def timeline(call: Call) -> Answer:
    shown = view(call)
    number = find_issue(call, call.args[0]).number
    told = [((one.at, one.id), render.event(shown, call.repo, one)) for one in _events(call)]
    told += [
        ((one.created_at, one.id), render.timeline_comment(shown, call.repo, one))
        for one in call.repo.comments.values()
        if one.number == number
    ]
    told.sort(key=lambda item: item[0])
    return page(call, told, lambda item: item[1])
