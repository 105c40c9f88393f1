"""engine: run it isolated, meter it, stop it at any limit; then read what its end means."""

from __future__ import annotations

import os
import re

from watchbill import claim, effects, evidence, fitness, money, pill, sessions, task, versions, worktree
from watchbill.clock import moment
from watchbill.engines import supervise
from watchbill.engines.base import Result
from watchbill.engines.bill import Bill
from watchbill.engines.supervise import Heard
from watchbill.gates import unfit
from watchbill.ledger import firings, holds, meters, windows
from watchbill.ledger.holds import Hold
from watchbill.ledger.meters import Meter
from watchbill.ledger.windows import Window
from watchbill.live import Firing, Tree
from watchbill.outcomes import Ended
from watchbill.pill import Limit

#: Scopes of holds that an answer of the model proves over.
_ANSWERED = frozenset({"account", "engine", "model"})
#: Verdicts that are about the account, as the reasons of its holds.
_LIMITED = {"rate_limited": ("rate_limit", "rate limited"), "billing": ("billing", "out of credit"),
            "overloaded": ("overloaded", "overloaded")}  # fmt: skip
#: Verdicts of a run that nobody cut short or turned away.
_OF_ITSELF = frozenset({"ok", "crash", "refused", "context", "max_turns", "budget"})
#: Exit statuses from here on are signals, as bubblewrap says them.
_KILLED = 128
#: A window's end is believed this far ahead.
_LONGEST_WINDOW_S = 32 * 86400


def ready(f: Firing) -> None:
    """Before anything is claimed: is there an engine, its program in a version that we know, its credential, and the
    isolation that the agent asks for? Raises errors.Fixable."""
    f.ports.isolation.unavailable()
    asked = task.of(f, worktree.places(f, ""), "")
    program = f.ports.engine.program(asked)
    if program is not None:
        versions.check(f.ledger, f.ports.engine.name, program, f.now, task.within(f))
    f.ports.engine.launch(asked)


def run(f: Firing, tree: Tree, text: str) -> Result:
    """The result of a run that the engine itself calls a success; raises Ended for every other."""
    f.session = sessions.go_on(f, tree, f.ports.options)
    _begin(f)
    result = _run(f, tree, text)
    if f.session is not None and _refuses_the_session(result):
        sessions.begin_anew(f, tree)
        f.session = None
        result = _run(f, tree, text)
    _meter(f, result)
    _keep_transcript(f, result)
    if result.verdict != "ok":
        raise _ended(f, result)
    return result


def _refuses_the_session(result: Result) -> bool:
    """It left by itself, with an error and before it asked its model: claude says then that it cost nothing, codex says
    nothing at all. Who was killed, or whose answers were cut off, may have been served."""
    left = result.exit_status is not None and 0 < result.exit_status < _KILLED
    free = not os.path.getsize(result.log) if result.usage.cost_micro is None else result.usage.cost_micro == 0
    return result.verdict == "crash" and left and free and not result.usage.tokens


def _run(f: Firing, tree: Tree, text: str) -> Result:
    def listening_beat(heard: Heard) -> str | None:
        f.engine_started = True  # asked right after its start: from here on it may have spent something
        _listen(f, heard)
        return beat(f)

    f.result = supervise.run(
        f.ports.engine,
        task.of(f, tree, text),
        f.ports.isolation,
        task.jail(f, tree.path, tree.home, tree.tmp),
        f.ports.clock,
        listening_beat,
        task.tariff(f),
    )
    return f.result


def _meter(f: Firing, result: Result) -> None:
    """What the run is charged, on record before anything else can go wrong; and what follows when nobody can say."""
    if result.basis == "unmeasured" and task.tariff(f).capped:
        f.alert("nobody can say what this run cost; it is counted as nothing, as `unmeasured` in fleet.toml says")
    charged = Bill(result.cost_micro, result.basis)
    _listen(f, Heard(result.usage, charged, result.verdict == "ok", result.windows), final=True)
    mute = result.basis == "reservation" and result.stopped_by is None and result.verdict in _OF_ITSELF
    if mute and f.fleet.unmeasured == "deny":
        park(f, "unmeasured", 'nobody can say what its run cost, and fleet.toml says unmeasured = "deny"')


def _keep_transcript(f: Firing, result: Result) -> None:
    evidence.keep(
        f,
        "transcript",
        _tail(result.log),
        {
            "verdict": result.verdict,
            "limit": result.limit,
            "exit": result.exit_status,
            "isolation": result.isolation,
            "duration_s": round(result.duration_s, 3),
            "strays": result.strays,
            "cost_micro": result.cost_micro,
            "basis": result.basis,
            "message": f.redact(result.message),
            "stderr": f.redact(result.stderr_tail[-2000:]),
        },
    )
    f.note(
        "engine ended",
        verdict=result.verdict,
        limit=result.limit,
        exit=result.exit_status,
        cost=money.usd(result.cost_micro),
        basis=result.basis,
        isolation=result.isolation,
        strays=result.strays,
    )


def _begin(f: Firing) -> None:
    """The last look before money is spent, and the mark that from here on it may be."""
    pill.still_first(f)
    effects.allowed(f, f.target, beginning=True)
    refusal = unfit.problem(f.fleet.host, fitness.read(f.ports.home.root, f.fleet.host))  # checkouts take room
    if refusal is not None:
        raise Ended(refusal.outcome, refusal.reason, refusal.reason_id)
    assert f.use is not None
    with f.ledger.transaction(durable=True):
        firings.starts_engine(f.ledger, f.id, f.use.engine, f.use.account, f.use.model)


def _listen(f: Firing, heard: Heard, *, final: bool = False) -> None:
    """What the engine said so far, on record: it bills this firing should it be killed, and heals what was limited."""
    if heard.answered:
        pill.answered(f, _ANSWERED)
    meter = Meter(
        f.id,
        heard.bill.micro if heard.bill else None,
        heard.usage.tokens,
        heard.usage.turns,
        heard.bill.basis if heard.bill else "not measured yet",
        0,
        int(final),
    )
    if meter == f.meter and heard.windows == f.windows:
        return
    assert f.use is not None
    with f.ledger.transaction():
        if heard.usage.measured or final:
            meters.put(f.ledger, meter._replace(at=f.now))
        for filled in heard.windows:
            resets_at = min(filled.resets_at, f.now + _LONGEST_WINDOW_S)
            windows.put(f.ledger, Window(f.use.account, filled.name, filled.used_ppm, resets_at, f.now))
    f.meter, f.windows = meter, heard.windows


def beat(f: Firing) -> str | None:
    """Asked once a second while something runs: the reason to stop it, if there is one."""
    if f.signal is not None:
        return "signal"
    if f.held() is not None:
        return "held"
    return claim.renew(f)


def _tail(path: str, most: int = 1 << 20) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - most))
            return file.read().decode("utf-8", "backslashreplace")
    except OSError:
        return ""


def _ended(f: Firing, result: Result) -> Ended:
    if result.stopped_by == "signal":
        f.obey()
    if result.stopped_by == "held":
        hold = f.held()
        return Ended("held", hold.reason if hold else "a hold was set while the engine ran", "held-while-running")
    if result.stopped_by == "lost":
        return Ended("lost", "the claim was lost while the engine ran; it was stopped, the work is kept", "claim-lost")
    if result.stopped_by == "called off":
        return called_off(f)
    assert f.use is not None
    name = f.use.engine
    if result.verdict in _LIMITED:
        kind, words = _LIMITED[result.verdict]
        limit = Limit("account", f.use.account, kind, f"{name} said it is {words}", result.until)
        until = pill.swallow(f.ledger, limit, f"firing {f.id}", f.now)
        return Ended("held", f"{name} is {words}; account {f.use.account} is held until {moment(until)}",
                     f"engine-{result.verdict.replace('_', '-')}")  # fmt: skip
    if result.verdict == "auth":
        park(f, "auth", f"{name} refused its credentials")
        return Ended("unauthorized", f"{name} refused its credentials; it is held until somebody has put that right and"
                     f" says `watchbill resume --engine {name}`", "engine-auth")  # fmt: skip
    how = f"timeout ({result.limit})" if result.verdict == "timeout" else result.verdict
    why = f"{name}: {how} after {result.duration_s:.0f} s"
    if result.exit_status is not None and result.verdict == "crash":
        why += f", exit status {result.exit_status}"
        if not result.usage.tokens and result.message:  # no model has spoken yet: these are the program's own words
            why += f": {_plain(f.redact(result.message))}"
    return Ended("engine_failed", why, f"engine-{result.verdict.replace('_', '-')}")


def _plain(text: str) -> str:
    """One line of it, with nothing that a page would make more of."""
    return re.sub(r"[^\w .,:;/()'=-]+", " ", " ".join(text.split()))[:160].strip()


def called_off(f: Firing) -> Ended:
    """A person closed the issue, or said no, while something ran; which of the two is read again."""
    issue = f.ports.forge.issues.read(f.target.repo.full_name, f.target.issue.number)
    return claim.said_no(f, issue) or Ended("cancelled", "a person had called it off for a moment", "called-off")


def park(f: Firing, kind: str, reason: str) -> None:
    """No firing uses this engine any more until a person says so."""
    assert f.use is not None
    hold = Hold(0, "engine", f.use.engine, kind, reason, f"firing {f.id}", f.now, None)
    with f.ledger.transaction(durable=True):
        parked = {(known.scope, known.subject, known.kind) for known in holds.standing(f.ledger, f.now)}
        if (hold.scope, hold.subject, hold.kind) not in parked:
            holds.add(f.ledger, hold)
