"""From a seed (DESIGN section 13) to the first state; a mistake in it names its place and its fix."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

from watchbill.errors import Fixable
from watchbill.practice import githttp, moves
from watchbill.practice.records import ROLES, Repo, State, User

# Ids begin apart so that one kind's id is never mistaken for a number, or for another kind's.
_FIRST_ID = 1001
_KEYS = {
    "seed": {"users", "repos"},
    "user": {"login", "token", "type", "id"},
    "repo": {"full_name", "git", "permissions", "labels", "issues", "private", "archived", "has_issues", "id"},
    "issue": {"title", "body", "labels", "author", "labeled_by", "state"},
}


def load(path: str) -> dict[str, Any]:
    """The seed in a file; Fixable when it is missing or no JSON object."""
    try:
        with open(path, encoding="utf-8") as file:
            seed = json.load(file)
    except OSError as error:
        raise _wrong(path, f"cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise _wrong(path, f"is no JSON: {error}") from None
    if not isinstance(seed, dict):
        raise _wrong(path, "must be a JSON object with users and repos")
    return seed


def plant(seed: dict[str, Any], now: int) -> State:
    """The state a seed describes, everything in it created at `now` (epoch seconds)."""
    _known("seed", seed, "seed")
    state = State(0, _FIRST_ID, {}, {})
    for index, user in enumerate(_list(seed, "users", "seed")):
        state = _plant_user(state, user, f"users[{index}]")
    for index, repo in enumerate(_list(seed, "repos", "seed")):
        state = _plant_repo(state, repo, f"repos[{index}]", now)
    return state


def _plant_user(state: State, raw: Any, place: str) -> State:
    _known("user", raw, place)
    login = _text(raw, "login", place)
    kind = raw.get("type", "User")
    if kind not in {"User", "Bot", "Organization"}:
        raise _wrong(f"{place}.type", f"must be User, Bot or Organization, not {kind!r}")
    if login.lower() in state.users:
        raise _wrong(f"{place}.login", f"{login} is there twice")
    user = User(int(raw.get("id", state.next_id)), login, str(raw.get("token", "")), kind)
    if user.token and any(other.token == user.token for other in state.users.values()):
        raise _wrong(f"{place}.token", "another user has the same token")
    return state._replace(users={**state.users, login.lower(): user}, next_id=state.next_id + 1)


def _plant_repo(state: State, raw: Any, place: str, now: int) -> State:
    _known("repo", raw, place)
    name = _text(raw, "full_name", place)
    if name.count("/") != 1 or not all(name.split("/")):
        raise _wrong(f"{place}.full_name", f"must be OWNER/NAME, not {name!r}")
    owner = name.split("/")[0]
    if owner.lower() not in state.users:  # an owner nobody acts as: an organization
        organization = User(state.next_id, owner, "", "Organization")
        state = state._replace(users={**state.users, owner.lower(): organization}, next_id=state.next_id + 1)
    repo = Repo(
        id=int(raw.get("id", state.next_id)),
        full_name=name,
        git=_bare(_text(raw, "git", place), f"{place}.git"),
        private=bool(raw.get("private", False)),
        archived=bool(raw.get("archived", False)),
        has_issues=bool(raw.get("has_issues", True)),
        created_at=now,
        roles=_roles(state, raw.get("permissions", {}), f"{place}.permissions"),
        labels={},
        issues={},
        comments={},
        events=(),
        statuses=(),
    )
    state = state._replace(repos={**state.repos, repo.id: repo}, next_id=state.next_id + 1)
    for index, label in enumerate(_list(raw, "labels", place)):
        state = _plant_label(state, repo.id, label, f"{place}.labels[{index}]")
    for index, issue in enumerate(_list(raw, "issues", place)):
        state = _plant_issue(state, repo.id, issue, f"{place}.issues[{index}]", now)
    return state


def _plant_label(state: State, repo_id: int, raw: Any, place: str) -> State:
    label = {"name": raw} if isinstance(raw, str) else raw
    if not isinstance(label, dict):
        raise _wrong(place, "must be a name or an object with name, color, description")
    name = _text(label, "name", place)
    if name.lower() in state.repos[repo_id].labels:
        return state
    return moves.create_label(state, repo_id, name, str(label.get("color", "ededed")), label.get("description"))


def _plant_issue(state: State, repo_id: int, raw: Any, place: str, now: int) -> State:
    _known("issue", raw, place)
    author = _login(state, _text(raw, "author", place), f"{place}.author")
    labels = tuple(str(name) for name in _list(raw, "labels", place))
    labeled_by = _login(state, raw.get("labeled_by", author), f"{place}.labeled_by")
    state, number = moves.open_issue(state, repo_id, author, _text(raw, "title", place), raw.get("body"), now)
    state = moves.add_labels(state, repo_id, number, labels, labeled_by, now)
    if raw.get("state", "open") == "closed":
        state = moves.close(state, repo_id, number, author, now)
    return state


def _bare(path: str, place: str) -> str:
    """The absolute path of a bare repository, as git itself sees it."""
    path = os.path.abspath(path)
    if not os.path.isdir(path):
        raise _wrong(place, f"{path} is no directory", fix=f"git init --bare {path}")
    asked = subprocess.run(
        ["git", "--git-dir", path, "rev-parse", "--is-bare-repository"],
        env=githttp.git_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.stdout.strip() != "true":
        raise _wrong(place, f"{path} is no bare repository", fix=f"git clone --bare {path} {path}.git")
    return path


def _roles(state: State, raw: Any, place: str) -> dict[str, str]:
    if not isinstance(raw, dict):
        raise _wrong(place, "must be an object: login to role")
    roles = {}
    for login, role in raw.items():
        if role not in ROLES:
            raise _wrong(f"{place}.{login}", f"must be one of {', '.join(ROLES)}, not {role!r}")
        roles[_login(state, login, f"{place}.{login}").lower()] = role
    return roles


def _login(state: State, login: Any, place: str) -> str:
    user = state.users.get(str(login).lower())
    if user is None:
        raise _wrong(place, f"there is no user {login!r}", fix=f"add it to users: {', '.join(state.users) or 'empty'}")
    return user.login


def _known(kind: str, raw: Any, place: str) -> None:
    if not isinstance(raw, dict):
        raise _wrong(place, "must be an object")
    for key in raw:
        if key not in _KEYS[kind]:
            raise _wrong(f"{place}.{key}", f"is no key; known are {', '.join(sorted(_KEYS[kind]))}")


def _list(raw: dict[str, Any], key: str, place: str) -> list[Any]:
    value = raw.get(key, [])
    if not isinstance(value, list):
        raise _wrong(f"{place}.{key}", "must be a list")
    return value


def _text(raw: dict[str, Any], key: str, place: str) -> str:
    value = raw.get(key)
    if not isinstance(value, str) or not value:
        raise _wrong(f"{place}.{key}", "must be a text that is not empty")
    return value


def _wrong(place: str, what: str, fix: str = "") -> Fixable:
    return Fixable("WB-PRACTICE-01", f"practice seed: {place} {what}", fix=fix or "correct the seed and start again")
