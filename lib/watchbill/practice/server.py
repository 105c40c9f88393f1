"""The practice forge: a GitHub-compatible API and git's smart HTTP on one loopback port.

    with serve(seed) as practice:
        github.Github(base_url=practice.url, auth=...)
        subprocess.run(["git", "clone", practice.git_url("acme/api")])

`practice.store` is what it knows, `practice.faults` what goes wrong on purpose, `practice.log` who asked what.
"""

from __future__ import annotations

import json
import re
from collections import deque
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from watchbill.clock import Clock, SystemClock
from watchbill.practice import api, faults, githttp, loopback, pulls
from watchbill.practice.records import State, allows, find_repo, role_of
from watchbill.practice.routes import Answer, Refusal
from watchbill.practice.seed import plant
from watchbill.practice.store import Store


class Logged(NamedTuple):
    """One request as it went."""

    method: str
    path: str  # with the query
    status: int  # what was sent; 0 when the connection ended without an answer
    login: str  # "" for nobody
    fault: str  # the kind of the rule that hit it, or ""
    at: float  # epoch seconds
    connection: int  # the client's port: which of its connections it came over


class Practice:
    """A running practice forge; a context manager that closes it."""

    def __init__(self, state: State, port: int, clock: Clock) -> None:
        self.store = Store(state, clock)
        self.faults = faults.Plan()
        self.log: deque[Logged] = deque(maxlen=100_000)  # appending is atomic
        self.quota = api.Quota()
        self._server = loopback.Server(type("Bound", (_Handler,), {"practice": self}), port)

    @property
    def port(self) -> int:
        return self._server.port

    @property
    def url(self) -> str:
        """The API's address; "/api/v3" below it is accepted as well."""
        return self._server.url

    def git_url(self, full_name: str, token: str = "") -> str:
        """The address git clones from; with a token in it, if given."""
        before = f"x-access-token:{token}@" if token else ""
        return f"http://{before}127.0.0.1:{self.port}/{full_name}.git"

    def snapshot(self) -> State:
        """Everything the forge knows now, pull requests brought up to date with their branches."""
        for repo_id in self.store.snapshot().repos:
            pulls.follow(self.store, repo_id)
        return self.store.snapshot()

    def close(self) -> None:
        """Stop serving and end every connection; idempotent."""
        self._server.close()

    def __enter__(self) -> Practice:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def serve(seed: dict[str, Any] | None = None, port: int = 0, clock: Clock | None = None) -> Practice:
    """Serve a seed (DESIGN section 13) on 127.0.0.1 from now until `close`; Fixable when the seed is wrong.

    Port 0 takes a free one: read `.port`. OSError when the port is taken.
    """
    clock = clock or SystemClock()
    return Practice(plant(seed or {}, int(clock.now())), port, clock)


class _Handler(loopback.Handler):
    practice: Practice

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path.startswith("/_practice/"):
            self._control(path)
        elif githttp.split(path):
            self._git(path)
        else:
            self._api(path)

    do_POST = do_PATCH = do_PUT = do_DELETE = do_GET

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The Date header, by the forge's own clock."""
        return super().date_time_string(self.practice.store.clock.now() if timestamp is None else timestamp)

    def _read(self) -> bytes:
        with loopback.request_body(self) as file:
            return file.read()

    def _fault(self, path: str, login: str, *, git: bool = False) -> faults.Rule | None:
        """What hits this request, after its delay."""
        rule = self.practice.faults.strike(self.command, path, login, self.practice.store.clock.now(), git=git)
        if rule is not None and rule.delay_s:
            self.server.closing.wait(rule.delay_s)
        return rule

    def _finish(self, given: Answer, login: str, rule: faults.Rule | None) -> None:
        """Log and send: logged first, so that whoever has the answer finds it in the log."""
        kind = rule.kind if rule else ""
        silent = kind in {"lost_before", "lost_after"}
        if rule is not None and kind == "5xx_after":
            given = _broken(rule)
        self._log(0 if silent else given.status, login, kind)
        if silent:
            self.hang_up()
        else:
            self.send(given.status, given.headers, given.body or b"")

    def _log(self, status: int, login: str, kind: str) -> None:
        now = self.practice.store.clock.now()
        self.practice.log.append(Logged(self.command, self.path, status, login, kind, now, self.client_address[1]))

    def _login(self) -> str:
        try:
            user = api.who(self.practice.store.snapshot(), self.headers.get("Authorization", ""))
        except Refusal:
            return ""
        return user.login if user else ""

    def _api(self, path: str) -> None:
        body, login = self._read(), self._login()
        rule = self._fault(api.plain_path(path)[1], login)
        if rule is not None and rule.kind == "lost_before":
            given = Answer(0)
        elif rule is not None and rule.kind == "status":
            given = _broken(rule)
        else:
            headers = {name.lower(): value for name, value in self.headers.items()}
            site = f"http://{headers.get('host', self.practice.url.removeprefix('http://'))}"
            asked = api.Asked(self.command, self.path, headers, body, site)
            given = api.answer(asked, self.practice.store, self.practice.quota, rule)
        self._finish(given, login, rule)

    def _git(self, path: str) -> None:
        name, service = githttp.split(path) or ("", "")
        query = urlsplit(self.path).query
        login = self._login()
        rule = self._fault(path, login, git=True)
        state = self.practice.store.snapshot()
        repo = find_repo(state, name)
        refusal = self._git_refusal(state, name, githttp.writes(service, query))
        if refusal is None and rule is not None and rule.kind in {"lost_before", "status"}:
            refusal = _broken(rule)
        if refusal is not None or repo is None:
            self._read()
            self._finish(refusal or Answer(404), login, rule)
            return
        if rule is not None and rule.kind in {"lost_after", "5xx_after"}:
            githttp.answer(self, repo.git, service, query, user=login or "anonymous", deliver=False)
            self._pushed(repo.id, service, login)
            self._finish(Answer(0), login, rule)
            return
        kind = rule.kind if rule else ""
        user = login or "anonymous"
        githttp.answer(self, repo.git, service, query, user=user, told=lambda status: self._log(status, login, kind))
        self._pushed(repo.id, service, login)

    def _pushed(self, repo_id: int, service: str, login: str) -> None:
        """What a push does to pull requests, done now: a branch that is deleted and made again has been away."""
        if service == "git-receive-pack" and self.command == "POST":
            pulls.follow(self.practice.store, repo_id, login or None)

    def _git_refusal(self, state: State, name: str, writes: bool) -> Answer | None:
        """Why git may not, as GitHub says it: 401 to be asked for credentials, 403 to a person, 404 to a stranger."""
        try:
            user = api.who(state, self.headers.get("Authorization", ""))
        except Refusal:
            return _words(401, "Invalid username or token.")
        repo = find_repo(state, name)
        role = role_of(repo, user.login if user else None) if repo else "none"
        if user is None and (role == "none" or writes):
            return _words(401, "Repository not found or not for everybody.")
        if repo is None or role == "none":
            return _words(404, "Repository not found.")
        if writes and (not allows(role, "write") or repo.archived):
            who = user.login if user else "anonymous"
            return _words(403, f"Permission to {repo.full_name}.git denied to {who}.")
        return None

    def _control(self, path: str) -> None:
        """What a test does from another process: faults in, the log out."""
        body = self._read()
        plan = self.practice.faults
        if path == "/_practice/log" and self.command == "GET":
            given: Answer = _json(200, [one._asdict() for one in self.practice.log])
        elif path == "/_practice/faults" and self.command == "DELETE":
            plan.clear()
            given = Answer(204)
        elif path == "/_practice/faults" and self.command == "POST":
            try:
                plan.add(*faults.from_json(json.loads(body)))
                given = Answer(204)
            except (ValueError, TypeError, re.error) as error:
                given = _json(400, {"message": str(error)})
        else:
            given = _json(404, {"message": "Not Found"})
        self.send(given.status, given.headers, given.body or b"")


def _json(status: int, value: Any) -> Answer:
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json; charset=utf-8"})


def _words(status: int, words: str) -> Answer:
    headers = {"Content-Type": "text/plain", "Connection": "close"}
    if status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="GitHub"'
    return Answer(status, (words + "\n").encode(), headers)


def _broken(rule: faults.Rule) -> Answer:
    body = rule.body or json.dumps({"message": "practice fault", "documentation_url": "", "status": str(rule.status)})
    return Answer(rule.status, body.encode(), {"Content-Type": "application/json; charset=utf-8", **rule.headers})
