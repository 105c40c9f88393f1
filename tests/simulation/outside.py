# ruff: noqa: ARG001, ARG002 - the arguments are those of the ports that are stood in for.
"""What a firing meets at its ports: the forge's three Protocols, git's verbs, a mirror, an engine; all of the model.

`ClaimRefs` and most of `Mirror` are the shipped code: only the git below them is this one.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from simulation import server as model
from simulation.people import TAKE
from simulation.server import EMPTY_TREE, Server
from simulation.world import NoAnswer, Proc, World, current
from watchbill import git as real_git
from watchbill.engines.base import Result, Usage
from watchbill.engines.supervise import CheckRun, Heard
from watchbill.forge.base import (
    Comment,
    Issue,
    LabelEvent,
    Listing,
    Person,
    Pull,
    RateLimited,
    RepositoryFacts,
    Unknown,
    Unreachable,
)
from watchbill.git import Advertised, Done, GitError, Identity, Pushed, RefStatus, Remote
from watchbill.mirror import Mirror
from watchbill.scan import DEFAULT, Change, Policy

PATH = "/model/{}/acme__api.git"


def stale_s(proc: Proc) -> float:
    """How old a list is that this firing is shown: mostly of now, sometimes of seconds or a minute ago."""
    world = proc.world
    draw, key = proc.rng.random(), (*proc.key, proc.points, "stale")
    if world.quiet:
        return 0.0
    stale = key in world.replay if world.replay is not None else draw < world.rates.stale
    if not stale:
        return 0.0
    world.faults[key] = "stale"
    return min(60.0, -5.0 * math.log(max(1e-9, (draw * 997.0) % 1.0)))


class _Session:
    def __init__(self, server: Server) -> None:
        self.server = server

    def ask(self, what: str, answer: Callable[[], Any]) -> Any:
        """Tried twice, as the shipped client does."""
        proc = current()
        for again in (True, False):
            try:
                return proc.request(what, answer)
            except NoAnswer as lost:
                _limited(proc)
                if not again:
                    raise Unreachable(f"{what}: no answer") from lost
                proc.sleep(1.0)
        raise AssertionError

    def tell(self, what: str, answer: Callable[[], Any], *, twice: bool = False) -> Any:
        proc = current()
        for again in (True, False) if twice else (False,):
            try:
                return proc.request(what, answer)
            except NoAnswer as lost:
                if not again:
                    _limited(proc)
                    raise Unknown(f"{what}: no answer") from lost
                proc.sleep(1.0)
        raise AssertionError


def _limited(proc: Proc) -> None:
    """Some requests that were not executed were turned away for asking too much."""
    if proc.world.faults.get((*proc.key, proc.points - 1)) == "lost" and proc.points % 8 == 0:
        raise RateLimited("403 secondary rate limit", 403, until=None, secondary=True)


class IssuesPort(_Session):
    def listed(self, repo: str, label: str, validator: str | None, *, closed: bool = False) -> Listing:
        ago = stale_s(current())

        def answer() -> Listing:
            issues, _ = self.server.past(ago)
            found = tuple(i for i in issues if (closed or i.state == "open") and label in i.labels)
            tag = str(hash(tuple((i.number, i.updated_at, len(i.labels)) for i in found)))
            return Listing(None if tag == validator else found, tag, 1)

        return self.ask("list issues", answer)

    def read(self, repo: str, number: int) -> Issue:
        proc = current()
        found = self.ask(f"read issue {number}", lambda: self.server.issue(number))
        proc.world.on_read(proc, number)
        return found

    def comments(self, repo: str, number: int) -> tuple[Comment, ...]:
        ago = stale_s(current())
        return self.ask(f"list comments of {number}", lambda: self.server.comments(number, ago))

    def label_events(self, repo: str, number: int) -> tuple[LabelEvent, ...]:
        proc, ago = current(), stale_s(current())
        found = self.ask(f"list label events of {number}", lambda: self.server.label_events(number, ago))
        newest = max((event.id for event in found if event.added and event.label == TAKE), default=0)
        proc.world.shown_events[proc, number] = newest
        return found  # type: ignore[no-any-return]

    def add_labels(self, repo: str, number: int, labels: tuple[str, ...]) -> None:
        proc, me = current(), self.server.account
        self.tell(f"label {number} {','.join(labels)}", lambda: self.server.label(number, labels, me, proc), twice=True)

    def remove_label(self, repo: str, number: int, label: str) -> None:
        proc, me = current(), self.server.account
        self.tell(f"unlabel {number} {label}", lambda: self.server.unlabel(number, label, me, proc), twice=True)

    def comment(self, repo: str, number: int, body: str) -> Comment:
        proc, me = current(), self.server.account
        return self.tell(f"comment on {number}", lambda: self.server.comment(number, body, me, proc))

    def edit_comment(self, repo: str, comment_id: int, number: int, body: str) -> Comment:
        me = self.server.account
        return self.tell(
            f"edit comment of {number}", lambda: self.server.edit_comment(number, comment_id, body, me), twice=True
        )


class PullsPort:
    def __init__(self, session: _Session) -> None:
        self.session = session
        self.server = session.server

    def by_head(self, repo: str, branch: str) -> tuple[Pull, ...]:
        return self._list(f"list pulls of {branch}", lambda pull: pull.head_ref == branch)

    def open_from(self, repo: str, prefix: str) -> tuple[Pull, ...]:
        return self._list("list open pulls", lambda pull: pull.state == "open" and pull.head_ref.startswith(prefix))

    def _list(self, what: str, wanted: Callable[[Pull], bool]) -> tuple[Pull, ...]:
        ago = stale_s(current())
        found = self.session.ask(what, lambda: self.server.past(ago)[1])
        return tuple(sorted((p for p in found if wanted(p)), key=lambda p: -p.number))

    def read(self, repo: str, number: int) -> Pull:
        def answer() -> Pull:
            if number not in self.server.pulls:
                raise model.NotFound(f"no pull request {number}", 404)
            return self.server.pulls[number]

        return self.session.ask(f"read pull {number}", answer)

    def create(self, repo: str, *, head: str, base: str, title: str, body: str, draft: bool) -> Pull:
        proc, me = current(), self.server.account
        sent = len(proc.requests)
        since = proc.requests[max(0, sent - proc.world.unfenced)] if proc.requests else proc.world.now
        proc.world.sending[proc] = since
        return self.session.tell(
            f"create pull {head}", lambda: self.server.create_pull(head, base, title, body, draft, me, proc)
        )


class RepositoryPort:
    def __init__(self, session: _Session) -> None:
        self.session = session
        self.server = session.server

    def facts(self, repo: str) -> RepositoryFacts:
        return self.session.ask(
            "read repository", lambda: RepositoryFacts(model.REPO_ID, repo, "main", False, True, True)
        )

    def permission(self, repo: str, login: str) -> str:
        return self.session.ask(f"permission of {login}", lambda: "write")

    def whoami(self) -> Person:
        return self.session.ask("who am I", lambda: self.server.account)

    def labels(self, repo: str) -> tuple[str, ...]:
        return ()

    def create_label(self, repo: str, name: str, color: str, description: str) -> None:
        pass


class ForgePort:
    """Satisfies `forge.base.Forge`."""

    def __init__(self, server: Server) -> None:
        reads = _Session(server)
        self.issues = IssuesPort(server)
        self.pulls = PullsPort(reads)
        self.repository = RepositoryPort(reads)
        self.calls = 0

    def close(self) -> None:
        pass


class Git:
    """Stands for the module `watchbill.git` where claims and mirrors use it. Which host: by whose firing asks."""

    GitError = GitError
    Identity = Identity
    Remote = Remote
    zsplit = staticmethod(real_git.zsplit)
    is_local = staticmethod(real_git.is_local)

    def __init__(self) -> None:
        self.server: Server = None  # type: ignore[assignment]

    # Over the network

    def ls_remote(self, remote: Remote, *patterns: str, timeout_s: float = 60.0) -> Advertised:
        def answer() -> Advertised:
            shown = self.server.refs
            if not patterns:
                return Advertised(dict(shown), "main")
            found = {}
            for pattern in patterns:
                if pattern == "HEAD":
                    found["HEAD"] = shown["refs/heads/main"]
                elif pattern.endswith("*"):
                    begin = pattern[:-1]
                    found.update((name, sha) for name, sha in shown.items() if name.startswith(begin))
                elif pattern in shown:
                    found[pattern] = shown[pattern]
            return Advertised(found, "main" if "HEAD" in patterns else None)

        return self._ask("ls-remote", answer, timeout_s)

    def fetch(self, git_dir: str, remote: Remote, *refspecs: str, timeout_s: float = 1800.0) -> None:
        host = current().host

        def answer() -> dict[str, tuple[str, str]]:
            got = {}
            for spec in refspecs:
                name, _, to = spec.removeprefix("+").partition(":")
                if name in self.server.commits:
                    got[name] = (name, to)
                elif name in self.server.refs:
                    got[name] = (self.server.refs[name], to)
                else:
                    raise GitError(("fetch",), 128, "", f"fatal: couldn't find remote ref {name}")
            return got

        for sha, to in self._ask("fetch", answer, 60.0).values():
            self._have(host.objects, sha)
            if to:
                host.local_refs[to] = sha

    def push(
        self,
        git_dir: str,
        remote: Remote,
        refspecs: Sequence[str],
        leases: dict[str, str],
        *,
        timeout_s: float = 120.0,
    ) -> Pushed:
        """As git does it: read the refs, decide what is stale or up to date, then send only what changes."""
        proc = current()
        try:
            shown = proc.request("push: reads refs", lambda: dict(self.server.refs), timeout_s, "git")
        except NoAnswer:
            return Pushed(128, {}, "fatal: unable to access the remote: connection reset")
        statuses, commands, stale = {}, {}, False
        for spec in refspecs:
            new, _, ref = spec.partition(":")
            old = shown.get(ref, "")
            if new == old and new:
                statuses[ref] = RefStatus("=", "[up to date]")
            elif leases.get(ref, old) != old:
                stale = True
                statuses[ref] = RefStatus("!", "[rejected] (stale info)")
            elif not new and not old:
                return Pushed(1, {}, f"error: unable to delete '{ref}': remote ref does not exist")
            else:
                commands[ref] = (old, new)
        if stale:
            statuses |= {ref: RefStatus("!", "[rejected] (atomic push failed)") for ref in commands}
            return Pushed(1, statuses, "error: failed to push some refs")
        if not commands:
            proc.world.on_told(proc, [ref for ref in statuses if ref.startswith(model.CLAIMS)])
            return Pushed(0, statuses, "")
        words = "push: sends " + ", ".join(
            f"{ref.removeprefix('refs/')} {old[:6] or '-'}>{new[:6] or '-'}" for ref, (old, new) in commands.items()
        )
        proc.world.sending[proc] = proc.requests[max(0, len(proc.requests) - proc.world.unfenced)]
        for ref in commands:
            if ref.startswith(model.WORK) and commands[ref][1]:
                proc.world.on_publishing(proc, model.issue_of(ref))
        if proc.host.frozen_until > proc.world.now:
            proc.wait(proc.host.frozen_until)
        try:
            wrong = proc.request(words, lambda: self.server.update(commands, proc), timeout_s, "git")
        except NoAnswer:
            return Pushed(128, {}, "fatal: the remote end hung up unexpectedly")
        for ref, (old, new) in commands.items():
            if wrong is not None:
                statuses[ref] = RefStatus("!", f"[remote rejected] ({wrong[ref]})")
            else:
                statuses[ref] = RefStatus("-" if not new else "+" if old else "*", "[moved]")
        return Pushed(0 if wrong is None else 1, statuses, "" if wrong is None else "error: failed to push some refs")

    def _ask(self, what: str, answer: Callable[[], Any], timeout_s: float) -> Any:
        try:
            return current().request(what, answer, timeout_s, "git")
        except NoAnswer:
            raise GitError((what,), 128, "", "fatal: unable to access the remote: no answer") from None

    # In the mirror

    def _have(self, objects: set[str], sha: str) -> None:
        todo = [sha]
        while todo:
            one = todo.pop()
            if one not in objects:
                objects.add(one)
                todo += self.server.commits[one].parents

    def has_commit(self, git_dir: str, sha: str) -> bool:
        return sha in current().host.objects

    def message_of(self, git_dir: str, commit: str) -> bytes:
        if commit not in current().host.objects:
            raise GitError(("cat-file",), 128, "", f"fatal: bad object {commit}")
        return self.server.commits[commit].message.encode()

    def messages(self, git_dir: str, ids: Iterable[str], most_bytes: int = 1 << 20) -> dict[str, bytes]:
        return {sha: self.message_of(git_dir, sha) for sha in ids if sha in current().host.objects}

    def commit_tree(
        self,
        git_dir: str,
        tree: str,
        parents: Sequence[str],
        message: str,
        who: Identity,
        when: int,
    ) -> str:
        sha = self.server.commit(tree, tuple(parents), message, ours=True, salt=f"{who}{when}")
        current().host.objects.add(sha)
        return sha

    def hash_object(self, git_dir: str, data: bytes, kind: str = "blob") -> str:
        assert (data, kind) == (b"", "tree")
        return EMPTY_TREE

    def refs(self, git_dir: str, prefix: str) -> dict[str, str]:
        return {ref: sha for ref, sha in current().host.local_refs.items() if ref.startswith(prefix)}

    def update_ref(self, git_dir: str, ref: str, new: str, expected: str | None = None) -> bool:
        here = current().host.local_refs
        if expected is not None and here.get(ref, "") != expected:
            return False
        here[ref] = new
        return True

    def find(self, git_dir: str, rev: str) -> str | None:
        host = current().host
        rev = rev.removesuffix("^{commit}")
        if rev.endswith("^{tree}"):
            sha = self.find(git_dir, rev.removesuffix("^{tree}"))
            return self.server.commits[sha].tree if sha else None
        return host.local_refs.get(rev) or (rev if rev in host.objects else None)

    def rev_parse(self, git_dir: str, rev: str) -> str:
        found = self.find(git_dir, rev)
        if found is None:
            raise GitError(("rev-parse", rev), 1, "", "")
        return found

    def run(self, *argv: str, stdin: bytes | None = None, check: bool = True, **_: Any) -> Done:
        here = current().host.local_refs
        if argv[:2] == ("update-ref", "--stdin"):
            for line in (stdin or b"").decode().splitlines():
                verb, ref, sha = line.split(" ")[:3]
                assert verb == "update", line
                here[ref] = sha
        elif argv[:2] == ("update-ref", "-d"):
            here.pop(argv[2], None)
        elif argv[0] == "update-ref":
            here[argv[1]] = argv[2]
        elif argv[0] == "merge-tree":
            ours, theirs = argv[-2:]
            if int(ours[0] + theirs[0], 16) % 4 == 0:
                return Done(1, b"", "")  # a conflict
            both = "+".join(self.server.commits[sha].tree for sha in (ours, theirs))
            return Done(0, f"{both}\n".encode(), "")
        elif argv[0] == "fsck":
            return Done(0, b"", "")
        elif argv[:2] == ("log", "--first-parent"):
            sha, lines = argv[-1], []
            while sha:
                lines.append(f"{sha} {self.server.commits[sha].tree}")
                parents = self.server.commits[sha].parents
                sha = parents[0] if parents else ""
            return Done(0, "\n".join(lines).encode(), "")
        else:
            raise AssertionError(f"the model has no git {argv} (check={check})")
        return Done(0, b"", "")

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the model has no git.{name}")


GIT = Git()


class MirrorPort(Mirror):
    """The shipped mirror over the model's git; only what touches files is the model's own."""

    def ensure(self) -> None:
        pass

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        yield

    def add_worktree(self, path: str, commit: str, index_copy: str) -> None:
        proc = current()
        proc.check()
        proc.host.worktrees[path] = GIT.server.commits[commit].tree
        os.makedirs(path, mode=0o700)
        with open(index_copy, "w", encoding="ascii") as file:
            file.write("index\n")

    def drop_worktree(self, path: str) -> None:
        proc = current()
        proc.check()
        proc.world.on_dropped(proc.host, path)
        proc.host.worktrees.pop(path, None)
        shutil.rmtree(path, ignore_errors=True)

    def empty_trash(self) -> None:
        pass

    def freeze(self, worktree: str, base: str, index_copy: str) -> str:
        proc = current()
        proc.step("freezing")
        return proc.host.worktrees[worktree]

    def changes(self, base: str, tree: str, policy: Policy = DEFAULT) -> list[Change]:
        return [Change("done.txt", "A", "000000", "100644", 5, b"done\n", None, None)]

    def diff(self, base: str, tree: str) -> tuple[str, int, int]:
        return "+done\n", 1, 0


# Engine and checks


def run_engine(
    engine: Any,
    task: Any,
    isolation: Any,
    jail: Any,
    clock: Any,
    beat: Callable[[Heard], str | None],
    tariff: Any,
    **_: Any,
) -> Result:
    """A stretch of time in which the claim is kept, and at its end files that changed, or not."""
    proc = current()
    world: World = proc.world
    how, length_s, spends = world.engine_plan(proc)
    began, stopped = clock.elapsed(), None
    world.on_run(proc, True)
    try:
        while True:
            stopped = beat(Heard(Usage(), None, False, ()))
            left = length_s - (clock.elapsed() - began)
            if stopped is not None or left <= 0:
                break
            proc.sleep(min(left, world.beat_s))
        if task.workdir in proc.host.worktrees and how != "no_change":
            proc.host.worktrees[task.workdir] = f"work-{task.firing}"
        proc.came_to = "" if stopped else how
    finally:
        world.on_run(proc, False)
    verdict = "interrupted" if stopped else "crash" if how == "crash" else "ok"
    usage = Usage(10, 5, 1, spends)
    return Result(
        verdict,
        None,
        0 if verdict == "ok" else 1,
        usage,
        spends,
        "engine",
        None,
        stopped,
        0,
        "done",
        "",
        task.log,
        "none",
        clock.elapsed() - began,
    )


def run_check(argv: Any, *, firing: str, log: str, clock: Any, beat: Callable[[], str | None], **_: Any) -> CheckRun:
    proc = current()
    stopped = beat()
    proc.sleep(20.0)
    stopped = stopped or beat()
    with open(log, "w", encoding="ascii") as file:
        file.write("ok\n")
    red = proc.world.check_is_red(proc, log)
    return CheckRun(1 if red else 0, None, stopped, 20.0, "ok", log, 0, "none")
