"""How a request finds its handler: a table of routes, and what every handler is given and may answer.

A handler is a function from a `Call` to an `Answer`; it raises `Refusal` for what GitHub answers with an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, unquote, urlencode

from watchbill.practice.records import Issue, Repo, State, User, allows, find_repo, role_of
from watchbill.practice.render import View
from watchbill.practice.store import Store

DOCS = "https://docs.github.com/rest"
T = TypeVar("T")


class Answer(NamedTuple):
    """What goes back."""

    status: int
    body: Any = None  # rendered as JSON; None is an empty body
    headers: dict[str, str] = {}  # never written to


class Refusal(Exception):
    """An error as GitHub words it."""

    def __init__(self, status: int, message: str, errors: Sequence[Any] = ()) -> None:
        super().__init__(message)
        body: dict[str, Any] = {"message": message, "documentation_url": DOCS, "status": str(status)}
        if errors:
            body["errors"] = list(errors)
        self.answer = Answer(status, body)


def not_found() -> Refusal:
    return Refusal(404, "Not Found")


def invalid(resource: str, code: str, *, field: str = "", message: str = "") -> Refusal:
    """422 with one error in it."""
    error = {"resource": resource, "code": code, "field": field, "message": message}
    return Refusal(422, "Validation Failed", [{key: value for key, value in error.items() if value}])


class Call(NamedTuple):
    """One request, seen by its handler."""

    store: Store
    state: State  # what reads are answered from: the present, or the past under a stale fault
    fresh: bool  # is `state` the present
    user: User | None  # who asks; None is anybody
    repo_id: int  # 0 where the route names no repository
    args: tuple[str, ...]  # what the route's other placeholders matched
    query: dict[str, str]
    body: dict[str, Any] | list[Any]  # {} when there was none
    site: str  # "http://127.0.0.1:PORT"
    prefix: str  # "" or "/api/v3"
    path: str  # without prefix and query

    @property
    def repo(self) -> Repo:
        return self.state.repos[self.repo_id]

    @property
    def login(self) -> str:
        assert self.user is not None
        return self.user.login

    @property
    def fields(self) -> dict[str, Any]:
        """The body as an object; 400 when it is none."""
        if not isinstance(self.body, dict):
            raise Refusal(400, "Body should be a JSON object")
        return self.body


class Route(NamedTuple):
    """One line of the table."""

    method: str
    pattern: re.Pattern[str]
    handler: Callable[[Call], Answer]
    needs: str  # the least role in the repository
    login: bool  # must somebody be logged in
    writes: bool  # is it refused in an archived repository
    denied: int  # status when the role is too low


ROUTES: list[Route] = []
_PLACEHOLDERS = {"{repo}": "(?P<repo>[^/]+/[^/]+)", "{n}": r"(\d+)", "{name}": "([^/]+)", "{rest}": "(.+)"}


def route(
    method: str, path: str, *, needs: str = "read", denied: int = 403
) -> Callable[[Callable[[Call], Answer]], Callable[[Call], Answer]]:
    """Enter a handler into the table. Every method but GET wants a login."""
    pattern = path
    for placeholder, matched in _PLACEHOLDERS.items():
        pattern = pattern.replace(placeholder, matched)

    def enter(handler: Callable[[Call], Answer]) -> Callable[[Call], Answer]:
        writes = method != "GET"
        login = writes or path == "/user"
        ROUTES.append(Route(method, re.compile(pattern + "/?"), handler, needs, login, writes, denied))
        return handler

    return enter


def dispatch(method: str, call: Call) -> Answer:
    """The answer of the route that fits, after who-may checks; a Refusal becomes its answer."""
    try:
        for one in ROUTES:
            if one.method == method and (match := one.pattern.fullmatch(call.path)):
                return one.handler(_admitted(one, match, call))
        raise not_found()
    except Refusal as refusal:
        return refusal.answer


def _admitted(one: Route, match: re.Match[str], call: Call) -> Call:
    named = match.groupdict().get("repo")
    args = tuple(unquote(arg) for arg in match.groups()[1 if named else 0 :])
    if named is None:
        if one.login and call.user is None:
            raise Refusal(401, "Requires authentication")
        return call._replace(args=args)
    repo = find_repo(call.state, unquote(named))
    role = role_of(repo, call.user.login if call.user else None) if repo else "none"
    if repo is None or role == "none":
        raise not_found()
    if one.login and call.user is None:
        raise Refusal(401, "Requires authentication")
    if not allows(role, one.needs):
        raise not_found() if one.denied == 404 else Refusal(one.denied, "Must have admin rights to Repository.")
    if one.writes and repo.archived:
        raise Refusal(403, "Repository was archived so is read-only.")
    return call._replace(repo_id=repo.id, args=args)


def view(call: Call, state: State | None = None) -> View:
    """How records are shown to whoever calls."""
    login = call.user.login if call.user else None
    return View(state or call.state, call.site, call.site + call.prefix, login)


def find_issue(call: Call, number: str, state: State | None = None) -> Issue:
    """The issue of that number; 404 when there is none, 410 when the repository has no issues."""
    repo = (state or call.state).repos[call.repo_id]
    found = repo.issues.get(int(number))
    if found is None:
        raise not_found()
    if not repo.has_issues and found.pull is None:
        raise Refusal(410, "Issues are disabled for this repo")
    return found


def may(call: Call, needed: str) -> bool:
    """Has whoever calls at least this role here?"""
    return allows(role_of(call.repo, call.login), needed)


def page(call: Call, items: Sequence[T], show: Callable[[T], Any]) -> Answer:
    """One page of a list, with GitHub's Link header: 30 items a page unless per_page (at most 100) says otherwise."""
    per_page = min(max(_number(call.query.get("per_page"), 30), 1), 100)
    at = max(_number(call.query.get("page"), 1), 1)
    last = max((len(items) + per_page - 1) // per_page, 1)
    wanted = {"prev": at - 1, "first": 1} if at > 1 else {}
    if at < last:
        wanted |= {"next": at + 1, "last": last}
    links = []
    for rel, number in wanted.items():
        query = urlencode({**call.query, "page": str(number)})
        links.append(f'<{call.site}{call.prefix}{quote(call.path, safe="/%")}?{query}>; rel="{rel}"')
    shown = [show(item) for item in items[(at - 1) * per_page : at * per_page]]
    return Answer(200, shown, {"Link": ", ".join(links)} if links else {})


def _number(text: str | None, otherwise: int) -> int:
    return int(text) if text and text.isdecimal() else otherwise


def text(fields: dict[str, Any], key: str, resource: str, *, required: bool = False) -> str | None:
    """A text of the body; 422 when it is something else, or missing though required."""
    value = fields.get(key)
    if value is None and not required:
        return None
    if value is None or (required and value == ""):
        raise invalid(resource, "missing_field", field=key)
    if not isinstance(value, str):
        raise invalid(resource, "invalid", field=key)
    return value
