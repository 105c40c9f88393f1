"""Routes of pull requests."""

from __future__ import annotations

from typing import Any

from watchbill.practice import bare, moves, pulls, render, render_repo
from watchbill.practice.records import Issue, Pull, Repo, State
from watchbill.practice.routes import Answer, Call, Refusal, invalid, may, not_found, page, route, text, view


def _state(call: Call) -> State:
    """What to answer from: up to date with the branches, unless a fault wants the past."""
    return pulls.follow(call.store, call.repo_id) if call.fresh else call.state


def _find(state: State, call: Call) -> Issue:
    found = state.repos[call.repo_id].issues.get(int(call.args[0]))
    if found is None or found.pull is None:
        raise not_found()
    return found


def _pull(one: Issue) -> Pull:
    assert one.pull is not None
    return one.pull


@route("GET", "/repos/{repo}/pulls")
def list_pulls(call: Call) -> Answer:
    state, query = _state(call), call.query
    repo = state.repos[call.repo_id]
    found = [one for one in repo.issues.values() if one.pull and query.get("state", "open") in {"all", one.state}]
    owner, colon, branch = query.get("head", "").partition(":")
    if colon:  # a head without an owner filters nothing, as at GitHub
        same = owner.lower() == repo.full_name.split("/")[0].lower()
        found = [one for one in found if same and _pull(one).head_ref == branch]
    if base := query.get("base"):
        found = [one for one in found if _pull(one).base_ref == base]
    sort, direction = query.get("sort", "created"), query.get("direction")
    newest_first = (direction or ("desc" if sort == "created" else "asc")) == "desc"
    key = "updated_at" if sort == "updated" else "created_at"
    found.sort(key=lambda one: (getattr(one, key), one.number), reverse=newest_first)
    shown = view(call, state)
    repository = render_repo.repository(shown, repo)
    return page(call, found, lambda one: render.pull(shown, repo, one, repository))


@route("GET", "/repos/{repo}/pulls/{n}")
def pull(call: Call) -> Answer:
    state = _state(call)
    return _shown(call, state, _find(state, call))


def _shown(call: Call, state: State, one: Issue, status: int = 200) -> Answer:
    shown, repo = view(call, state), state.repos[call.repo_id]
    return Answer(status, render.whole_pull(shown, repo, one, render_repo.repository(shown, repo)))


@route("POST", "/repos/{repo}/pulls", needs="write")
def create_pull(call: Call) -> Answer:
    fields, repo = call.fields, call.repo
    title = text(fields, "title", "PullRequest", required=True) or ""
    body = text(fields, "body", "PullRequest")
    owner = repo.full_name.split("/")[0]
    named = text(fields, "head", "PullRequest", required=True) or ""
    head = named.removeprefix(f"{owner}:")
    base = text(fields, "base", "PullRequest", required=True) or ""
    heads = bare.refs(repo.git).heads
    for field, branch in (("head", head), ("base", base)):
        if branch not in heads:
            raise invalid("PullRequest", "invalid", field=field)
    # In GitHub's order: that one exists is said before that there is nothing in it.
    _refuse_second(call.store.snapshot(), repo, head, base)
    if bare.between(repo.git, heads[base], heads[head]) == 0:
        raise invalid("PullRequest", "custom", message=f"No commits between {base} and {head}")
    draft = bool(fields.get("draft", False))
    new = Pull(0, head, heads[head], base, heads[base], draft, None, None, None)

    def move(state: State, at: int) -> tuple[State, tuple[State, int]]:
        _refuse_second(state, repo, head, base)
        after, number = moves.open_issue(state, repo.id, call.login, title, body, at, new)
        return after, (after, number)

    after, number = call.store.change(move)
    return _shown(call, after, after.repos[repo.id].issues[number], 201)


def _refuse_second(state: State, repo: Repo, head: str, base: str) -> None:
    if pulls.same_open(state, repo.id, head, base):
        owner = repo.full_name.split("/")[0]
        raise invalid("PullRequest", "custom", message=f"A pull request already exists for {owner}:{head}.")


@route("PATCH", "/repos/{repo}/pulls/{n}")
def edit_pull(call: Call) -> Answer:
    found = _find(_state(call), call)
    if found.author.lower() != call.login.lower() and not may(call, "write"):
        raise Refusal(403, "Must have admin rights to Repository.")
    title, body = text(call.fields, "title", "PullRequest"), text(call.fields, "body", "PullRequest")
    wanted = text(call.fields, "state", "PullRequest")
    if wanted not in {None, "open", "closed"}:
        raise invalid("PullRequest", "invalid", field="state")

    def move(state: State, at: int) -> tuple[State, State]:
        state = moves.edit_issue(state, call.repo_id, found.number, call.login, at, title=title, body=body)
        if wanted == "closed":
            state = moves.close(state, call.repo_id, found.number, call.login, at)
        if wanted == "open":
            pulls.check_reopening(state, call.repo_id, found.number)
            state = moves.reopen(state, call.repo_id, found.number, call.login, at)
        return state, state

    after = call.store.change(move)
    return _shown(call, after, after.repos[call.repo_id].issues[found.number])


@route("GET", "/repos/{repo}/pulls/{n}/merge")
def is_merged(call: Call) -> Answer:
    if _pull(_find(_state(call), call)).merged_at is None:
        raise not_found()
    return Answer(204)


@route("PUT", "/repos/{repo}/pulls/{n}/merge", needs="write")
def merge(call: Call) -> Answer:
    with call.store.merging:
        one = _find(_state(call), call)
        _check_merge(call, one)
        state = _pull(one)
        commit, why_not = bare.merge(
            call.repo.git,
            branch=state.base_ref,
            base=state.base_sha,
            head=state.head_sha,
            message=_message(call, one),
            squash=_method(call.fields) == "squash",
            who=call.login,
        )
        if commit is None:
            moved = "Base branch was modified. Review and try the merge again."
            raise Refusal(405, moved if why_not == "moved" else "Pull Request is not mergeable")
        _record_merge(call, one, commit)
    return Answer(200, {"sha": commit, "merged": True, "message": "Pull Request successfully merged"})


def _check_merge(call: Call, one: Issue) -> None:
    if one.state == "closed" or _pull(one).draft:
        raise Refusal(405, "Pull Request is not mergeable")
    if call.fields.get("sha") not in {None, _pull(one).head_sha}:
        raise Refusal(409, "Head branch was modified. Review and try the merge again.")


def _method(fields: dict[str, Any]) -> str:
    method = text(fields, "merge_method", "PullRequest") or "merge"
    if method not in {"merge", "squash"}:
        raise Refusal(405, f"{method.capitalize()} merges are not allowed on this repository.")
    return method


def _message(call: Call, one: Issue) -> str:
    owner = call.repo.full_name.split("/")[0]
    plain = f"Merge pull request #{one.number} from {owner}/{_pull(one).head_ref}"
    squashed = f"{one.title} (#{one.number})"
    otherwise = squashed if _method(call.fields) == "squash" else plain
    title = text(call.fields, "commit_title", "PullRequest") or otherwise
    body = text(call.fields, "commit_message", "PullRequest")
    return f"{title}\n\n{one.title if body is None else body}\n"


def _record_merge(call: Call, one: Issue, commit: str) -> None:
    into_default = _pull(one).base_ref == bare.default_branch(call.repo.git)

    def move(state: State, at: int) -> tuple[State, None]:
        state = moves.merged(state, call.repo_id, one.number, call.login, at, commit)
        for number in pulls.closes(one.body) if into_default else ():
            linked = state.repos[call.repo_id].issues.get(number)
            if linked is not None and linked.pull is None:
                state = moves.close(state, call.repo_id, number, call.login, at)
        return state, None

    call.store.change(move)
