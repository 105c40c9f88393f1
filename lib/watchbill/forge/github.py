"""GitHub, spoken to through PyGithub: the only module that imports it.

PyGithub carries authentication, the connection and Enterprise addresses; requests go through its `Requester` one by
one, not through its objects, because those fetch themselves again when a field is missing (`issue.pull_request` of a
listed issue costs a request each) and hide how many requests a list took. Its retries and sleeps are off: it repeats
a POST after a 5xx, which may have been done already, and pacing is the ledger's business. So are GitHub's limits:
nothing here waits for their end; `base.Limits` is asked before each request.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import quote

import github
import github.Consts

from watchbill.clock import Clock, SystemClock
from watchbill.forge import base
from watchbill.forge.base import Answer, Comment, Issue, LabelEvent, Limits, Listing, Person, Pull, RepositoryFacts

_TIMEOUT_S = 15
#: Wait before the second and last try of what may be repeated.
_AGAIN_S = 0.3
#: A connection unused for so long is given up: an engine ran meanwhile, and what lies between may have forgotten it.
_IDLE_S = 30
_ROLES = ("admin", "maintain", "write", "triage", "read", "none")
# PyGithub keeps figures of its own from these, which nobody asks it for; over a number that is none it would lose the
# whole answer, in a ValueError.
github.Consts.headerRateReset = github.Consts.headerRateRemaining = ""
_NEXT = re.compile(r'<([^>]+)>;\s*rel="next"')


class _Reply(NamedTuple):
    status: int
    headers: Mapping[str, str]  # by lower-case name
    data: Any  # parsed JSON; None for an empty body


class GitHub:
    """A session as one account, for one thread. Satisfies `base.Forge`; close it when done."""

    def __init__(self, api_url: str, token: str, clock: Clock, limits: Limits) -> None:
        self._client = github.Github(
            auth=github.Auth.Token(token),
            base_url=api_url.rstrip("/"),
            timeout=_TIMEOUT_S,
            user_agent="watchbill",
            per_page=100,
            retry=None,
            seconds_between_requests=None,
            seconds_between_writes=None,
        )
        self._clock = clock
        self._limits = limits
        self._last_used_s = clock.elapsed()
        self.calls = 0
        self.issues: base.Issues = _Issues(self)
        self.pulls: base.Pulls = _Pulls(self)
        self.repository: base.Repository = _Repository(self)

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def __enter__(self) -> GitHub:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, path: str, parameters: dict[str, str] | None = None, headers: dict[str, str] | None = None) -> _Reply:
        """A read: tried twice, then `Unreachable`. `path` may be an address out of a Link header."""
        return self._ask("GET", path, parameters or {}, headers or {}, None, twice=True)

    def write(self, verb: str, path: str, body: Any = None, *, idempotent: bool = False) -> _Reply:
        """A write: tried once, twice when doing it again changes nothing, then `Unknown`."""
        return self._ask(verb, path, {}, {}, body, twice=idempotent)

    def every(self, path: str, **parameters: str) -> list[Any]:
        """All pages of a list."""
        reply = self.get(path, {**parameters, "per_page": "100"})
        return _list(reply) + self.rest(reply)

    def rest(self, reply: _Reply) -> list[Any]:
        """The pages after this one."""
        items: list[Any] = []
        while following := _NEXT.search(reply.headers.get("link", "")):
            reply = self.get(following.group(1))
            items += _list(reply)
        return items

    def _ask(
        self,
        verb: str,
        path: str,
        parameters: dict[str, str],
        headers: dict[str, str],
        body: Any,
        *,
        twice: bool,
    ) -> _Reply:
        if self._clock.elapsed() - self._last_used_s > _IDLE_S:
            self._client.close()
        for try_again in (True, False) if twice else (False,):
            try:
                return self._ask_once(verb, path, parameters, headers, body)
            except (base.Unreachable, base.Unknown):
                if not try_again:
                    raise
                self._clock.sleep(_AGAIN_S)
        raise AssertionError("the last try returns or raises")

    def _ask_once(self, verb: str, path: str, parameters: dict[str, str], headers: dict[str, str], body: Any) -> _Reply:
        lost = base.Unreachable if verb == "GET" else base.Unknown
        what = f"{verb} {path}"
        self._limits.before()
        self.calls += 1
        try:
            # A copy each time: the requester writes into parameters and headers.
            status, replied, text = self._client.requester.requestJson(
                verb, path, dict(parameters), dict(headers), body
            )
        except (OSError, RuntimeError) as error:  # requests' exceptions are OSErrors; RuntimeError: a bad redirection
            raise lost(f"{what}: no answer: {error}") from error
        finally:
            self._last_used_s = self._clock.elapsed()
        if status >= 500:
            raise lost(f"{what}: {status}", status)
        try:
            data = json.loads(text) if text else None
        except ValueError:
            data = None
            if status < 300:  # whatever answered was not the forge
                raise lost(f"{what}: {status}, but no JSON", status) from None
        reply = _Reply(status, replied, data)
        refusal = self._refusal(what, reply) if status >= 300 and status != 304 else None
        if isinstance(refusal, base.RateLimited):
            self._limits.limited(refusal)
        else:
            self._limits.answered(self._answer(verb, reply))
        if refusal is not None:
            raise refusal
        return reply

    def _refusal(self, what: str, reply: _Reply) -> base.ForgeError:
        """The error that an answer of 3xx or 4xx means (https://docs.github.com/en/rest/using-the-rest-api)."""
        status, words = reply.status, f"{what}: {reply.status} {_words(reply.data)}".rstrip()
        if status == 401:
            return base.Unauthorized(words, status)
        if status in {403, 429}:
            return self._limit(words, reply) or base.Unauthorized(words, status)
        if status in {404, 410, 451} or status < 400:  # 3xx: the repository has moved
            return base.NotFound(words, status)
        return base.Refused(words, status)

    def _limit(self, words: str, reply: _Reply) -> base.RateLimited | None:
        """Which limit was hit, and until when; None for a 403 that is none.

        Both come as 403 or as 429. A secondary limit may say how long to wait, the primary one says that nothing
        remains, and until when; either may be told with the other's headers
        (https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api).
        """
        spent = _number(reply.headers.get("x-ratelimit-remaining")) == 0
        # GitHub has no field for a secondary limit without Retry-After: only its words tell it from a 403 for good.
        secondary = "secondary rate limit" in _words(reply.data).lower() or (
            not spent and (reply.status == 429 or "retry-after" in reply.headers)
        )
        if not spent and not secondary:
            return None
        ends = (self._after_waiting(reply), self._reset(reply) if spent else None)
        until = max((end for end in ends if end is not None), default=None)
        return base.RateLimited(words, reply.status, until=until, secondary=secondary)

    def _after_waiting(self, reply: _Reply) -> int | None:
        """Retry-After as a moment: seconds, or a date by the server's clock (RFC 9110, 10.2.3)."""
        told = reply.headers.get("retry-after", "")
        seconds = _number(told)
        if seconds is None and (at := _date(told)) is not None:
            seconds = at - self._server_now(reply)
        return None if seconds is None else math.ceil(self._clock.now() + seconds)

    def _reset(self, reply: _Reply) -> int | None:
        """X-RateLimit-Reset, which is a moment of the server's clock, as one of ours."""
        told = _number(reply.headers.get("x-ratelimit-reset"))
        return None if told is None else math.ceil(self._clock.now() + told - self._server_now(reply))

    def _server_now(self, reply: _Reply) -> float:
        """What the server's clock said when it answered; ours, when it did not say."""
        at = _date(reply.headers.get("date", ""))
        return self._clock.now() if at is None else at

    def _answer(self, verb: str, reply: _Reply) -> Answer:
        remaining, limit = (_number(reply.headers.get(f"x-ratelimit-{name}")) for name in ("remaining", "limit"))
        return Answer(
            writes=verb != "GET",
            counted=reply.status != 304,
            remaining=None if remaining is None else int(remaining),
            limit=None if limit is None else int(limit),
            resets_at=self._reset(reply),
        )


def open_forge(api_url: str, token: str, clock: Clock | None = None, limits: Limits = base.UNLIMITED) -> GitHub:
    """A session with GitHub, GitHub Enterprise (`https://HOST/api/v3`) or the practice forge (`http://127.0.0.1:PORT`).

    `limits`: who keeps those that this account shares with other sessions. Asks nothing yet. ValueError when there is
    no token or the address is none.
    """
    if not token:
        raise ValueError("no token")
    if not re.match(r"https?://[^/]+", api_url):
        raise ValueError(f"no address of an API: {api_url!r}")
    return GitHub(api_url, token, clock or SystemClock(), limits)


class _Issues:
    def __init__(self, session: GitHub) -> None:
        self._session = session

    def listed(self, repo: str, label: str, validator: str | None, *, closed: bool = False) -> Listing:
        """See `base.Issues.listed`. A list of several pages gets no validator: that of its first would not see a
        change on a later one."""
        before = self._session.calls
        state = "all" if closed else "open"
        wanted = {"labels": label, "state": state, "sort": "created", "direction": "asc", "per_page": "100"}
        known = {"If-None-Match": validator} if validator else {}
        reply = self._session.get(f"/repos/{repo}/issues", wanted, known)
        if reply.status == 304:
            return Listing(None, validator, self._session.calls - before)
        more = _NEXT.search(reply.headers.get("link", "")) is not None
        raw = _list(reply) + self._session.rest(reply)
        issues = tuple(_issue(one) for one in raw if "pull_request" not in one)
        return Listing(issues, None if more else reply.headers.get("etag"), self._session.calls - before)

    def read(self, repo: str, number: int) -> Issue:
        return _issue(self._session.get(f"/repos/{repo}/issues/{number}").data)

    def comments(self, repo: str, number: int) -> tuple[Comment, ...]:
        return tuple(_comment(one) for one in self._session.every(f"/repos/{repo}/issues/{number}/comments"))

    def label_events(self, repo: str, number: int) -> tuple[LabelEvent, ...]:
        raw = self._session.every(f"/repos/{repo}/issues/{number}/events")
        events = [_label_event(one) for one in raw if one["event"] in {"labeled", "unlabeled"}]
        return tuple(sorted(events, key=lambda one: one.id))

    def add_labels(self, repo: str, number: int, labels: tuple[str, ...]) -> None:
        path = f"/repos/{repo}/issues/{number}/labels"
        self._session.write("POST", path, {"labels": list(labels)}, idempotent=True)

    def remove_label(self, repo: str, number: int, label: str) -> None:
        path = f"/repos/{repo}/issues/{number}"
        try:
            self._session.write("DELETE", f"{path}/labels/{quote(label, safe='')}", idempotent=True)
        except base.NotFound:
            # No field tells a label that is not on from an issue that is not there, or not for us.
            self._session.get(path)

    def comment(self, repo: str, number: int, body: str) -> Comment:
        return _comment(self._session.write("POST", f"/repos/{repo}/issues/{number}/comments", {"body": body}).data)

    def edit_comment(self, repo: str, comment_id: int, number: int, body: str) -> Comment:  # noqa: ARG002
        # `number` is for forges that address a comment through its issue; GitHub's comment ids stand alone.
        path = f"/repos/{repo}/issues/comments/{comment_id}"
        return _comment(self._session.write("PATCH", path, {"body": body}, idempotent=True).data)


class _Pulls:
    def __init__(self, session: GitHub) -> None:
        self._session = session

    def by_head(self, repo: str, branch: str) -> tuple[Pull, ...]:
        owner = repo.split("/")[0]
        raw = self._session.every(f"/repos/{repo}/pulls", head=f"{owner}:{branch}", state="all")
        # Looked at again: a filter that GitHub does not understand filters nothing, and an owner may own a fork.
        own = [one for one in raw if one["head"]["ref"] == branch and _same_repository(one)]
        return tuple(sorted((_pull(one) for one in own), key=lambda one: one.number, reverse=True))

    def open_from(self, repo: str, prefix: str) -> tuple[Pull, ...]:
        raw = self._session.every(f"/repos/{repo}/pulls", state="open")
        return tuple(_pull(one) for one in raw if one["head"]["ref"].startswith(prefix) and _same_repository(one))

    def read(self, repo: str, number: int) -> Pull:
        return _pull(self._session.get(f"/repos/{repo}/pulls/{number}").data)

    def create(self, repo: str, *, head: str, base: str, title: str, body: str, draft: bool) -> Pull:
        fields = {"head": head, "base": base, "title": title, "body": body, "draft": draft}
        return _pull(self._session.write("POST", f"/repos/{repo}/pulls", fields).data)


class _Repository:
    def __init__(self, session: GitHub) -> None:
        self._session = session

    def facts(self, repo: str) -> RepositoryFacts:
        raw = self._session.get(f"/repos/{repo}").data
        return RepositoryFacts(
            id=raw["id"],
            full_name=raw["full_name"],
            default_branch=raw["default_branch"],
            archived=raw["archived"],
            has_issues=raw["has_issues"],
            can_push=bool((raw.get("permissions") or {}).get("push", False)),
        )

    def permission(self, repo: str, login: str) -> str:
        raw = self._session.get(f"/repos/{repo}/collaborators/{quote(login, safe='')}/permission").data
        # `role_name` tells triage and maintain apart, but may be a role that an organization made up.
        role = raw.get("role_name")
        return str(role if role in _ROLES else raw["permission"])

    def whoami(self) -> Person:
        return _person(self._session.get("/user").data)

    def labels(self, repo: str) -> tuple[str, ...]:
        return tuple(one["name"] for one in self._session.every(f"/repos/{repo}/labels"))

    def create_label(self, repo: str, name: str, color: str, description: str) -> None:
        fields = {"name": name, "color": color, "description": description}
        try:
            self._session.write("POST", f"/repos/{repo}/labels", fields)
        except base.Refused as refused:
            try:
                self._session.get(f"/repos/{repo}/labels/{quote(name, safe='')}")
            except base.NotFound:
                raise refused from None


def _list(reply: _Reply) -> list[Any]:
    if not isinstance(reply.data, list):
        raise base.Unreachable(f"a list was asked for, {type(reply.data).__name__} came", reply.status)
    return reply.data


def _number(told: str | None) -> float | None:
    """A header's number, however it is written; None for what is none, or could be no count of anything."""
    try:
        number = float(told or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and abs(number) < 1e15 else None


def _date(told: str) -> float | None:
    """A moment of HTTP, UTC epoch seconds."""
    try:
        at = parsedate_to_datetime(told)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _words(data: Any) -> str:
    """GitHub's own words, with the reasons it lists."""
    if not isinstance(data, dict):
        return ""
    errors = data.get("errors")
    reasons = [
        str(one.get("message") or f"{one.get('field', '')} {one.get('code', '')}".strip())
        if isinstance(one, dict)
        else str(one)
        for one in (errors if isinstance(errors, list) else [])
    ]
    return ": ".join([str(data.get("message", "")), *reasons])


def _person(raw: Any) -> Person:
    """GitHub shows an account that was deleted as null, and on its pages as "ghost"."""
    return Person(raw["id"], raw["login"], raw["type"]) if raw else Person(0, "ghost", "User")


def _epoch(stamp: str) -> int:
    return int(datetime.fromisoformat(stamp).timestamp())


def _issue(raw: Any) -> Issue:
    return Issue(
        number=raw["number"],
        title=raw["title"],
        body=raw["body"] or "",
        state=raw["state"],
        labels=tuple(one if isinstance(one, str) else one["name"] for one in raw["labels"]),
        author=_person(raw["user"]),
        association=raw.get("author_association", "NONE"),
        comments=raw["comments"],
        created_at=_epoch(raw["created_at"]),
        updated_at=_epoch(raw["updated_at"]),
        url=raw["html_url"],
        locked=raw["locked"],
        is_pull="pull_request" in raw,
    )


def _comment(raw: Any) -> Comment:
    return Comment(
        id=raw["id"],
        author=_person(raw["user"]),
        association=raw.get("author_association", "NONE"),
        body=raw.get("body") or "",
        created_at=_epoch(raw["created_at"]),
        updated_at=_epoch(raw["updated_at"]),
    )


def _label_event(raw: Any) -> LabelEvent:
    added = raw["event"] == "labeled"
    return LabelEvent(raw["id"], raw["label"]["name"], added, _person(raw["actor"]), _epoch(raw["created_at"]))


def _same_repository(raw: Any) -> bool:
    return raw["head"]["repo"] is not None and raw["head"]["repo"]["id"] == raw["base"]["repo"]["id"]


def _pull(raw: Any) -> Pull:
    return Pull(
        number=raw["number"],
        head_ref=raw["head"]["ref"],
        head_sha=raw["head"]["sha"],
        head_repo_id=raw["head"]["repo"]["id"] if raw["head"]["repo"] else None,
        base_ref=raw["base"]["ref"],
        state=raw["state"],
        merged=raw["merged_at"] is not None,
        draft=bool(raw.get("draft", False)),
        title=raw["title"],
        body=raw["body"] or "",
        author=_person(raw["user"]),
        url=raw["html_url"],
    )
