"""What must never happen, seen from the server's log; and what must have happened in the end.

Not from our code's opinion: who acquired a claim is whose commit the server took, and a closing is what a person did.
Pushes are fenced, so nothing excuses one. Opening a pull request has no precondition: one that was under way when
things changed (a few requests, however long its host froze among them) is counted as raced, and is no violation.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

from simulation.people import NOT_THIS, TAKE
from simulation.server import CLAIMS, Entry, Server
from simulation.world import Host, Proc, World
from watchbill.claims.record import ClaimRecord
from watchbill.claims.rules import MOST_TRIES, phase

LIFECYCLE = frozenset({TAKE, "agent:in-flight", "agent:pr-open", "agent:done", "needs:human"})
#: What one request may cost beyond a cap.
OVERSHOOT_MICRO = 50_000
KINDS = (
    "superseded",
    "second pull",
    "unwanted",
    "redone",
    "wrong pull",
    "clobbered",
    "healthy double",
    "attempts",
    "deaf",
    "lost work",
    "over cap",
    "bug",
    "stuck",
    "leak",
    "labels",
)


class Violation(NamedTuple):
    """One, with what a person needs to see it in the trace."""

    kind: str  # of KINDS
    at: float
    number: int
    text: str


class _Of:
    """What is known of one issue."""

    def __init__(self) -> None:
        self.acquired: dict[str, float] = {}  # firing -> when, in order
        self.generations: dict[int, float] = {}
        self.published: tuple[int, int] | None = None  # the last that did: generation, label event that authorised it
        #: A person's no (closed, pull, said no): when, and the label event after which a newer one allows more.
        self.closings: dict[str, tuple[float, int]] = {}
        self.state = ""  # of the claim
        self.left_published_at = -1.0  # when the claim last ceased to be published or pr
        self.failures = 0  # runs that came to nothing by their own fault, since a person's word
        self.undisturbed: dict[str, tuple[int, float]] = {}  # firing -> its troubles, its host's frozen time by then
        self.running: dict[str, tuple[Proc, int]] = {}  # firing -> it, and its troubles when it began


class Watch:
    """Listens to the server while a schedule runs."""

    def __init__(self, world: World, server: Server, renew_s: float) -> None:
        self.renew_s = renew_s
        self.world = world
        self.server = server
        self.violations: list[Violation] = []
        self.counts: Counter[str] = Counter()
        self._of: dict[int, _Of] = {}
        self._numbers: dict[str, int] = {}  # firing -> the issue it acquired
        server.listeners.append(self._seen)
        world.on_run = self._run
        world.on_told = self._told
        world.on_dropped = self._dropped

    def _violation(self, kind: str, number: int, text: str) -> None:
        self.violations.append(Violation(kind, self.world.now, number, text))
        self.world.say("VIOLATION", f"{kind} #{number}: {text}")

    def _about(self, number: int) -> _Of:
        return self._of.setdefault(number, _Of())

    def _seen(self, entry: Entry) -> None:
        handler = {
            "claim": self._claim,
            "branch": self._branch,
            "pull opened": self._opened,
            "pull closed": self._closing,
            "pull merged": self._closing,
            "closed": self._closing,
            "reopened": self._reopening,
            "pull reopened": self._reopening,
            "labelled": self._labelled,
            "unlabelled": self._labelled,
        }.get(entry.kind)
        if handler is not None:
            handler(entry, self._about(entry.number))

    # People

    def _closing(self, entry: Entry, of: _Of) -> None:
        if entry.by is None:
            authority = of.published[1] if of.published else 0
            of.closings[entry.kind if entry.kind == "closed" else "pull"] = (entry.at, authority)

    def _reopening(self, entry: Entry, of: _Of) -> None:
        if entry.by is None:
            of.closings.pop("closed" if entry.kind == "reopened" else "pull", None)

    def _labelled(self, entry: Entry, of: _Of) -> None:
        if entry.by is not None:
            return
        added = entry.kind == "labelled"
        if entry.facts["label"] == NOT_THIS and added:
            of.closings["said no"] = (entry.at, 0)
        elif entry.facts["label"] == NOT_THIS:
            of.closings.pop("said no", None)
        elif entry.facts["label"] == TAKE and added:
            of.failures = 0

    def _asked_again(self, number: int, authority: int) -> bool:
        """Has a person put the label there since what was authorised by that event?"""
        return any(
            event.label == TAKE and event.added and person and event.id > authority
            for event, person, _ in self.server.issues[number].events
        )

    def _unwanted(self, entry: Entry, of: _Of, what: str) -> None:
        """Work that reaches people after they said no: a closed issue, or a closed pull request of that work."""
        said_no = [
            (at, kind)
            for kind, (at, authority) in of.closings.items()
            if kind != "pull" or not self._asked_again(entry.number, authority)
        ]
        if not said_no:
            return
        at, kind = max(said_no)
        if self.world.sending.get(entry.by, entry.at) <= at:
            self.counts["raced"] += 1
            return
        self._violation(
            "unwanted",
            entry.number,
            f"{what} {entry.at - at:.0f} s after a person said no ({kind})",
        )

    # Ours

    def _claim(self, entry: Entry, of: _Of) -> None:
        record: ClaimRecord | None = entry.facts["record"]
        if record is None:
            return
        if of.state in ("published", "pr") and record.state not in ("published", "pr"):
            of.left_published_at = entry.at
        of.state = record.state
        if record.sequence == 0 and record.state == "active":
            self._acquire(entry.by, entry.number)
            of.generations.setdefault(record.generation, entry.at)
            self._authority(entry, record)
            if of.published and not self._asked_again(entry.number, of.published[1]):
                self._violation(
                    "redone",
                    entry.number,
                    f"generation {record.generation} begins though generation"
                    f" {of.published[0]} had published, and nobody has asked again",
                )
        elif record.state == "published":
            of.published = (record.generation, record.label_event)
        elif record.state == "pr" and record.pr is not None:
            opened = [e.at for e in self.server.log if e.kind == "pull opened" and e.facts["pull"] == record.pr]
            if not opened or opened[0] < of.generations.get(record.generation, 0.0):
                self._violation(
                    "wrong pull",
                    entry.number,
                    f"generation {record.generation} calls #{record.pr} its own, which is older",
                )

    def _authority(self, entry: Entry, record: ClaimRecord) -> None:
        """A generation uses up every label event that it was shown, lest one of them pass for a later word."""
        shown = self.world.shown_events.get((entry.by, entry.number), 0)
        if record.label_event < shown:
            self._violation(
                "redone",
                entry.number,
                f"generation {record.generation} names label event {record.label_event}, though it was shown {shown}",
            )

    def _acquire(self, proc: Proc, number: int) -> None:
        of, firing = self._about(number), proc.firing
        if firing not in of.acquired:
            of.acquired[firing] = self.world.now
            of.undisturbed[firing] = (proc.troubles, proc.host.frozen_s)
            self._numbers[firing] = number

    def _told(self, proc: Proc, claims: list[str]) -> None:
        """git said "up to date" of a claim: whoever asked believes that it has won."""
        for ref in claims:
            self._acquire(proc, int(ref.removeprefix(CLAIMS)))

    def _superseded_by(self, firing: str, of: _Of) -> str | None:
        """Another firing that acquired the claim after this one; None: it is the last, or it is nobody's."""
        if firing not in of.acquired:
            return "everybody: it never had the claim"
        mine = of.acquired[firing]
        later = [other for other, at in of.acquired.items() if at > mine and other != firing]
        return later[-1] if later else None

    def _branch(self, entry: Entry, of: _Of) -> None:
        if entry.by is None:
            return
        old, new = entry.facts["old"], entry.facts["new"]
        commits = self.server.commits
        by_person = bool(old) and not commits[old].ours
        if by_person and not entry.facts["kept"] and not (new and self.server.is_ancestor(old, new)):
            merged = self.server.is_ancestor(old, self.server.refs["refs/heads/main"])
            if not merged:
                self._violation("clobbered", entry.number, f"a person's commit {old[:8]} was written over")
        if not new:
            return
        by = self._superseded_by(entry.by.firing, of)
        if by is not None:
            self._violation(
                "superseded",
                entry.number,
                f"a push of {entry.by.firing[-4:]} was accepted after {by[-4:]} had acquired the claim",
            )
        self._unwanted(entry, of, "work landed")

    def _opened(self, entry: Entry, of: _Of) -> None:
        if entry.by is None:
            return
        self.counts["pulls"] += 1
        record = self.server.claim_of(entry.number)
        head = entry.facts["head"]
        if (
            record is None
            or record.state not in ("published", "pr")
            or record.head is None
            or not (record.head == head or self.server.is_ancestor(record.head, head))
        ):
            if self.world.sending.get(entry.by, entry.at) <= of.left_published_at:
                self.counts["raced"] += 1  # asked for while it was right; a forge has no precondition on it
            else:
                state = phase(record) if record else "nobody's"
                self._violation(
                    "superseded",
                    entry.number,
                    f"pull request #{entry.facts['pull']} opened by {entry.by.firing[-4:]} while the claim is {state}",
                )
        if sum(pull.state == "open" for pull in self.server.pulls_of(entry.number)) > 1:
            self._violation("second pull", entry.number, f"#{entry.facts['pull']} is a second open pull request")
        self._unwanted(entry, of, f"pull request #{entry.facts['pull']} opened")

    # Runs

    def _run(self, proc: Proc, begins: bool) -> None:
        number = self._numbers.get(proc.firing)
        if number is None:
            return
        of = self._about(number)
        if not begins:
            self._stopped(proc, of, of.running.pop(proc.firing))
            return
        self.counts["runs"] += 1
        for other, (owner, _) in of.running.items():
            self.counts["double runs"] += 1
            healthy = (owner.troubles, owner.host.frozen_s) == of.undisturbed[other] and not self.world.outages
            if healthy and of.acquired[proc.firing] > of.acquired[other]:
                self._violation(
                    "healthy double", number, f"{proc.firing[-4:]} runs beside {other[-4:]}, which was never disturbed"
                )
        of.running[proc.firing] = (proc, proc.troubles)

    def _stopped(self, proc: Proc, of: _Of, at_start: tuple[Proc, int]) -> None:
        """A run that went on for longer than a renewal takes to notice that another owns the issue."""
        later = [at for other, at in of.acquired.items() if at > of.acquired[proc.firing] and other != proc.firing]
        if not later and not proc.dead and proc.came_to in ("crash", "no_change"):
            of.failures += 1
            if of.failures > MOST_TRIES:
                self._violation("attempts", self._numbers[proc.firing], f"{of.failures} failed runs on one word")
        if not later or proc.dead or self.world.outages:
            return
        deaf_s = self.world.now - max(later[0], proc.host.frozen_until)
        if deaf_s > self.renew_s + 2 * self.world.beat_s + 60.0 and proc.troubles == at_start[1]:
            self._violation("deaf", 0, f"{proc.firing[-4:]} ran on for {deaf_s:.0f} s after it had lost its claim")

    def _dropped(self, host: Host, path: str) -> None:
        """A worktree is removed: what lies in it must lie in a commit that something names."""
        tree = host.worktrees.get(path, "")
        if not path.endswith("/tree") or not tree.startswith("work-"):
            return
        named = set(host.local_refs.values()) | set(self.server.refs.values())
        todo, seen = list(named), set()
        while todo:
            sha = todo.pop()
            if sha in seen:
                continue
            seen.add(sha)
            if tree in self.server.commits[sha].tree.split("+"):
                return
            todo += self.server.commits[sha].parents
        self._violation("lost work", 0, f"{tree} was only in the worktree {path[-40:]}, which is gone")

    # The end

    def money(self, host: Host, cap_micro: int, live: int) -> None:
        """settled + reserved <= cap + one request for each of so many firings that may be live at once, now."""
        rows = host.connection.execute(
            "SELECT period, settled + reserved FROM spend WHERE scope = 'fleet_day' AND unit = 'usd'"
        ).fetchall()
        for period, spent in rows:
            if spent > cap_micro + OVERSHOOT_MICRO * live:
                self._violation("over cap", 0, f"{host.name} stands at {spent} of {cap_micro} on {period}")

    def unsettled(self, sweeps: bool) -> list[Violation]:
        """What is not yet as it must end, issue by issue and host by host."""
        found = [v for number in self.server.issues for v in self._issue(number, sweeps)]
        return found + [v for host in self.world.hosts if not host.gone for v in self._host(host)]

    def _issue(self, number: int, sweeps: bool) -> list[Violation]:
        issue, record = self.server.issues[number], self.server.claim_of(number)
        labels, is_open = set(issue.labels), issue.state == "open"
        ours = labels & LIFECYCLE
        at = phase(record)
        open_pulls = [pull for pull in self.server.pulls_of(number) if pull.state == "open"]

        def wrong(kind: str, text: str) -> list[Violation]:
            return [Violation(kind, self.world.now, number, f"{text}; labels {sorted(labels)}, issue {issue.state}")]

        if at == "none":
            waits = TAKE in labels and is_open and NOT_THIS not in labels
            in_the_way = f"refs/heads/watchbill/issue-{number}" in self.server.refs
            return wrong("stuck", "labelled, and nobody has claimed it") if waits and not in_the_way else []
        if at in ("active", "published", "active(role)"):
            return wrong("stuck", f"its claim is still {at}")
        assert record is not None
        anew = at in ("released(human)", "done") and self._asked_again(number, record.label_event)
        if (
            is_open and len(ours - ({TAKE} if anew else set())) > 1
        ):  # a person's word stands, also where it cannot be heeded yet
            return wrong("labels", f"{at} with two lifecycle labels")
        if at == "pr":
            pull = self.server.pulls.get(record.pr or 0)
            if pull is None:
                return wrong("stuck", f"pull request #{record.pr} does not exist")
            if pull.state == "open":
                if [p.number for p in open_pulls] != [pull.number]:
                    return wrong("second pull", f"open: {[p.number for p in open_pulls]}")
                return wrong("labels", "pr") if is_open and ours != {"agent:pr-open"} else []
            return wrong("stuck", f"its pull request #{pull.number} is {pull.state}") if sweeps else []
        if open_pulls:
            return wrong("stuck", f"{at}, and #{open_pulls[0].number} is open")
        if not is_open:
            return []
        if at == "released(retry)":
            good = TAKE in labels or NOT_THIS in labels or not ours
            return [] if good else wrong("labels", at)
        if at == "released(human)":
            if anew and TAKE in labels and NOT_THIS not in labels:
                in_the_way = self.server.refs.get(f"refs/heads/watchbill/issue-{number}") not in (None, record.head)
                return [] if in_the_way else wrong("stuck", "a person asked again, and nobody has claimed it")
            good = "needs:human" in labels or not ours or (anew and TAKE in labels)
            return [] if good else wrong("labels", at)
        return []

    def _host(self, host: Host) -> list[Violation]:
        ask = host.connection.execute
        found = []
        for what, statement in _LEFT.items():
            rows = ask(statement).fetchall()
            if rows:
                found.append(Violation("leak", self.world.now, 0, f"{host.name}: {what}: {rows[:2]}"))
        trees = host.worktrees.keys() - host.unknown_trees
        if trees:
            found.append(Violation("leak", self.world.now, 0, f"{host.name}: worktrees {sorted(trees)[:2]}"))
        return found


_LEFT: dict[str, Any] = {
    "live claim rows": "SELECT firing, number, state, record FROM claims WHERE state IN ('intended', 'won')",
    "open reservations": "SELECT firing, scope FROM reservations WHERE settled IS NULL",
    "firings that have not ended": "SELECT id, agent FROM firings WHERE ended IS NULL",
    "leases of the poll": "SELECT query, refreshing_by FROM polls WHERE refreshing_by IS NOT NULL",
}
