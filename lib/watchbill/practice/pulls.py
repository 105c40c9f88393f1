"""Pull requests and the bare repository they are about: the refs are the truth, the records follow them."""

from __future__ import annotations

import re

from watchbill.practice import bare, moves
from watchbill.practice.records import Issue, State
from watchbill.practice.routes import invalid
from watchbill.practice.store import Store

# "Closes #41", as GitHub reads it in a description:
# https://docs.github.com/en/issues/tracking-your-work-with-issues/linking-a-pull-request-to-an-issue
_CLOSES = re.compile(r"\b(?:close[sd]?|fix(?:e[sd])?|resolve[sd]?):?\s+#(\d+)\b", re.IGNORECASE)


def follow(store: Store, repo_id: int, actor: str | None = None) -> State:
    """Bring open pull requests up to date with the branches, and return the state.

    A head that moved is taken over; one whose branch is gone, or its base's, closes its pull request, as at GitHub:
    by `actor`, who pushed; by its author when that is not known.
    """
    repo = store.snapshot().repos[repo_id]
    if not any(one.pull and one.state == "open" for one in repo.issues.values()):
        return store.snapshot()

    def move(state: State, at: int) -> tuple[State, State]:
        # Read inside the move: branches read before it could miss that of a pull request opened meanwhile.
        heads = bare.refs(repo.git).heads
        for one in state.repos[repo_id].issues.values():
            if one.pull and one.state == "open":
                state = _follow_one(state, repo_id, one, heads, actor or one.author, at)
        return state, state

    return store.change(move)


def _follow_one(state: State, repo_id: int, one: Issue, heads: dict[str, str], actor: str, at: int) -> State:
    assert one.pull is not None
    head, base = heads.get(one.pull.head_ref), heads.get(one.pull.base_ref)
    if head is None or base is None:
        return moves.close(state, repo_id, one.number, actor, at)
    if head != one.pull.head_sha:
        state = moves.move_pull(state, repo_id, one.number, at, head_sha=head)
    if base != one.pull.base_sha:
        state = moves.move_pull(state, repo_id, one.number, one.updated_at, base_sha=base)
    return state


def same_open(state: State, repo_id: int, head: str, base: str) -> bool:
    """Is there an open pull request from this head to this base? GitHub allows one."""
    return any(
        one.pull is not None and one.state == "open" and (one.pull.head_ref, one.pull.base_ref) == (head, base)
        for one in state.repos[repo_id].issues.values()
    )


def check_reopening(state: State, repo_id: int, number: int) -> None:
    """422 where GitHub does not let a pull request be opened again; an issue always may."""
    repo = state.repos[repo_id]
    one = repo.issues[number]
    if one.pull is None or one.state == "open":
        return
    if one.pull.merged_at is not None:
        raise invalid("PullRequest", "custom", field="state", message="state cannot be changed. It was merged.")
    head, heads = one.pull.head_ref, bare.refs(repo.git).heads
    for branch in (head, one.pull.base_ref):
        if branch not in heads:
            why = f"state cannot be changed. The {branch} branch has been deleted."
            raise invalid("PullRequest", "custom", field="state", message=why)
    if not bare.contains(repo.git, heads[head], one.pull.head_sha):
        why = f"state cannot be changed. The {head} branch was force-pushed or recreated."
        raise invalid("PullRequest", "custom", field="state", message=why)
    if same_open(state, repo_id, head, one.pull.base_ref):
        why = f"A pull request already exists for {repo.full_name.split('/')[0]}:{head}."
        raise invalid("PullRequest", "custom", message=why)


def closes(body: str | None) -> tuple[int, ...]:
    """The numbers a description says a merge closes."""
    return tuple(int(number) for number in _CLOSES.findall(body or ""))
