"""mend: put one issue right, whoever left it wrong, on facts that are read by number.

The next firing of a host does it for what a dead one left, the sweep for every claim of a repository, a person by hand.
What is to be done, `claims.reconcile` decides; here the facts are gathered and the repairs made, each an effect, the
claim by compare-and-swap from the tip that was read: of two who mend at once, one wins and nothing is done twice.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from watchbill import claim, effects, land, poll, projection
from watchbill.claims import reconcile, refs, rules
from watchbill.claims.reconcile import Facts
from watchbill.claims.record import VERSION, ClaimRecord
from watchbill.compiled import Repo
from watchbill.forge.base import Issue, NotFound, Person, Pull, Refused, Unknown
from watchbill.ledger import attempts, firings, polls, sightings, steps
from watchbill.ledger import effects as ledger_effects
from watchbill.live import Claim, Firing, Target

#: So often its pull request may fail to be opened; then a person has it (DESIGN section 6).
MOST_ROLLS = 5
#: A record that makes no sense is a person's after so long (DESIGN section 6).
_OLD_S = 86_400
_ROUNDS = 3
_ROLL = "roll forward"


class About(NamedTuple):
    """One issue as just read."""

    claim: Claim  # of an unreadable record: a stand-in that names the issue, and is never moved
    seen: refs.Seen
    facts: Facts
    pull: int | None  # this generation's own, if there is one


class Mended(NamedTuple):
    """What became of one issue."""

    phase: str  # of its claim now, as rules.phase has it; "none": nobody's; "unreadable"
    done: list[str]  # in words, in order


def mend(f: Firing, repo: Repo, number: int, seen: refs.Seen | None = None) -> Mended:
    """Until nothing is left to do. Raises what the outside raises, and Ended at a hold."""
    done: list[str] = []
    phase = "none"
    for _ in range(_ROUNDS):
        about = facts(f, repo, number, seen)
        seen = None
        phase = about.facts.phase if about else "none"
        repairs = due(f, about) if about else ()
        if about is None or not repairs:
            break
        for repair in repairs:
            if isinstance(repair, reconcile.Relabel):
                projection.relabel(f, about.claim, f"relabel by {f.id}", repair.add, repair.remove)
                done.append("labels put right")
            elif isinstance(repair, reconcile.OpenPull):
                about = about._replace(pull=_open(f, about))
                done.append(f"pull request #{about.pull} opened")
            else:
                moved = move(f, about, repair)
                if moved is None:
                    break  # another was faster: look again
                about, phase = moved, moved.facts.phase
                done.append(f"{repair.why}, so it is {phase} now")
                if repair.operation == "finish":
                    land.mark(f, about.claim.target, about.claim.record.pr or 0)
                if about.facts.issue != "gone":
                    projection.comment(f, about.claim, phase, why=repair.why)
    return Mended(phase, done)


def due(f: Firing, about: About) -> tuple[reconcile.Repair, ...]:
    """What has to be done about it, under the names that its owner's agent goes by."""
    return reconcile.reconcile(about.facts, f.labels_of(about.claim.record.agent))


def facts(f: Firing, repo: Repo, number: int, seen: refs.Seen | None = None) -> About | None:
    """None: there is no claim on it, or its record is of another repository."""
    if seen is None:
        seen = f.ports.claim_refs(repo).read(number)
        f.looked()
    if seen.record is None or seen.tip is None:
        return None
    repo_id = poll.facts(f, repo.full_name).id
    record = seen.record if isinstance(seen.record, ClaimRecord) else None
    if record is not None and record.repo_id != repo_id:
        f.note("a claim of another repository", issue=f"{repo.full_name}#{number}", repo_id=record.repo_id)
        return None
    issue = poll.issue_of(f, repo, number)
    known = takeover(f, repo_id, number, seen)
    stands_for = record or _nobody(repo_id, number, seen.tip)
    owned = Claim(target_of(f, repo, stands_for, issue or gone(number), seen), stands_for, seen.tip)
    pull, state = _pull(f, owned, known) if record else (None, "none")
    labels = frozenset(issue.labels) if issue else frozenset()
    found = Facts(
        phase=rules.phase(record) if record else "unreadable",
        owner=rules.owner(record or stands_for, known),
        issue=issue.state if issue else "gone",
        labels=labels,
        pull=state,
        branch=seen.branch_tip is not None,
        spent_tries=stands_for.attempt >= rules.MOST_TRIES,
        failed_rolls=_rolls(f, owned) >= MOST_ROLLS,
        new_word=record is not None and _new_word(f, owned, labels),
        old=record is None and known.unchanged_s >= _OLD_S,
    )
    return About(owned, seen, found, pull)


def takeover(f: Firing, repo_id: int, number: int, seen: refs.Seen) -> rules.Takeover:
    """What this host knows about the owner of a claim: over, or how long its tip has stood unchanged."""
    if seen.tip is None:
        return rules.Takeover(False, 0.0, f.fleet.claims.grace_s)
    unchanged = sightings.unchanged_s(f.ledger, repo_id, number, seen.tip, f.ports.clock.elapsed(), f.row.boot)
    dead = isinstance(seen.record, ClaimRecord) and seen.record.host == f.row.host and over(f, seen.record.firing)
    return rules.Takeover(dead, unchanged, f.fleet.claims.grace_s)


def over(f: Firing, firing: str) -> bool:
    """Whether a firing of this host has ended, by the ledger. One that it does not know may well be at work."""
    row = firings.get(f.ledger, firing)
    return row is not None and row.ended is not None


def target_of(f: Firing, repo: Repo, record: ClaimRecord, issue: Issue, seen: refs.Seen) -> Target:
    """What a claim is about, from its record and the issue as it is now."""
    return Target(
        repo=repo,
        repo_id=record.repo_id,
        default_branch=poll.facts(f, repo.full_name).default_branch,
        issue=issue,
        digest=poll.digest(issue),
        admitted=(),
        left_out=(),
        tip=seen.tip,
        previous=record,
        generation=record.generation,
        label_event=record.label_event,
        labelled_by="",
        attempt=record.attempt,
        pr_floor=record.pr_floor,
        branch=rules.work_branch(record.number),
        base=record.base,
        branch_tip=seen.branch_tip,
        wip_tip=seen.wip_tip,
        fixes_base=f.fleet.labels.fixes_base in issue.labels,
    )


def gone(number: int) -> Issue:
    """Stands for an issue that is deleted, or not visible to us."""
    nobody = Person(0, "ghost", "User")
    return Issue(number, "", "", "closed", (), nobody, "NONE", 0, 0, 0, "", locked=True, is_pull=False)


def _nobody(repo_id: int, number: int, tip: str) -> ClaimRecord:
    """Stands for a record that cannot be read: it names the issue, and no claim is ever moved by it."""
    return ClaimRecord(version=VERSION, repo_id=repo_id, number=number, generation=1, sequence=0, state="active",
                       role="", firing="", agent="", host="", boot="", pid=0, nonce="0" * 16, ttl=1, issued=0,
                       label_event=0, base=tip, head=None, pr_floor=0, pr=None, attempt=0, spent=0, outcome=None,
                       title=None, body=None)  # fmt: skip


def _pull(f: Firing, owned: Claim, known: rules.Takeover) -> tuple[int | None, str]:
    """This generation's pull request and its state: a known one read by number, else listed by the work branch."""
    record, target, pulls = owned.record, owned.target, f.ports.forge.pulls
    if record.pr is not None:
        try:
            return record.pr, _state(pulls.read(target.repo.full_name, record.pr))
        except NotFound:
            return record.pr, "unsure"
    if record.state != "published":
        return None, "none"
    for pull in pulls.by_head(target.repo.full_name, target.branch):
        if rules.is_ours(pull, record, target.repo_id):
            return pull.number, _state(pull)
    return None, "none" if _surely_absent(f, owned, known) else "unsure"


def _state(pull: Pull) -> str:
    return "merged" if pull.merged else pull.state


def _surely_absent(f: Firing, owned: Claim, known: rules.Takeover) -> bool:
    """Whether no pull request was ever opened for this generation: a list that shows none may be a minute old.

    Sure at once when its owner, of this host, died before it meant to, and no other host can have waited long enough;
    else when two lists, a grace apart, show none.
    """
    record, target = owned.record, owned.target
    meant = ledger_effects.get(f.ledger, effects.key(target, record.generation, land.PULL, land.pull_ordinal(record)))
    if known.dead_here and meant is None:
        began = [step.started_ms for step in steps.of_firing(f.ledger, record.firing) if step.name == "land"]
        if began and f.ports.clock.now() * 1000 - began[-1] < f.fleet.claims.grace_s * 1000:
            return True
    question = f"absent {target.repo_id}#{record.number} {owned.tip}"
    before, now_s = polls.get(f.ledger, question).body, f.ports.clock.elapsed()
    if before and before["boot"] == f.row.boot and before["elapsed_s"] <= now_s:
        return bool(now_s - before["elapsed_s"] >= f.fleet.claims.grace_s)
    with f.ledger.transaction():
        polls.take(f.ledger, question, f.id, f.now, f.now)
        polls.put(f.ledger, question, f.id, None, f.now * 1000, {"boot": f.row.boot, "elapsed_s": now_s})
    return False


def _new_word(f: Firing, owned: Claim, labels: frozenset[str]) -> bool:
    """Whether a person has put the label to be taken there since this generation was authorised."""
    takes = f.labels_of(owned.record.agent).implement
    if takes not in labels:
        return False
    events = f.ports.forge.issues.label_events(owned.target.repo.full_name, owned.record.number)
    word = rules.last_word(events, takes, poll.myself(f))
    return word is not None and word.id > owned.record.label_event


def _rolls(f: Firing, owned: Claim) -> int:
    record = owned.record
    return attempts.get(f.ledger, _ROLL, f"{record.repo_id}#{record.number}", str(record.head)).tries


def _open(f: Firing, about: About) -> int:
    """The pull request of published work. A forge that says no, again and again, hands it to a person."""
    record = about.claim.record
    try:
        return land.open_pull(f, about.claim)
    except (Refused, NotFound, Unknown):
        with f.ledger.transaction():
            tries = _rolls(f, about.claim) + 1
            attempts.put(f.ledger, _ROLL, f"{record.repo_id}#{record.number}", str(record.head), tries, 0)
        raise


#: What an operation makes of the record, beside its place in the sequence.
_CHANGES: dict[str, dict[str, Any]] = {
    "release(retry)": {"state": "released", "outcome": "retry"},
    "release(human)": {"state": "released", "outcome": "human"},
    "finish": {"state": "pr", "outcome": "pull_request"},
    "return": {"state": "pr", "outcome": "pull_request"},
    "reopen": {"state": "pr", "outcome": "pull_request"},
    "merge": {"state": "done", "outcome": "merged"},
}


def move(f: Firing, about: About, step: reconcile.Move, *, settling: bool = False) -> About | None:
    """None: somebody else moved the claim first. Where the work branch cannot be put aside, it stays."""
    owned = about.claim
    record = owned.record._replace(**_CHANGES[step.operation], pr=about.pull or owned.record.pr)
    aside = claim.aside(f, owned, about.seen.branch_tip, about.seen.wip_tip) if step.aside else ()
    receipt = advance(f, owned, record, step.why, *aside, settling=settling)
    if aside and receipt["verdict"] in ("moved", "refused"):
        f.note("the work branch stays where it is", reason=receipt["reason"])
        receipt = advance(f, owned, record, step.why, settling=settling)
    if receipt["verdict"] == "lost":
        return None
    if receipt["verdict"] != "ok":
        raise claim.refused(receipt, f"push of {step.operation}")
    done = reconcile.after(about.facts, step)
    f.looked()
    moved = record._replace(sequence=owned.record.sequence + 1)
    return about._replace(claim=Claim(owned.target, moved, receipt["tip"]), facts=done)


def advance(
    f: Firing, owned: Claim, record: ClaimRecord, why: str, *further: refs.Move, settling: bool = False
) -> effects.Receipt:
    """Move a claim that is not this firing's to `record`, from the tip that was read; the receipt has the verdict."""
    record = claim.next_record(f.now, record)._replace(sequence=owned.record.sequence + 1)
    session = f.ports.claim_refs(owned.target.repo)
    ref = session.ref(record.number)
    intended = session.write(record, parent=owned.tip, head=record.head)

    def push() -> effects.Receipt:
        return claim.told(session.swap(refs.Move(ref, owned.tip, intended), *further), intended)

    def look() -> effects.Receipt | None:
        ours = session.read(record.number).tip == intended
        return {"verdict": "ok", "reason": "", "tip": intended} if ours else None

    intent = {"to": rules.phase(record), "generation": record.generation, "commit": intended, "why": why}
    kind = f"mend claim ref to {rules.phase(record)} by {f.id}"
    return effects.perform(f, owned.target, kind, intent, push, look, ordinal=record.sequence, settling=settling)
