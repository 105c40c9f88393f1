"""sweep: every claim of every repository, whoever's it was; what nobody is at work on is brought to its end.

A firing repairs what its own host left. What another host left, and what people did on the forge (a merge, a closed or
reopened pull request), nobody would notice: the sweep does. Lists are hints that say which issues to look at; each of
those is read by number before anything is done (`mend`).
"""

from __future__ import annotations

from watchbill import ending, foreign, lifecycle, mend, poll, projection
from watchbill.claims import refs, rules
from watchbill.claims.reconcile import DEAD, SILENT
from watchbill.claims.record import ClaimRecord
from watchbill.compiled import Repo
from watchbill.errors import Fixable
from watchbill.forge.base import ForgeError
from watchbill.git import GitError
from watchbill.ledger import firings, holds, polls, sightings, verify
from watchbill.ledger.decisions import Decision
from watchbill.ledger.holds import Hold
from watchbill.live import Firing
from watchbill.outcomes import Ended, Ending

#: Kept work stays in the mirror for so long (DESIGN section 2).
_KEPT_S = 30 * 86_400
_VERIFIED = "ledger verified"
_VERIFIED_EVERY_S, _VERIFIED_WITHIN_S = 86_400, 600
_OUTSIDE = (ForgeError, GitError, Fixable)


def everything(f: Firing) -> Ending:
    """Every repository of this agent; one that cannot be asked does not keep the others waiting."""
    mended: list[str] = []
    failed: list[Ending] = []
    seen = 0
    for name in f.agent.repos:
        try:
            seen += _repository(f, f.fleet.repos[name], mended, failed)
        except _OUTSIDE as error:
            failed.append(ending.of(f, error))
    _forget_old(f)
    _verify_the_ledger(f)
    if failed:
        return failed[0]._replace(reason=f"{len(failed)} could not be put right: {failed[0].reason}")
    where = ", ".join(f.agent.repos)
    if mended:
        more = f" (and {len(mended) - 1} more)" if len(mended) > 1 else ""
        return Ending("published", f"put right: {mended[0]}{more}", "swept")
    return Ending("idle", f"nothing to put right among {seen} claims in {where}", "all-well")


def _verify_the_ledger(f: Firing) -> None:
    """Once a day: what SQLite does not notice (a flipped byte in a sum) holds the fleet until somebody has looked."""
    known = polls.get(f.ledger, _VERIFIED)
    if known.fetched_ms and f.now - known.fetched_ms // 1000 < _VERIFIED_EVERY_S:
        return
    with f.ledger.transaction():
        ours = polls.take(f.ledger, _VERIFIED, f.id, f.now, f.now + _VERIFIED_WITHIN_S)
        if not ours:
            return
        polls.put(f.ledger, _VERIFIED, f.id, None, f.now * 1000, None)
    breaks = verify.verify(f.ledger, most=1).breaks if known.fetched_ms else ()
    if breaks:
        where = f"{breaks[0].table} {breaks[0].row} {breaks[0].what}"
        reason = f"the ledger contradicts itself: {where}; see `watchbill ledger verify`"
        f.note(reason)
        with f.ledger.transaction(durable=True):
            holds.add(f.ledger, Hold(0, "fleet", "", "damaged", reason, f"firing {f.id}", f.now, None))


def _repository(f: Firing, repo: Repo, mended: list[str], failed: list[Ending]) -> int:
    """How many claims there are; what was put right, and what could not be, is added to the lists."""
    known = poll.facts(f, repo.full_name)
    claims, read_at = f.ports.claim_refs(repo).records(), f.ports.clock.elapsed()
    tips = {number: seen.tip for number, seen in claims.items() if seen.tip}
    sightings.observe(f.ledger, known.id, tips, f.ports.clock.elapsed(), f.row.boot)
    foreign.notice(f, repo, claims.values())
    for number in _suspects(f, repo, known.id, claims):
        subject = f"{repo.full_name}#{number}"
        f.obey()
        try:
            recent = f.ports.clock.elapsed() - read_at <= projection.LONG_AGO_S
            done = mend.mend(f, repo, number, claims[number] if recent else None).done
        except Ended:
            raise
        except Exception as error:  # what is wrong about one issue, be it a mistake of ours, keeps no other waiting
            failed.append(ending.of(f, error))
            f.decide(Decision("sweep", subject, "failed", failed[-1].reason_id, failed[-1].reason))
            continue
        if done:
            mended.append(f"{subject}: {'; '.join(done)}")
            f.decide(Decision("sweep", subject, "mended", "put-right", "; ".join(done)))
    return len(claims)


def _suspects(f: Firing, repo: Repo, repo_id: int, claims: dict[int, refs.Seen]) -> list[int]:
    """The issues that may need something, by what the lists say of their labels and pull requests."""
    shown = _labels(f, repo)
    for number in sorted(set(shown) - set(claims)):
        if shown[number] & {f.fleet.labels.in_flight, f.fleet.labels.pr_open}:
            said = f"labelled {' and '.join(sorted(shown[number]))}, and nobody has a claim on it: label it anew"
            f.decide(Decision("sweep", f"{repo.full_name}#{number}", "skip", "label-without-claim", said))
    pulls = {pull.number for pull in f.ports.forge.pulls.open_from(repo.full_name, rules.BRANCHES)}
    found = []
    for number, seen in sorted(claims.items()):
        record = seen.record
        if not isinstance(record, ClaimRecord):
            found.append(number)
            continue
        phase, labels = rules.phase(record), shown.get(number, set())
        wanted = lifecycle.label_for(phase, True, f.labels_of(record.agent))
        odd = labels != {wanted}
        if phase in ("active", "active(role)"):
            suspect = odd or rules.owner(record, mend.takeover(f, repo_id, number, seen)) in (SILENT, DEAD)
        elif phase == "published":
            suspect = True
        elif phase == "pr":
            suspect = odd or record.pr not in pulls
        else:  # over; of a closed issue only what was forgotten is in a list
            rejected = phase == "released(human)" and record.pr is not None and wanted in labels
            suspect = (odd and bool(labels)) or record.pr in pulls or rejected
        if suspect:
            found.append(number)
    return found


def _labels(f: Firing, repo: Repo) -> dict[int, set[str]]:
    """The lifecycle's labels on open issues, as the lists have them; on closed ones, what was forgotten there."""
    forgotten = (f.fleet.labels.in_flight, f.fleet.labels.pr_open, f.fleet.labels.needs_human)
    names = lifecycle.ours(f.fleet.labels) | f.taken
    shown: dict[int, set[str]] = {}
    for label in sorted(names):
        listing = f.ports.forge.issues.listed(repo.full_name, label, None, closed=label in forgotten)
        for issue in listing.issues or ():
            shown.setdefault(issue.number, set()).add(label)
    return shown


def _forget_old(f: Firing) -> None:
    """Kept work of firings that ended long ago; what the ledger does not know is left alone."""
    for name in f.agent.repos:
        mirror = f.ports.mirror(f.fleet.repos[name])
        for firing in mirror.kept():
            row = firings.get(f.ledger, firing)
            if row is not None and row.ended is not None and row.ended < f.now - _KEPT_S:
                mirror.forget(firing)
                f.note("kept work forgotten after 30 days", firing=firing)
