"""Every exception as the way a firing ends: the one place where errors become outcomes."""

from __future__ import annotations

import os
import sys
import traceback

from watchbill import look
from watchbill.clock import moment
from watchbill.errors import Fixable
from watchbill.forge.base import ForgeError, NotFound, RateLimited, Refused, Unauthorized
from watchbill.git import GitError
from watchbill.live import Firing
from watchbill.look import Sight
from watchbill.outcomes import Ended, Ending


def nothing_taken(f: Firing, seen: Sight) -> Ended:
    """The end of a firing that saw candidates, or none, and owns nothing."""
    lost = [d for d in f.decided if d.verdict == "lost" and d.step in ("examine", "reserve", "claim")]
    refused = [d for d in f.decided if d.verdict in ("skip", "refuse") and d.step in ("examine", "reserve")]
    if lost:
        return Ended("lost", f"{lost[-1].subject}: {lost[-1].reason}", lost[-1].reason_id)
    if refused and not seen.failures and all(d.reason_id.startswith("capped-") for d in refused):
        return Ended("capped", refused[0].reason, refused[0].reason_id)
    if refused and not seen.failures:
        return Ended("idle", f"{refused[0].subject}: {refused[0].reason}", refused[0].reason_id)
    end = look.ending_of(f.agent, seen)
    return Ended(end.outcome, end.reason, end.reason_id)


def of(f: Firing, error: Exception) -> Ending:
    """What this exception means. What we do not understand is a bug, with a report file."""
    if isinstance(error, Ended):
        return error.ending
    if isinstance(error, Fixable):
        f.note(str(error))
        why = f": {error.why}" if error.why else ""
        return Ending(error.outcome, f"{error.what}{why}" + (f" (fix: {error.fix})" if error.fix else ""), error.id)
    if isinstance(error, RateLimited):
        kind = "secondary" if error.secondary else "primary"
        return Ending(
            "held",
            f"GitHub's {kind} rate limit, until {moment(error.until) if error.until else 'it says so'}",
            f"github-{kind}-limit",
        )
    if isinstance(error, Unauthorized):
        return Ending("unauthorized", f"the forge refused this account: {error}", "forge-unauthorized")
    if isinstance(error, (Refused, NotFound)):
        return Ending("needs_human", f"the forge said no ({error.status}): {error}", "forge-refused")
    if isinstance(error, ForgeError):
        return Ending("unavailable", f"the forge did not answer: {error}", "forge-unreachable")
    if isinstance(error, GitError):
        return Ending("unavailable", f"git: {' '.join(str(error).split())[:300]}", "git-failed")
    return _bug(f, error)


def _bug(f: Firing, error: Exception) -> Ending:
    path = os.path.join(f.ports.home.logs, f"bug-{f.id}.txt")
    text = "".join(traceback.format_exception(error))
    try:
        with open(path, "w", encoding="utf-8") as file:
            os.chmod(path, 0o600)
            file.write(f.redact(text))
    except OSError:
        path = "on stderr"
        print(f.redact(text), file=sys.stderr)
    f.note(f"bug: {error!r}", report=path)
    return Ending("bug", f"{type(error).__name__}: {error}; the report is {path}", "bug")
