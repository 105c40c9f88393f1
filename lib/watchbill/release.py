"""release: give a claim back on a person's word, whoever holds it."""

from __future__ import annotations

from watchbill import look, mend, projection
from watchbill.claims import reconcile, rules
from watchbill.claims.record import ClaimRecord
from watchbill.compiled import Repo
from watchbill.errors import Fixable
from watchbill.ledger import claims, firings
from watchbill.ledger.decisions import Decision
from watchbill.live import Firing


def by_hand(f: Firing, repo: Repo, number: int, to: str, reason: str, force: bool = False) -> str:
    """Release a claim on a person's word: a sentence on what was done, or in a dry run would be. Fixable when not.

    `to`: retry | human. `force`: also one whose firing is alive on this host.
    """
    subject = f"{repo.full_name}#{number}"
    about = mend.facts(f, repo, number)
    if about is None:
        raise Fixable("WB-CLAIM-03", f"nobody has a claim on {subject}", fix="watchbill claims")
    operation, record = f"release({to})", about.claim.record
    if about.facts.phase == "unreadable":
        about = _readable_before(f, repo, about)
        record = about.claim.record
    else:
        _releasable(f, about, operation, subject)
    own = claims.of_firing(f.ledger, record.firing)
    if not force:
        _nobody_at_work(f, about, own, subject)
    if f.options.dry_run:
        return f"{subject}: would be released to {to}; it is {about.facts.phase} now, and nothing was changed"
    published = about.facts.phase != "active"
    moved = mend.move(f, about, reconcile.Move(operation, reason, aside=published and to == "human"), settling=True)
    if moved is None:
        raise Fixable("WB-CLAIM-06", f"somebody else moved the claim on {subject} just now", fix="look again")
    if own is not None:
        with f.ledger.transaction():
            claims.end(f.ledger, record.firing, "superseded", record.state, about.claim.tip, f.now)
    f.decide(Decision("claims", subject, "release", "released-by-hand", f"to {to}: {reason}"))
    phase = operation.replace("release", "released")
    projection.project(f, moved.claim, phase, settling=True, why=f"released by hand: {reason}")
    return f"{subject}: generation {record.generation} of {record.agent or 'nobody'} released to {to}"


def _releasable(f: Firing, about: mend.About, operation: str, subject: str) -> None:
    phase, pull = about.facts.phase, about.facts.pull
    if operation in rules.MOVES[phase] and pull != "open":
        return
    fix = f"close pull request #{about.pull}" if pull == "open" else "--to human"
    if phase not in ("active", "published", "pr"):
        takes = f.labels_of(about.claim.record.agent).implement
        fix = f"nobody holds it; put the label {takes} on the issue to have it tried"
    raise Fixable("WB-CLAIM-04", f"the claim on {subject} is {phase}: it cannot go to {operation[8:-1]}", fix=fix)


def _nobody_at_work(f: Firing, about: mend.About, own: claims.Claim | None, subject: str) -> None:
    """A slip in the number would end what somebody pays for."""
    record, facts = about.claim.record, about.facts
    owner = firings.get(f.ledger, record.firing)
    here = own is not None and own.state in ("intended", "won") and owner is not None and look.alive(owner)
    may_be = facts.phase == "active" and facts.owner in (reconcile.LIVE, reconcile.QUIET)
    elsewhere = may_be and record.host != f.row.host
    if here or elsewhere:
        where = "this host is" if here else f"host {record.host} may well be"
        raise Fixable("WB-CLAIM-05", f"firing {record.firing} of {where} at work on {subject}",
                      fix="label it do-not-pickup and it stops by itself; or --force")  # fmt: skip


def _readable_before(f: Firing, repo: Repo, about: mend.About) -> mend.About:
    """A record that makes no sense is written over by a new one of the last generation that does."""
    number = about.claim.record.number
    for _, found in f.ports.claim_refs(repo).history(number):
        if isinstance(found, ClaimRecord) and found.number == number:
            anew = found._replace(generation=found.generation + 1, sequence=-1, pr=None, head=None)
            return about._replace(claim=about.claim._replace(record=anew))
    delete = f"git push {repo.remote} :{f.ports.claim_refs(repo).ref(number)}"
    raise Fixable("WB-CLAIM-07", f"no record in the history of {repo.full_name}#{number} can be read", fix=delete)
