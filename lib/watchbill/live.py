"""A firing as it lives: its row, its ports, its log, and what it has so far.

The steps are functions over it. What they achieve is kept here, so that whatever ends a firing, `settle` and `tidy`
know what there is to give back and what must not be lost.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, ParamSpec, TypeVar

from watchbill import deadline, holds, logs, scan
from watchbill.admit import Section
from watchbill.claims.record import ClaimRecord
from watchbill.compiled import Agent, Compiled, Labels, Repo, Use
from watchbill.engines.base import Filled, Result, Session
from watchbill.forge.base import Issue
from watchbill.ledger import decisions, steps
from watchbill.ledger import holds as hold_rows
from watchbill.ledger.decisions import Decision
from watchbill.ledger.firings import Firing as Row
from watchbill.ledger.holds import Hold
from watchbill.ledger.meters import Meter
from watchbill.outcomes import Ended
from watchbill.ports import Ports
from watchbill.signals import SETTLING, Signals
from watchbill.woken import Options

P = ParamSpec("P")
T = TypeVar("T")


class Target(NamedTuple):
    """An issue that may be claimed, read by number, and the terms on which."""

    repo: Repo
    repo_id: int
    default_branch: str
    issue: Issue
    digest: str  # of title and body: the input that attempts are counted by
    admitted: tuple[Section, ...]  # the text that may reach a model, cleaned; fenced by `brief`
    left_out: tuple[str, ...]  # what was not admitted, and why
    tip: str | None  # of the claim ref, as read
    previous: ClaimRecord | None  # the record there
    generation: int
    label_event: int  # the `labeled` event that authorises this generation
    labelled_by: str  # whose it is, for people
    attempt: int  # 1 for the first
    pr_floor: int  # the highest pull request of this head when the generation begins
    branch: str  # watchbill/issue-N
    base: str  # the default branch when the generation begins
    branch_tip: str | None  # the work branch as recorded at claim; moved only by our own pushes
    wip_tip: str | None  # what a stopped firing had done so far, as recorded at claim
    fixes_base: bool


class Claim(NamedTuple):
    """What we own, as last moved by us."""

    target: Target
    record: ClaimRecord
    tip: str


class Tree(NamedTuple):
    """The fresh worktree and the places beside it."""

    root: str  # worktrees/<firing>
    path: str  # the worktree
    index_copy: str  # of its index, where the engine cannot write
    home: str  # HOME of engine and checks
    tmp: str  # TMPDIR of engine and checks
    base: str  # commit it began as


class Work(NamedTuple):
    """What the engine changed, frozen."""

    tree: str  # git tree id
    commit: str  # on top of base; this is what is verified, kept and landed
    files: int
    added: int  # lines
    removed: int
    diff: str  # digest of the diff in blobs/


class Check(NamedTuple):
    """What one of the repository's checks said."""

    command: str
    exit: int
    limit: str | None  # "wall" when it was stopped
    duration_s: float
    digest: str  # of its output in blobs/
    tail: str  # the last lines, redacted
    isolation: str


class Firing:
    """The session of one firing."""

    def __init__(
        self, row: Row, agent: Agent, roster: Compiled, ports: Ports, options: Options, started_ms: int
    ) -> None:
        self.row = row
        self.agent = agent
        self.roster = roster
        self.fleet = roster.fleet
        self.ports = ports
        self.ledger = ports.ledger
        self.options = options
        self.started_ms = started_ms
        self.id = row.id
        self.claim: Claim | None = None
        self.intended: set[str] = set()  # every claim commit this firing meant to push
        self.tree: Tree | None = None
        self.result: Result | None = None
        self.work: Work | None = None
        self.checks: tuple[Check, ...] = ()
        self.base_checks: tuple[Check, ...] = ()
        self.pull: int | None = None
        self.kept: str | None = None  # ref of kept work
        self.kept_commit: str | None = None
        self.earlier: str | None = None  # work of a stopped firing: "applied" to the worktree, or it "conflicts"
        self.comment_ids: dict[tuple[int, int], int] = {}  # (repository id, issue) -> our one comment there
        self.session: Session | None = None  # a stopped firing's conversation, gone on with
        self.meter: Meter | None = None  # as last written down
        self.windows: tuple[Filled, ...] = ()  # as last written down
        self.used: Mapping[str, int] = {}  # what is settled by unit, once known and until it is on record
        self.canary_of: tuple[int, ...] = ()  # ids of the holds that this firing tries out for all others
        self.published = False  # the work is on its branch: from here on it is rolled forward, never back
        self.end_reason = ""
        self.told = False  # the one line on stdout is out
        self.counted = False  # this end counts as an attempt at the issue
        self.settled: tuple[int, str] | None = None  # micro-dollars and basis, once known
        self.signals = Signals()
        self.decided: list[Decision] = []
        self._ordinal = 0
        self._renewed_at = ports.clock.elapsed()
        self._renewal_tried_at = 0.0
        self.looked_at = ports.clock.elapsed()
        with contextlib.suppress(OSError):  # `note` says so
            os.makedirs(ports.home.logs, mode=0o700, exist_ok=True)
        self._log_path = os.path.join(ports.home.logs, f"{agent.name}.log")
        logs.rotate(self._log_path)

    @property
    def now(self) -> int:
        return int(self.ports.clock.now())

    @property
    def target(self) -> Target:
        assert self.claim is not None
        return self.claim.target

    @property
    def cost_micro(self) -> int:
        """What the engine cost, as far as is known now."""
        if self.settled is not None:
            return self.settled[0]
        return self.result.cost_micro if self.result else 0

    @property
    def cost_basis(self) -> str:
        if self.settled is not None:
            return self.settled[1]
        return self.result.basis if self.result else "not started"

    @property
    def use(self) -> Use | None:
        """What it runs on; None for a role without an engine."""
        return self.ports.use

    @property
    def signal(self) -> int | None:
        """What asks this firing to end."""
        return self.signals.number

    @property
    def engine_started(self) -> bool:
        return self.signals.spent

    @engine_started.setter
    def engine_started(self, started: bool) -> None:
        self.signals.spent = started

    def held(self, target: Target | None = None, *, beginning: bool = False) -> Hold | None:
        """The hold that forbids this firing to go on (with `target`, or with what it owns), read now.

        `beginning`: before anything is claimed or an engine started, also those that stop nothing under way.
        """
        now = self.now
        subjects = holds.subjects_of(self.agent, self.row.host, self.use)
        target = target or (self.claim and self.claim.target)
        if target is not None:
            subjects.update(holds.on_candidate(target.repo.full_name, target.issue.number))
        heeded = holds.heeded(hold_rows.standing(self.ledger, now), self.agent.name, now, self.id)
        applying = [hold for hold in holds.applying(heeded, subjects) if beginning or holds.stops(hold)]
        return applying[0] if applying else None

    @property
    def taken(self) -> set[str]:
        """Every label that some agent of the roster takes."""
        return {agent.takes for agent in (self.agent, *self.roster.agents.values()) if agent.takes}

    def labels_of(self, agent: str) -> Labels:
        """The lifecycle's labels for what this agent owns: `implement` is whatever it takes."""
        owner = self.roster.agents.get(agent)
        names = self.fleet.labels
        return names._replace(implement=owner.takes) if owner is not None and owner.takes else names

    def renewal_due(self) -> bool:
        """Not yet tried lately, either: a remote that says no is not asked at every beat."""
        now, every = self.ports.clock.elapsed(), self.fleet.claims.renew_s
        return now - self._renewed_at >= every and now - self._renewal_tried_at >= max(every / 10, min(every, 5))

    def renewal_tried(self, at: float) -> None:
        self._renewal_tried_at = at

    def looked(self) -> None:
        """A claim ref was just read, or moved by us."""
        self.looked_at = self.ports.clock.elapsed()

    def renewed(self, sent_at: float) -> None:
        """`sent_at`: before the push, for it may have been done long before its answer was seen."""
        self._renewed_at = sent_at

    def step(self, name: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run one step of the story, on record: when it began, how long it took, how it ended."""
        if name not in SETTLING:
            self.obey()
        self._ordinal += 1
        ordinal, clock = self._ordinal, self.ports.clock
        began = clock.now()
        self.say(f"step {name}")
        if self.options.dry_run:
            return function(*args, **kwargs)
        with self.ledger.transaction():
            steps.begin(self.ledger, self.id, ordinal, name, int(began * 1000))
        verdict, detail = "failed", None
        try:
            with self.signals.within(name):
                value = function(*args, **kwargs)
            verdict = "ok"
            return value
        except Ended as end:
            verdict, detail = "ended", end.ending.reason
            raise
        except Exception as error:
            detail = f"{type(error).__name__}: {error}"
            raise
        finally:
            spent_ms = int((clock.now() - began) * 1000)
            with self.ledger.transaction():
                steps.end(self.ledger, self.id, ordinal, spent_ms, verdict, detail and self.redact(detail)[:2000])

    def decide(self, *verdicts: Decision) -> None:
        """Put verdicts on record."""
        self.decided += verdicts
        if self.options.dry_run:
            return
        with self.ledger.transaction():
            for verdict in verdicts:
                decisions.add(self.ledger, self.id, self.now, verdict)

    def note(self, text: str, **facts: Any) -> None:
        """A line in the agent's log. Secrets are taken out first."""
        line = self.redact(text if not facts else f"{text} {json.dumps(facts, default=str, sort_keys=True)}")
        try:
            with open(self._log_path, "a", encoding="utf-8", errors="backslashreplace") as log:
                os.chmod(self._log_path, 0o600)
                log.write(f"{self.now} {self.id} {line}\n")
        except OSError as error:  # a full disk: the log is the first thing a firing can do without
            print(f"{self._log_path}: {error}", file=sys.stderr)

    def say(self, text: str) -> None:
        """A line in the log, and on a terminal progress for whoever is watching."""
        self.note(text)
        if sys.stderr.isatty():
            print(f"  {self.agent.name}: {self.redact(text)}", file=sys.stderr, flush=True)

    def alert(self, text: str) -> None:
        """A line in the log and on stderr, for whoever reads what a timer's firing says."""
        self.note(text)
        print(f"{self.agent.name}: {self.redact(text)}", file=sys.stderr, flush=True)

    def redact(self, text: str) -> str:
        """The text without what looks like a secret, and without the credentials that this process holds."""
        return scan.redact(text, self.ports.secrets())

    def heed_signals(self) -> None:
        """What asks the firing to end is heeded from now on, its own deadline too; nothing is dropped."""
        age_s = self.ports.clock.now() - self.started_ms / 1000
        limit_s, grace_s = deadline.of(self.agent, self.fleet), deadline.grace_of(self.fleet)
        self.signals.heed()
        self.signals.end_after(limit_s, age_s, grace_s, self.id, self._log_path)

    def obey(self) -> None:
        """Raise Ended when this firing was asked to end."""
        self.signals.obey()
