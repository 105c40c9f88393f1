"""Routes of accounts, repositories, labels, refs, statuses and limits."""

from __future__ import annotations

import re
from typing import Any

from watchbill.practice import bare, moves, render, render_repo
from watchbill.practice.records import State, Status, role_of
from watchbill.practice.routes import Answer, Call, Refusal, invalid, not_found, page, route, text, view


@route("GET", "/user")
def me(call: Call) -> Answer:
    return Answer(200, render.account(view(call), call.login))


@route("GET", "/users/{name}")
def user(call: Call) -> Answer:
    found = call.state.users.get(call.args[0].lower())
    if found is None:
        raise not_found()
    return Answer(200, render.account(view(call), found.login))


@route("GET", "/repos/{repo}")
def repository(call: Call) -> Answer:
    return Answer(200, render_repo.repository(view(call), call.repo))


@route("GET", "/repositories/{n}")
def repository_by_id(call: Call) -> Answer:
    repo = call.state.repos.get(int(call.args[0]))
    if repo is None or role_of(repo, call.user.login if call.user else None) == "none":
        raise not_found()
    return Answer(200, render_repo.repository(view(call), repo))


@route("GET", "/repos/{repo}/collaborators/{name}/permission")
def permission(call: Call) -> Answer:
    if call.user is None:
        raise Refusal(401, "Requires authentication")
    found = call.state.users.get(call.args[0].lower())
    if found is None:
        raise not_found()
    role = role_of(call.repo, found.login)
    # The old field knows four words only; `role_name` has the exact one.
    legacy = {"maintain": "write", "triage": "read"}.get(role, role)
    who: dict[str, Any] = dict(render.user(view(call), found.login) or {})
    who |= {"permissions": render_repo.permissions(role), "role_name": role}
    return Answer(200, {"permission": legacy, "role_name": role, "user": who})


@route("GET", "/repos/{repo}/labels")
def labels(call: Call) -> Answer:
    every = sorted(call.repo.labels.values(), key=lambda one: one.name.lower())
    return page(call, every, lambda one: render.label(view(call), call.repo, one))


@route("POST", "/repos/{repo}/labels", needs="write")
def create_label(call: Call) -> Answer:
    name = text(call.fields, "name", "Label", required=True) or ""
    color = text(call.fields, "color", "Label") or "ededed"
    description = text(call.fields, "description", "Label")
    if not re.fullmatch("[0-9a-fA-F]{6}", color):
        raise invalid("Label", "invalid", field="color")

    def move(state: State, _at: int) -> tuple[State, State]:
        if name.lower() in state.repos[call.repo_id].labels:
            raise invalid("Label", "already_exists", field="name")
        after = moves.create_label(state, call.repo_id, name, color.lower(), description)
        return after, after

    after = call.store.change(move)
    repo = after.repos[call.repo_id]
    return Answer(201, render.label(view(call, after), repo, repo.labels[name.lower()]))


@route("GET", "/repos/{repo}/labels/{name}")
def label(call: Call) -> Answer:
    found = call.repo.labels.get(call.args[0].lower())
    if found is None:
        raise not_found()
    return Answer(200, render.label(view(call), call.repo, found))


@route("GET", "/repos/{repo}/git/ref/{rest}")
def ref(call: Call) -> Answer:
    name = f"refs/{call.args[0]}"
    sha = bare.matching(call.repo.git, call.args[0]).get(name)
    if sha is None:
        raise not_found()
    return Answer(200, render.ref(view(call), call.repo, name, sha))


@route("GET", "/repos/{repo}/git/matching-refs/{rest}")
def matching_refs(call: Call) -> Answer:
    # Every match at once: GitHub ignores per_page and page here.
    found = bare.matching(call.repo.git, call.args[0])
    return Answer(200, [render.ref(view(call), call.repo, name, sha) for name, sha in sorted(found.items())])


@route("POST", "/repos/{repo}/statuses/{name}", needs="write", denied=404)
def create_status(call: Call) -> Answer:
    sha = call.args[0]
    if not re.fullmatch("[0-9a-f]{40}", sha) or not bare.has_commit(call.repo.git, sha):
        raise Refusal(422, f"No commit found for SHA: {sha}")
    state = text(call.fields, "state", "Status", required=True) or ""
    if state not in {"error", "failure", "pending", "success"}:
        raise invalid("Status", "inclusion", field="state")
    context = text(call.fields, "context", "Status") or "default"
    description, target = text(call.fields, "description", "Status"), text(call.fields, "target_url", "Status")

    def move(before: State, at: int) -> tuple[State, State]:
        status = Status(0, sha, state, context, description, target, call.login, at)
        after = moves.add_status(before, call.repo_id, status)
        return after, after

    after = call.store.change(move)
    repo = after.repos[call.repo_id]
    return Answer(201, render.status(view(call, after), repo, repo.statuses[-1]))


@route("GET", "/repos/{repo}/commits/{name}/statuses")
def statuses(call: Call) -> Answer:
    found = [one for one in reversed(call.repo.statuses) if one.sha == call.args[0]]
    return page(call, found, lambda one: render.status(view(call), call.repo, one))
