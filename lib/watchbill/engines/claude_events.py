"""What Claude Code says on stdout (`--output-format stream-json`), and what it writes into its transcripts.

Of the tokens in what it says along the way nothing is believed: they are the first guess of an answer's length. Its
result has them, with dollars; and the transcript has them, request by request, without dollars. Work that goes on
between its requests (to sum up a conversation that grew too long) is in the result only.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from watchbill.engines.base import Event, Filled, Tokens, Usage
from watchbill.engines.command import as_object, number, with_tokens
from watchbill.engines.transcripts import Files

_MICRO = 1_000_000
_MOST_TOKENS = 10**10
_MOST_USD = 10**5
_MOST_EPOCH = 10**11  # beyond: milliseconds, or nonsense
_MOST_TEXT = 8000
_MOST_WINDOWS = 16
_MOST_MESSAGES = 50_000
_MOST_MODELS = 32
_MOST_NAME = 200
#: Some models are dearer above 200,000 tokens of context; none takes as many as the last.
_LENGTHS = (200_000, 10_000_000)
#: Tokens of its longest answer (CLAUDE_CODE_MAX_OUTPUT_TOKENS, as `claude` sets it).
MOST_ANSWER = 32_000
_SYNTHETIC = "<synthetic>"  # the model of messages that the program wrote itself

#: What it calls the trouble of a request, in `error` of a retry and of the message that tells of a failure.
_ERRORS = {
    "account_on_hold": "billing",
    "authentication_failed": "auth",
    "billing_error": "billing",
    "cloud_credential_error": "auth",
    "oauth_org_not_allowed": "auth",
    "overloaded": "overloaded",
    "rate_limit": "rate_limited",
    "server_error": "overloaded",  # also when no server could be reached
    "verification_required": "auth",
}
_STATUSES = {401: "auth", 402: "billing", 403: "auth", 413: "context", 429: "rate_limited"}
_ENDS = {"error_max_turns": "max_turns", "error_max_budget_usd": "budget", "prompt_too_long": "context",
         "blocking_limit": "context", "refusal": "refused"}  # fmt: skip


def read(line: bytes, so_far: Usage) -> Event | None:
    """One line; `base.Engine.read`."""
    said = as_object(line)
    match said.get("type"):
        case "system":
            return _system(said)
        case "assistant":
            return _message(said)
        case "rate_limit_event":
            return _windows(said.get("rate_limit_info"))
        case "result":
            return _result(said, so_far)
    return None


def _system(said: Mapping[str, Any]) -> Event | None:
    if said.get("subtype") == "init":
        return Event("message")  # it begins, maybe another turn after a result
    if said.get("subtype") == "api_retry":
        trouble = _trouble(said.get("error"), said.get("error_status"))
        return None if trouble is None else Event(trouble)
    return None


def _message(said: Mapping[str, Any]) -> Event:
    trouble = _trouble(said.get("error"), said.get("api_error_status"))
    message, ours = said.get("message"), not said.get("parent_tool_use_id")
    id = message.get("id") if ours and isinstance(message, dict) else None
    request = id if isinstance(id, str) else ""
    return Event(trouble or "message", text=_text(message) if ours else "", request=request)


def _text(message: object) -> str:
    parts = message.get("content") if isinstance(message, dict) else None
    texts = (part.get("text") for part in parts if isinstance(part, dict)) if isinstance(parts, list) else ()
    return "\n".join(text for text in texts if isinstance(text, str))[:_MOST_TEXT]


def _trouble(error: object, status: object) -> str | None:
    named = _ERRORS.get(error) if isinstance(error, str) else None
    if named is not None or not isinstance(status, int):
        return named
    return "overloaded" if 500 <= status < 600 else _STATUSES.get(status)


def _windows(info: object) -> Event | None:
    """How full the windows of a subscription are; and whether one is shut, and nothing beyond it is paid for."""
    if not isinstance(info, dict):
        return None
    unified = info.get("unifiedWindows")
    told = unified if isinstance(unified, dict) else {str(info.get("rateLimitType")): info}
    filled = (_window(name, window) for name, window in list(told.items())[:_MOST_WINDOWS])
    windows = tuple(window for window in filled if window is not None)
    if info.get("status") == "rejected" and info.get("isUsingOverage") is not True:
        until = number(info.get("resetsAt"), _MOST_EPOCH)
        return Event("rate_limited", until=None if until is None else int(until), windows=windows)
    return Event("window", windows=windows) if windows else None


def _window(name: object, told: object) -> Filled | None:
    if not isinstance(name, str) or not isinstance(told, dict):
        return None
    full = 1 if told.get("status") == "rejected" else None
    used, resets_at = number(told.get("utilization", full), 1000), number(told.get("resetsAt"), _MOST_EPOCH)
    return None if used is None or resets_at is None else Filled(name[:100], int(used * _MICRO), int(resets_at))


def _result(said: Mapping[str, Any], so_far: Usage) -> Event:
    """`success` alone says little: a run that was refused ends with that, too."""
    ok = said.get("subtype") == "success" and said.get("is_error") is False
    text, errors = said.get("result"), said.get("errors")
    if not isinstance(text, str):
        text = "\n".join(str(error) for error in errors) if isinstance(errors, list) else ""
    return Event("final", usage=_used(said, so_far), text=text[:_MOST_TEXT], ok=ok,
                 trouble=None if ok else _why(said))  # fmt: skip


def _why(said: Mapping[str, Any]) -> str | None:
    for field in ("subtype", "terminal_reason", "stop_reason"):
        word = said.get(field)
        if isinstance(word, str) and word in _ENDS:
            return _ENDS[word]
    return _trouble(None, said.get("api_error_status"))


def _used(said: Mapping[str, Any], so_far: Usage) -> Usage:
    """The sums with what this result adds: of several results in one run, each tells of itself."""
    since = said.get("model_usage_since_last_result")
    models = _entries(since) if isinstance(since, dict) else _of_older(said, so_far)
    micro, known, unpriced, used = so_far.cost_micro or 0, not models, so_far.unpriced, Tokens()
    for model, tokens, cost in models:
        used = used.plus(tokens)
        if cost is None:
            unpriced = with_tokens(unpriced, model, tokens) if tokens != Tokens() else unpriced
        else:
            micro, known = micro + cost, True
    return so_far._replace(
        input_tokens=so_far.input_tokens + used.input,
        output_tokens=so_far.output_tokens + used.output,
        turns=so_far.turns + (_turns(said) if used != Tokens() else 0),
        cost_micro=micro if known else so_far.cost_micro,
        unpriced=unpriced,
    )


def _turns(said: Mapping[str, Any]) -> int:
    """At its limit it counts the turn that it does not take."""
    count = int(number(said.get("num_turns"), _MOST_TOKENS) or 0)
    return max(0, count - (said.get("subtype") == "error_max_turns"))


#: A model, its tokens, and what they cost in micro-dollars; None: nobody knows.
_Entry = tuple[str, Tokens, int | None]


def _entries(models: Mapping[str, Any]) -> list[_Entry]:
    return [(model, _of_model(told), _cost(told)) for model, told in models.items() if isinstance(told, dict)]


def _of_older(said: Mapping[str, Any], so_far: Usage) -> list[_Entry]:
    """Versions before 2.1.300 or so tell what the conversation cost from its start; a run that goes on with an earlier
    one has its tokens priced instead, and so has one with a model whose price the program does not know."""
    models = said.get("modelUsage")
    known = models if isinstance(models, dict) else {}
    told = said.get("usage")
    tokens = _of_request(told) if isinstance(told, dict) else Tokens()
    total = _micro(said.get("total_cost_usd"))
    priced = so_far.before == Tokens() and not any(map(_guessed, known.values()))
    cost = max(0, total - (so_far.cost_micro or 0)) if priced and total is not None else None
    return [(next(iter(known)) if len(known) == 1 else "", tokens, cost)]


def _of_model(told: Mapping[str, Any]) -> Tokens:
    return _tokens(told, "inputTokens", "outputTokens", "cacheReadInputTokens", "cacheCreationInputTokens")


def _of_request(told: Mapping[str, Any]) -> Tokens:
    return _tokens(told, "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


def _tokens(told: Mapping[str, Any], *fields: str) -> Tokens:
    plain, output, read, written = (int(number(told.get(field), _MOST_TOKENS) or 0) for field in fields)
    return Tokens(plain + read + written, output, read, written)


def _guessed(told: object) -> bool:
    """Of a model that it does not know, it makes a price up."""
    return isinstance(told, dict) and told.get("costBasis") == "unknown"


def _cost(told: Mapping[str, Any]) -> int | None:
    return None if _guessed(told) else _micro(told.get("costUSD"))


def _micro(dollars: object) -> int | None:
    """By way of its shortest text: the binary value of 0.41 is not 0.41."""
    sound = number(dollars, _MOST_USD)
    return None if sound is None else int((Decimal(str(sound)) * _MICRO).quantize(Decimal(1), ROUND_HALF_UP))


class Written:
    """The transcripts below its HOME: `base.Transcript`. A message is written several times while it grows, and again
    where a conversation branches off: each counts once, with the most that was said of it."""

    def __init__(self, home: str, *patterns: str) -> None:
        self._files = Files(home, *patterns)
        self._messages: dict[str, tuple[str, Tokens]] = {}
        self._sums: dict[tuple[str, int], Tokens] = {}  # of messages no longer held, by model and length
        self._turns = 0  # of theirs

    def look(self) -> tuple[Event, ...]:
        lines = self._files.lines()
        for _, line in lines:
            if b'"assistant"' in line:  # not each result of a tool, megabytes of it
                self._note(as_object(line))
            elif b'"compact_boundary"' in line:
                self._sum_up(as_object(line))
        return (Event("usage", usage=self._usage()),) if lines or self._files.moved else ()

    def _note(self, said: Mapping[str, Any]) -> None:
        message = said.get("message") if said.get("type") == "assistant" else None
        if not isinstance(message, dict):
            return
        id, model, told = message.get("id"), message.get("model"), message.get("usage")
        if not isinstance(id, str) or not isinstance(told, dict) or model == _SYNTHETIC:
            return
        if id not in self._messages and len(self._messages) >= _MOST_MESSAGES:
            self._sums, self._turns = self._summed(), self._turns + len(self._messages)
            self._messages.clear()
        named, before = self._messages.get(id, (model[:_MOST_NAME] if isinstance(model, str) else "", Tokens()))
        self._messages[id] = (named, Tokens(*map(max, before, _of_request(told))))

    def _sum_up(self, said: Mapping[str, Any]) -> None:
        """The request that summed up a conversation which grew too long is in no message: its length is told, and its
        answer may be as long as `claude` lets one be."""
        about, id = said.get("compactMetadata"), said.get("uuid")
        before = number(about.get("preTokens"), _MOST_TOKENS) if isinstance(about, dict) else None
        if said.get("subtype") == "compact_boundary" and isinstance(id, str) and before:
            model = next((model for model, _ in reversed(self._messages.values())), "")
            self._messages.setdefault(id, (model, Tokens(int(before), MOST_ANSWER)))

    def _summed(self) -> dict[tuple[str, int], Tokens]:
        sums = dict(self._sums)
        for model, tokens in self._messages.values():
            length = next((length for length in _LENGTHS if tokens.input <= length), _LENGTHS[-1])
            key = (model, length)
            if key not in sums and len(sums) >= _MOST_MODELS:
                key = ("", 0)
            before = sums.get(key, Tokens())
            sums[key] = before.plus(tokens)._replace(request=key[1])
        return sums

    def _usage(self) -> Usage:
        sums = self._summed()
        return Usage(
            input_tokens=sum(tokens.input for tokens in sums.values()),
            output_tokens=sum(tokens.output for tokens in sums.values()),
            turns=self._turns + len(self._messages),
            unpriced=tuple((model or None, tokens) for (model, _), tokens in sums.items()),
        )
