"""The practice forge's REST API: from one request, already read, to its answer with GitHub's headers."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import threading
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

# The imports enter the handlers into the table of routes.
from watchbill.practice import api_issues, api_pulls, api_repos, routes  # noqa: F401
from watchbill.practice.faults import Rule
from watchbill.practice.records import State, User
from watchbill.practice.routes import Answer, Call, Refusal
from watchbill.practice.store import Store

#: GitHub's primary limit for a person's token, requests an hour. Counted and told, enforced only by a fault.
HOURLY_LIMIT = 5000


class Asked(NamedTuple):
    """One request of the API."""

    method: str
    target: str  # path and query, as sent
    headers: dict[str, str]  # by lower-case name
    body: bytes
    site: str  # "http://127.0.0.1:PORT", as the client called us


class Quota:
    """Requests counted a login and hour."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._used: dict[tuple[str, int], int] = {}

    def headers(self, login: str, now: int, *, cost: int = 1) -> dict[str, str]:
        """Count `cost` requests and say what remains."""
        hour = now // 3600
        with self._lock:
            used = self._used[(login, hour)] = self._used.get((login, hour), 0) + cost
        return {
            "x-ratelimit-limit": str(HOURLY_LIMIT),
            "x-ratelimit-remaining": str(max(HOURLY_LIMIT - used, 1)),
            "x-ratelimit-used": str(used),
            "x-ratelimit-reset": str((hour + 1) * 3600),
            "x-ratelimit-resource": "core",
        }


def who(state: State, authorization: str) -> User | None:
    """The user a header names, None for none at all; Refusal 401 for credentials that are not ours."""
    scheme, _, given = authorization.strip().partition(" ")
    if not scheme:
        return None
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            given = ""
    elif scheme.lower() not in {"token", "bearer"}:
        given = ""
    given = given.strip()
    found = next((user for user in state.users.values() if user.token and user.token == given), None)
    if found is None:
        raise Refusal(401, "Bad credentials")
    return found


def plain_path(path: str) -> tuple[str, str]:
    """("/api/v3", "/user") for an Enterprise path, ("", "/user") for GitHub's own."""
    if path.startswith("/api/v3/"):
        return "/api/v3", path.removeprefix("/api/v3")
    return "", path


def answer(asked: Asked, store: Store, quota: Quota, fault: Rule | None) -> Answer:
    """Do what is asked and say so as GitHub does; of the faults only a stale read and the limits are seen to here."""
    present = store.snapshot()
    now = int(store.clock.now())
    try:
        user = who(present, asked.headers.get("authorization", ""))
    except Refusal as refusal:
        return _complete(refusal.answer, {}, asked, now)
    login = user.login if user else ""
    if fault is not None and fault.kind in {"rate_primary", "rate_secondary"}:
        return _complete(_limited(fault), quota.headers(login, now) | _limit_headers(fault, now), asked, now)
    given = _respond(asked, store, present, user, fault)
    unchanged = _matches(given, asked)
    return _complete(given, quota.headers(login, now, cost=0 if unchanged else 1), asked, now)


def _respond(asked: Asked, store: Store, present: State, user: User | None, fault: Rule | None) -> Answer:
    url = urlsplit(asked.target)
    prefix, path = plain_path(url.path)
    if path == "/rate_limit":
        return _rate_limit(int(store.clock.now()))
    try:
        body = json.loads(asked.body) if asked.body.strip() else {}
    except ValueError:
        return Refusal(400, "Problems parsing JSON").answer
    stale = fault is not None and fault.kind == "stale" and asked.method == "GET"
    state = store.ago(seconds=fault.seconds, writes=fault.writes) if fault and stale else present
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    call = Call(store, state, not stale, user, 0, (), query, body, asked.site, prefix, path)
    return routes.dispatch(asked.method, call)


def _rate_limit(now: int) -> Answer:
    reset = (now // 3600 + 1) * 3600
    core = {"limit": HOURLY_LIMIT, "used": 0, "remaining": HOURLY_LIMIT, "reset": reset}
    return Answer(200, {"resources": {"core": core, "search": {**core, "limit": 30, "remaining": 30}}, "rate": core})


def _limited(fault: Rule) -> Answer:
    status = 429 if fault.status == 429 else 403  # GitHub answers either
    if fault.kind == "rate_primary":
        return Refusal(status, "API rate limit exceeded for user.").answer
    told = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."
    return Refusal(status, told).answer


def _limit_headers(fault: Rule, now: int) -> dict[str, str]:
    wait_s = math.ceil(fault.seconds) or 60
    if fault.kind == "rate_primary":
        return {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(now + wait_s), **fault.headers}
    return {"Retry-After": str(wait_s), **fault.headers}


def _payload(given: Answer) -> bytes:
    return b"" if given.body is None else json.dumps(given.body, separators=(",", ":")).encode()


def _etag(given: Answer) -> str:
    # With the Link header in it: another page was added, though this one is as it was.
    digest = hashlib.sha256(_payload(given) + given.headers.get("Link", "").encode()).hexdigest()
    return f'W/"{digest}"'


def _matches(given: Answer, asked: Asked) -> bool:
    sent = asked.headers.get("if-none-match")
    return asked.method == "GET" and given.status == 200 and sent is not None and sent == _etag(given)


def _complete(given: Answer, limits: dict[str, str], asked: Asked, now: int) -> Answer:
    """The answer as bytes, with the headers every answer has, or 304 for one the client knows."""
    headers = {
        "X-GitHub-Media-Type": "github.v3; format=json",
        "X-GitHub-Request-Id": f"{now:x}:{id(asked):x}",
        **limits,
        **given.headers,
    }
    if asked.method == "GET" and given.status == 200:
        headers |= {"ETag": _etag(given), "Cache-Control": "private, max-age=60, s-maxage=60", "Vary": "Authorization"}
        if _matches(given, asked):
            return Answer(304, b"", headers)
    if given.body is not None:
        headers["Content-Type"] = "application/json; charset=utf-8"
    return Answer(given.status, _payload(given), headers)
