"""What Codex says: the lines of `codex exec --json`, and the rollout that it writes below its HOME meanwhile.

On stdout it tells no model, no request, no price, and no usage before the end of a turn; a failure is a sentence. The
rollout has the tokens of every request as soon as it was answered, how full the account's windows are, and the code of
a failure. So the rollout is what it is metered by, and stdout says how it ended.
"""

from __future__ import annotations

import os
import re
import time
from datetime import datetime, timedelta
from typing import Any

from watchbill.engines.base import TURNED_AWAY, Event, Filled, Tokens, Usage
from watchbill.engines.command import as_object, number
from watchbill.engines.transcripts import Files

#: CODEX_HOME, below its HOME.
HOME = ".codex"
#: A rollout, relative to its HOME: sessions/YEAR/MONTH/DAY/rollout-TIME-THREAD.jsonl.
ROLLOUTS = f"{HOME}/sessions/*/*/*/rollout-*.jsonl"

_MOST_TOKENS = 10**12
_MOST_EPOCH = 10**11  # beyond: milliseconds, or nonsense
_MOST_TEXT = 8000
_MOST_ENTRIES = 64
_LONGEST_WAIT = timedelta(days=32)
#: Up to where some model has the lower of its prices; a request is counted among those of its class.
_CLASSES = (128_000, 200_000, 272_000, 10_000_000)
#: `codex_error_info` where it is a word, and what follows from it.
_WORDS = {
    "bio_policy": "refused",
    "content_filter": "refused",
    "content_policy_violation": "refused",
    "context_window_exceeded": "context",
    "cyber_policy": "refused",
    "internal_server_error": "overloaded",
    "invalid_prompt": "refused",
    "rate_limit_exceeded": "rate_limited",
    "server_overloaded": "overloaded",
    "session_budget_exceeded": "budget",
    "unauthorized": "auth",
    "usage_limit_exceeded": "rate_limited",
}
#: How a sentence begins, where there is nothing else to go by: stdout has no codes, and `usage_limit_exceeded` is said
#: of three different things.
_SENTENCES = (
    ("Codex ran out of room in the model's context window", "context"),
    ("Quota exceeded. Check your plan and billing details", "billing"),
    ("Selected model is at capacity", "overloaded"),
    ("To use Codex with your ChatGPT plan, upgrade", "billing"),
    ("We're currently experiencing high demand", "overloaded"),
    ("You've hit your usage limit", "rate_limited"),
    ("provider auth command", "auth"),
    ("rate limit exceeded:", "rate_limited"),
    ("stream disconnected before completion: Incomplete response returned, reason: content_filter", "refused"),
)
_STATUS = re.compile(r"(?:unexpected status|exceeded retry limit, last status:) (\d{3})\b")
_AGAIN = re.compile(r"Reconnecting\.\.\. \d+/\d+ \(")
_UNTIL = re.compile(
    r"try again at (?:([A-Z][a-z]{2}) (\d{1,2})(?:st|nd|rd|th), (\d{4}) )?(\d{1,2}):(\d\d) ([AP])M\b", re.IGNORECASE
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WINDOWS = {300: "five_hour", 1440: "one_day", 10080: "seven_day"}
#: What a line of a rollout that matters has in it; the others can be megabytes long.
_TELLING = (b'"turn_context"', b'"token_usage_record"', b'"token_count"', b'"task_complete"', b'"error"')


def read(line: bytes, so_far: Usage) -> Event | None:
    said = as_object(line)
    kind = said.get("type")
    if kind in ("item.started", "item.completed"):
        item = said.get("item")
        return _item(item, kind == "item.started") if isinstance(item, dict) else None
    if kind == "turn.completed":
        return Event("final", ok=True, usage=_of_the_run(said.get("usage"), so_far))
    if kind == "turn.failed":
        text = _sentence(said.get("error"))
        trouble = _by_sentence(text)
        until = _until(trouble, text)
        return Event("final", ok=False, text=text, trouble=trouble, until=until)
    return _error(_sentence(said)) if kind == "error" else None


def _item(item: dict[str, Any], begins: bool) -> Event | None:
    """What the agent said, or a tool that begins to run: an answer called for it."""
    text, id = item.get("text"), item.get("id")
    if not begins and item.get("type") == "agent_message" and isinstance(text, str):
        return Event("message", text=text[:_MOST_TEXT])
    if begins and isinstance(id, str):
        return Event("message", request=id)
    return None


def _error(text: str) -> Event | None:
    """It says so before each new attempt, and once more at the last."""
    attempt = _AGAIN.match(text)
    reason = text[attempt.end() :] if attempt else text
    trouble = _by_sentence(reason)
    if attempt and trouble not in TURNED_AWAY:  # the next may go well, and then it was nothing
        return None
    if trouble is not None:
        return Event(trouble, text=text, until=_until(trouble, reason))
    return Event("message", text=text) if text else None


def _of_the_run(total: object, so_far: Usage) -> Usage | None:
    """It counts over the whole conversation, with what was used before this run; of several turns too."""
    tokens = _tokens(total)
    if tokens is None:
        return None
    own = tokens.less(so_far.before)
    unpriced = ((None, own),) if own.input or own.output else ()
    return so_far._replace(input_tokens=own.input, output_tokens=own.output, turns=so_far.turns + 1, unpriced=unpriced)


class Rollouts:
    """The rollouts below a HOME, read as they grow."""

    def __init__(self, home: str) -> None:
        self._files = Files(home, ROLLOUTS)
        self._totals: dict[str, Tokens] = {}  # by file: all that its conversation used
        self._models: dict[str, str] = {}  # by file: of the requests that follow
        self._entries: dict[tuple[str | None, int], Tokens] = {}
        self._turns = 0
        self._windows: dict[str, Filled] = {}
        self._trouble: Event | None = None
        self._begun = False  # a turn: nothing of it is answered yet, and that is worth saying
        self._told = Usage()
        self._told_windows: dict[str, Filled] = {}

    def look(self) -> tuple[Event, ...]:
        lines = self._files.lines()
        for path, line in lines:
            if any(word in line for word in _TELLING):
                self._hear(path, as_object(line))
        events = []
        if self._begun or self._usage() != self._told:
            self._told, self._begun = self._usage(), False
            events.append(Event("usage", usage=self._told))
        if self._windows != self._told_windows:
            self._told_windows = dict(self._windows)
            events.append(Event("window", windows=tuple(self._windows.values())))
        if self._trouble is not None:  # last: what is heard after it would mean that it went on
            events.append(self._trouble)
            self._trouble = None
        return tuple(events) if events or not self._files.moved else (Event("message"),)

    def _usage(self) -> Usage:
        unpriced = tuple((model, tokens) for (model, _), tokens in self._entries.items())
        return Usage(
            input_tokens=sum(tokens.input for _, tokens in unpriced),
            output_tokens=sum(tokens.output for _, tokens in unpriced),
            turns=self._turns,
            unpriced=unpriced,
        )

    def _hear(self, path: str, said: dict[str, Any]) -> None:
        payload = said.get("payload")
        if not isinstance(payload, dict):
            return
        kind = payload.get("type") if said.get("type") == "event_msg" else said.get("type")
        if kind == "turn_context":
            self._begun = True
            model = payload.get("model")
            if isinstance(model, str):
                self._models[path] = model[:200]
        elif kind == "token_usage_record":
            # Written as soon as a request is answered; a `token_count` says the same total once its tools have run.
            if path.endswith(f"-{payload.get('thread_id')}.jsonl"):
                self._count(path, payload.get("thread_token_usage"))
        elif kind == "token_count":
            info = payload.get("info")
            self._count(path, info.get("total_token_usage") if isinstance(info, dict) else None)
            self._fill(payload.get("rate_limits"))
        elif kind == "task_complete":
            self._fail(payload.get("error"))
        elif kind == "error":
            self._fail(payload)

    def _count(self, path: str, said: object) -> None:
        """A total of the conversation: what it is above the last one is one request."""
        total = _tokens(said)
        if total is None:
            return
        known = self._totals.get(path, Tokens())
        more = total.less(known)
        self._totals[path] = Tokens(*(max(pair) for pair in zip(known[:4], total[:4], strict=True)))
        if not (more.input or more.output):
            return
        longest = next(size for size in _CLASSES if more.input <= size or size == _CLASSES[-1])
        entry = (self._models.get(path), longest)
        if entry not in self._entries and len(self._entries) >= _MOST_ENTRIES:
            entry = (None, _CLASSES[-1])
        known = self._entries.get(entry, Tokens())
        self._entries[entry] = known.plus(more)._replace(request=entry[1])
        self._turns += 1
        self._trouble = None  # it was answered

    def _fill(self, limits: object) -> None:
        if not isinstance(limits, dict):
            return
        whose = limits.get("limit_id")
        before = f"{whose[:40]}_" if isinstance(whose, str) and whose != "codex" else ""
        for which in ("primary", "secondary"):
            window = limits.get(which)
            if not isinstance(window, dict):
                continue
            used, resets_at = number(window.get("used_percent"), 1000), number(window.get("resets_at"), _MOST_EPOCH)
            if used is None or resets_at is None:
                continue
            minutes = number(window.get("window_minutes"), 10**6)
            name = which if minutes is None else _WINDOWS.get(int(minutes), f"{int(minutes)}_minutes")
            self._windows[before + name] = Filled(before + name, int(used * 10_000), int(resets_at))

    def _fail(self, error: object) -> None:
        if not isinstance(error, dict):
            return
        text = _sentence(error)
        trouble = _by_code(error.get("codex_error_info"), text)
        if trouble is None:
            return
        until = _until(trouble, text)
        if trouble == "rate_limited":
            full = [window.resets_at for window in self._windows.values() if window.used_ppm >= 1_000_000]
            until = max([*full, until or 0]) or None
        self._trouble = Event(trouble, text=text, until=until)


def main_thread(home: str, path: str) -> str | None:
    """The id of the conversation in a rollout, if it is one that could be gone on with: not a sub-agent's."""
    lines = Files(home, path).lines()
    said = as_object(lines[0][1]) if lines else {}
    payload = said.get("payload")
    if said.get("type") != "session_meta" or not isinstance(payload, dict) or payload.get("source") != "exec":
        return None
    thread = payload.get("id")
    known = isinstance(thread, str) and re.fullmatch(r"[0-9a-f-]{36}", thread)
    return thread if known and os.path.basename(path).endswith(f"-{thread}.jsonl") else None


def _tokens(said: object) -> Tokens | None:
    if not isinstance(said, dict):
        return None
    counts = [int(number(said.get(f"{name}_tokens"), _MOST_TOKENS) or 0)
              for name in ("input", "output", "cached_input", "cache_write_input")]  # fmt: skip
    return Tokens(max(counts[0], counts[2] + counts[3]), *counts[1:])


def _sentence(said: object) -> str:
    text = said.get("message") if isinstance(said, dict) else None
    return text[:_MOST_TEXT] if isinstance(text, str) else ""


def _by_code(info: object, text: str) -> str | None:
    """What a failure was, by its code: a word, or a word with the status that the server answered."""
    if isinstance(info, str):
        said = _by_sentence(text) if info == "usage_limit_exceeded" else None
        return said or _WORDS.get(info)
    about = next(iter(info.values()), None) if isinstance(info, dict) and len(info) == 1 else None
    return _by_status(about.get("http_status_code")) if isinstance(about, dict) else None


def _by_sentence(text: str) -> str | None:
    text = text.replace("’", "'")  # it has written both
    status = _STATUS.match(text)
    if status is not None:
        return _by_status(int(status[1]))
    return next((trouble for begins, trouble in _SENTENCES if text.startswith(begins)), None)


def _by_status(status: object) -> str | None:
    if not isinstance(status, int):
        return None
    if 500 <= status < 600:
        return "overloaded"
    return {401: "auth", 402: "billing", 403: "auth", 429: "rate_limited"}.get(status)


def _until(trouble: str | None, text: str) -> int | None:
    """When it may be tried again, where it says so: the local time of this host, and cut off to the minute, so the end
    of that. None where that is not soon."""
    said = _UNTIL.search(text) if trouble == "rate_limited" else None
    if said is None:
        return None
    now = datetime.fromtimestamp(time.time())
    month, day, year, hour, minute, half = said.groups()
    try:
        at = now.replace(hour=int(hour) % 12 + (12 if half.upper() == "P" else 0), minute=int(minute), second=0)
        if month is not None:
            at = at.replace(year=int(year), month=_MONTHS.index(month.lower()) + 1, day=int(day))
        elif at < now - timedelta(minutes=1):
            at += timedelta(days=1)
        at += timedelta(minutes=1)
        return int(at.timestamp()) if now <= at <= now + _LONGEST_WAIT else None
    except (ValueError, OverflowError):
        return None
