"""What the protocol loses when one ingredient is taken out of the shipped code, each by a patch of a few lines.

They are the test of the invariants: a harness that finds nothing wrong with these would find nothing at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from simulation.outside import GIT
from simulation.people import Act
from simulation.schedule import Plan
from simulation.world import Rates, current
from watchbill import claim, mend
from watchbill.claims import rules
from watchbill.claims.record import ClaimRecord
from watchbill.claims.refs import ClaimRefs, Move, Seen, Verdict
from watchbill.claims.rules import Refusal, Start, Takeover
from watchbill.live import Firing

_swap = ClaimRefs.swap
_write = ClaimRefs.write
_takeover = mend.takeover
_work_branch = rules.work_branch
_is_ours = rules.is_ours
_may_start = rules.may_start
_renew = claim.renew


class Ablation(NamedTuple):
    """One ingredient less."""

    what: str
    finds: tuple[str, ...]  # the kinds of violation that it leads to
    patches: list[tuple[Any, str, Any]]
    #: Makes of any plan one in which the ingredient is needed; a schedule drawn at random needs it now and then.
    need: Callable[[Plan], Plan]


def _is_work(move: Move) -> bool:
    return bool(move.new) and move.ref.startswith("refs/heads/watchbill/issue-")


def _unfenced(self: ClaimRefs, moves: tuple[Move, ...], *, listed: bool) -> Verdict:
    """The work branch in a push of its own; the claim at most listed in it, where it stands."""
    first, work = moves[0], [move for move in moves if _is_work(move)]
    if not work:
        return _swap(self, *moves)
    specs = [f"{move.new}:{move.ref}" for move in work]
    leases = {move.ref: move.expected for move in work}
    if listed:
        specs.insert(0, f"{first.expected}:{first.ref}")
        leases[first.ref] = first.expected
    pushed = GIT.push(self.mirror.path, self.remote, specs, leases)
    if pushed.exit != 0:
        return _swap(self, *moves)
    return _swap(self, *(move for move in moves if not _is_work(move)))


def _listed(self: ClaimRefs, *moves: Move) -> Verdict:
    return _unfenced(self, moves, listed=True)


def _separate(self: ClaimRefs, *moves: Move) -> Verdict:
    return _unfenced(self, moves, listed=False)


def _same_for_all(self: ClaimRefs, record: ClaimRecord, parent: str | None, head: str | None) -> str:
    """A claim that says what is owned, and not by whom: equal claims are equal commits."""
    anybody = record._replace(nonce="0" * 16, firing="f", agent="a", host="h", boot="b", pid=0, issued=0, attempt=1)
    return _write(self, anybody, parent, head)


def _by_the_calendar(f: Firing, repo_id: int, number: int, seen: Seen) -> Takeover:
    known = _takeover(f, repo_id, number, seen)
    return known._replace(unchanged_s=f.now - seen.record.issued) if isinstance(seen.record, ClaimRecord) else known


def _stamped(number: int) -> str:
    return f"{_work_branch(number)}-{int(current().started)}" if number else _work_branch(number)


def _never(_f: Firing) -> None:
    return None


def _hears_nothing(f: Firing) -> None:
    _renew(f)


def _any_generation(pull: Any, record: ClaimRecord, repo_id: int) -> bool:
    return _is_ours(pull, record._replace(pr_floor=0), repo_id)


def _on_any_label(tip: Any, label_event: int, *more: Any, **named: Any) -> Start | Refusal:
    start = _may_start(tip, 2**40, *more, **named)
    return start._replace(label_event=min(start.label_event, label_event)) if isinstance(start, Start) else start


def _reread(self: ClaimRefs, *moves: Move) -> Verdict:
    """The branch's expected value is whatever is there."""
    shown = GIT.ls_remote(self.remote, *(move.ref for move in moves)).refs
    return _swap(self, *(m._replace(expected=shown.get(m.ref, "")) if _is_work(m) else m for m in moves))


def _frozen_at_the_push(p: Plan) -> Plan:
    """The owner's lid is closed between a push's reading of the refs and its sending; others watch, and sweep."""
    return _calm(p, Act(1, "publishing", 1, 0.0, "long freeze"))


def _two_at_once(p: Plan) -> Plan:
    return _calm(p)._replace(aligned=True)


def _long_work(p: Plan) -> Plan:
    """Longer than a claim lasts that nobody renews."""
    return _calm(p)._replace(works=(p.ttl_s * 3.0, p.ttl_s * 3.0), horizon_s=p.ttl_s * 6.0)


def _wrong_clocks(p: Plan) -> Plan:
    return _long_work(p)._replace(skews_s=tuple(7200.0 * (at % 2) for at in range(p.hosts)))


def _frozen_at_work(p: Plan) -> Plan:
    frozen = _calm(p, Act(1, "claimed", 1, 60.0, "long freeze"))
    return frozen._replace(works=(p.ttl_s * 8.0, p.ttl_s * 8.0), horizon_s=p.ttl_s * 9.0)


def _asked_for_while_open(p: Plan) -> Plan:
    return _calm(p, Act(1, "pull opened", 1, 60.0, "relabel"))


def _turned_down(p: Plan) -> Plan:
    return _calm(p, Act(1, "pull opened", 1, 60.0, "close pull"), Act(1, "pull closed", 1, 30.0, "label"))


def _turned_down_half_told(p: Plan) -> Plan:
    """The label edits are torn (the API is away after the claim, the host dies after the pull request)."""
    torn = _calm(
        p,
        Act(1, "claimed", 1, 0.0, "api away"),
        Act(1, "finished", 1, 0.05, "power cut"),
        Act(1, "finished", 1, 5.0, "close pull"),
    )
    return torn._replace(works=(310.0, 330.0), stewards=(False,) * torn.hosts)


def _reopened_meanwhile(p: Plan) -> Plan:
    return _calm(
        p,
        Act(1, "pull opened", 1, 60.0, "close pull"),
        Act(1, "pull closed", 1, 30.0, "label"),
        Act(1, "claimed", 2, 20.0, "reopen pull"),
    )._replace(works=(300.0, 500.0))


def _pushed_to(p: Plan) -> Plan:
    return _calm(p, Act(1, "claimed", 1, 20.0, "push"))._replace(works=(60.0, 300.0))


def _calm(p: Plan, *acts: Act) -> Plan:
    """A plan in which nothing happens but this: one labelled issue, three hosts that work and sweep."""
    three = min(3, p.hosts)
    return p._replace(
        hosts=three,
        acts=(Act(1, "start", 1, 0.0, "label"), *acts),
        rates=Rates(stale=0.1),
        outages=(),
        issues=1,
        crew=(1,) * three,
        stewards=(True,) * three,
        as_person=False,
        aligned=False,
        horizon_s=p.ttl_s * 5.0,
        period_s=p.ttl_s * 0.4,
    )


ABLATIONS = {
    "fence-listed": Ablation(
        "the claim is listed in the publishing push, and not advanced",
        ("superseded",),
        [(ClaimRefs, "swap", _listed)],
        _frozen_at_the_push,
    ),
    "fence-separate": Ablation(
        "work branch and claim are pushed one after the other",
        ("superseded",),
        [(ClaimRefs, "swap", _separate)],
        _frozen_at_the_push,
    ),
    "nonce": Ablation(
        "equal claims are equal commits",
        ("superseded", "healthy double"),
        [(ClaimRefs, "write", _same_for_all)],
        _two_at_once,
    ),
    "own-clock": Ablation(
        "expiry by `issued` and the time of day",
        ("healthy double",),
        [(mend, "takeover", _by_the_calendar)],
        _wrong_clocks,
    ),
    "renewal": Ablation("a claim is never renewed", ("healthy double", "deaf"), [(claim, "renew", _never)], _long_work),
    "renewal-unverified": Ablation(
        "a renewal that failed stops nothing", ("deaf",), [(claim, "renew", _hears_nothing)], _frozen_at_work
    ),
    "branch-name": Ablation(
        "the work branch is named by the time, too",
        ("second pull",),
        [(rules, "work_branch", _stamped)],
        _asked_for_while_open,
    ),
    "pr-floor": Ablation(
        "any pull request of the branch is ours", ("wrong pull",), [(rules, "is_ours", _any_generation)], _turned_down
    ),
    "label-event": Ablation(
        "a label that is there is a word",
        ("redone", "unwanted"),
        [(rules, "may_start", _on_any_label)],
        _turned_down_half_told,
    ),
    "kept-branch": Ablation(
        "rejected work stays on its branch",
        ("unwanted", "stuck"),
        [(claim, "aside", lambda *_: ())],
        _reopened_meanwhile,
    ),
    "branch-reread": Ablation(
        "the branch's expected value is read again before the push",
        ("clobbered",),
        [(ClaimRefs, "swap", _reread)],
        _pushed_to,
    ),
}
