"""What the adapter of Codex makes of what the program says.

The lines are what the real program prints and writes (0.169.0), shortened; tests/real_engines drives it.
"""

from __future__ import annotations

import json
import os
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from watchbill.engines import bill, codex
from watchbill.engines.base import Conversation, Event, Filled, Tokens, Usage

THREAD = "01a1fff4-2aef-7602-aea7-d8ab3a0237a7"
ROLLOUT = f".codex/sessions/2026/11/21/rollout-2026-11-21T21-12-34-{THREAD}.jsonl"


def read(so_far: Usage = Usage(), /, **said: Any) -> Event | None:  # noqa: B008 - a record
    return codex.read(json.dumps(said).encode(), so_far)


def used(input: int, cached: int = 0, output: int = 0) -> dict[str, int]:
    return {"input_tokens": input, "cached_input_tokens": cached, "cache_write_input_tokens": 0,
            "output_tokens": output, "reasoning_output_tokens": 0, "total_tokens": input + output}  # fmt: skip


# --- on stdout ------------------------------------------------------------------------------------------------------


def test_the_end_of_a_turn_is_the_total_of_the_conversation() -> None:
    end = {"type": "turn.completed", "usage": used(11000, 8000, 100)}
    assert read(**end) == Event("final", ok=True, usage=Usage(11000, 100, 1, None, ((None, Tokens(11000, 100, 8000)),)))
    before = Tokens(6000, 70, 3000)
    own = Usage(5000, 30, 1, None, ((None, Tokens(5000, 30, 5000)),), before)
    assert read(Usage(before=before), **end) == Event("final", ok=True, usage=own)


def test_two_turns_in_one_run_are_not_added() -> None:
    first = read(type="turn.completed", usage=used(1000, 0, 10))
    assert first is not None
    assert first.usage is not None
    second = read(first.usage, type="turn.completed", usage=used(3000, 0, 30))
    assert second is not None
    assert second.usage is not None
    assert (second.usage.input_tokens, second.usage.output_tokens, second.usage.turns) == (3000, 30, 2)


@pytest.mark.parametrize("bad", ["-1", "NaN", "Infinity", '"7"', "true", "null", "[]", "1e30", "1" * 900])
def test_a_count_that_is_none_is_none(bad: str) -> None:
    line = b'{"type": "turn.completed", "usage": {"input_tokens": %s, "output_tokens": 5}}' % bad.encode()
    event = codex.read(line, Usage())
    assert event is not None
    assert event.usage == Usage(0, 5, 1, None, ((None, Tokens(0, 5)),))


def test_what_it_answers_is_for_people() -> None:
    item = {"id": "item_1", "type": "agent_message", "text": "Done."}
    assert read(type="item.completed", item=item) == Event("message", text="Done.")
    for other in ({**item, "type": "reasoning"}, {**item, "text": 7}, None, [], {"type": "command_execution"}):
        assert read(type="item.completed", item=other) is None


REFUSALS = [
    ("unexpected status 401 Unauthorized: Incorrect API key, url: http://127.0.0.1/v1/responses", "auth"),
    ("unexpected status 403 Forbidden: no, url: http://127.0.0.1/v1/responses", "auth"),
    ("unexpected status 402 Payment Required: pay, url: http://127.0.0.1/v1/responses", "billing"),
    ("unexpected status 529 <unknown status code>: ov, url: http://127.0.0.1/v1/responses", "overloaded"),
    ("unexpected status 413 Payload Too Large: large, url: http://127.0.0.1/v1/responses", None),
    ("exceeded retry limit, last status: 429 Too Many Requests", "rate_limited"),
    ("rate limit exceeded: Rate limit reached. Please try again in 2.5s.", "rate_limited"),
    ("You’ve hit your usage limit. Try again later.", "rate_limited"),
    ("You've hit your usage limit. Try again later.", "rate_limited"),
    ("Quota exceeded. Check your plan and billing details.", "billing"),
    ("To use Codex with your ChatGPT plan, upgrade to Plus: https://chatgpt.com/explore/plus.", "billing"),
    ("Selected model is at capacity. Please try a different model.", "overloaded"),
    ("We’re currently experiencing high demand, which may cause temporary errors.", "overloaded"),
    ("Codex ran out of room in the model's context window. Start a new thread", "context"),
    ("stream disconnected before completion: unexpected status 401 was what I read", None),
    ("stream disconnected before completion: Incomplete response returned, reason: content_filter", "refused"),
    ("The issue says: You’ve hit your usage limit.", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "trouble"), REFUSALS)
def test_what_it_was_turned_away_for(text: str, trouble: str | None) -> None:
    failed = read(type="turn.failed", error={"message": text})
    assert failed == Event("final", ok=False, text=text, trouble=trouble)
    last = read(type="error", message=text)
    assert last == (Event(trouble or "message", text=text) if text else None)


@pytest.mark.parametrize(("text", "trouble"), REFUSALS)
def test_before_another_attempt_only_what_the_account_was_refused_for(text: str, trouble: str | None) -> None:
    again = f"Reconnecting... 1/3 ({text})"
    refused = trouble in ("auth", "billing", "overloaded", "rate_limited")
    assert read(type="error", message=again) == (Event(str(trouble), text=again) if refused else None)


def test_when_it_may_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says the local time, cut off to the minute; a time that has passed today is tomorrow's."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        now = datetime(2026, 11, 21, 21, 30, 20).timestamp()
        monkeypatch.setattr(time, "time", lambda: now)

        def until(words: str) -> datetime | None:
            text = f"You’ve hit your usage limit. Visit https://chatgpt.com/ or try again at {words}."
            event = read(type="turn.failed", error={"message": text})
            assert event is not None
            return None if event.until is None else datetime.fromtimestamp(event.until)

        assert until("10:11 PM") == datetime(2026, 11, 21, 22, 12)
        assert until("9:30 PM") == datetime(2026, 11, 21, 21, 31)  # half a minute from now
        assert until("8:01 AM") == datetime(2026, 11, 22, 8, 2)
        assert until("12:05 AM") == datetime(2026, 11, 22, 0, 6)
        assert until("Nov 24th, 2026 9:17 PM") == datetime(2026, 11, 24, 21, 18)
        for nonsense in ("Nov 31st, 2026 9:17 PM", "Foo 1st, 2026 9:17 PM", "Nov 20th, 2026 9:17 PM", "soon",
                         "Jan 1st, 2027 1:00 AM", "Jan 1st, 9999 1:00 AM", "25:71 PM"):  # fmt: skip
            assert until(nonsense) is None
    finally:
        monkeypatch.undo()
        time.tzset()


def test_other_lines_are_nothing() -> None:
    for line in (b"", b"Reading additional input from stdin...", b"[]", b'{"type": "thread.started"}', b"\xff{",
                 b'{"type": "item.started", "item": {"type": "agent_message", "text": "x"}}', b'{"type": ["error"]}',
                 b'{"type": "turn.completed"}'):  # fmt: skip
        event = codex.read(line, Usage(1, 2, 3))
        assert event is None or event == Event("final", ok=True)
    assert read(type="turn.failed", error="text") == Event("final", ok=False)
    assert read(type="error", message={"a": 1}) is None


# --- in its rollout -------------------------------------------------------------------------------------------------


def write(home: Path, *lines: dict[str, Any] | bytes, path: str = ROLLOUT) -> None:
    file = home / path
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as out:
        for line in lines:
            out.write((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n")


def event(kind: str, **payload: Any) -> dict[str, Any]:
    return {"timestamp": "2026-11-21T21:12:34.414Z", "type": "event_msg", "payload": {"type": kind, **payload}}


def model(name: str) -> dict[str, Any]:
    return {"type": "turn_context", "payload": {"turn_id": "t", "model": name}}


def record(*total: int, thread: str = THREAD) -> dict[str, Any]:
    payload = {"thread_id": thread, "usage": used(1), "thread_token_usage": used(*total)}
    return {"type": "token_usage_record", "payload": payload}


def count(*total: int, **limits: Any) -> dict[str, Any]:
    return event("token_count", info={"total_token_usage": used(*total)}, rate_limits=limits or None)


def failed(info: object, message: str = "x") -> dict[str, Any]:
    return event("task_complete", error={"message": message, "codex_error_info": info})


def whole(home: Path) -> Usage:
    return bill.read_whole(codex.transcript(str(home)))


def test_every_request_counts_once_and_as_soon_as_it_was_answered(tmp_path: Path) -> None:
    """`token_count` says the total that a record said before; an older program writes nothing else.

    Broken once: with each of the two lines counted by its own request, a run cost twice what it did.
    """
    written = codex.transcript(str(tmp_path))
    assert written.look() == ()
    write(tmp_path, model("gpt-5.5"), record(5000, 3000, 70))
    tokens = Tokens(5000, 70, 3000, 0, 128_000)
    assert written.look() == (Event("usage", usage=Usage(5000, 70, 1, None, (("gpt-5.5", tokens),))),)
    write(tmp_path, count(5000, 3000, 70))
    assert written.look() == (Event("message"),)
    write(tmp_path, count(11000, 8000, 100))
    tokens = Tokens(11000, 100, 8000, 0, 128_000)
    assert written.look() == (Event("usage", usage=Usage(11000, 100, 2, None, (("gpt-5.5", tokens),))),)
    assert whole(tmp_path) == Usage(11000, 100, 2, None, (("gpt-5.5", tokens),))


def test_that_nothing_was_answered_yet_is_said(tmp_path: Path) -> None:
    """Who is turned away, and stopped at that, leaves no other word; without this one it is charged a reservation."""
    written = codex.transcript(str(tmp_path))
    write(tmp_path, model("m"))
    assert written.look() == (Event("usage", usage=Usage()),)
    assert written.look() == ()


def test_requests_are_kept_apart_by_model_and_by_what_makes_them_dearer(tmp_path: Path) -> None:
    write(tmp_path, model("a"), record(100_000), record(228_000), record(528_000), model("b"), record(728_000))
    assert set(whole(tmp_path).unpriced) == {
        ("a", Tokens(228_000, request=128_000)),
        ("a", Tokens(300_000, request=10_000_000)),
        ("b", Tokens(200_000, request=200_000)),
    }
    assert whole(tmp_path).turns == 4


def test_what_an_earlier_run_used_is_taken_off(tmp_path: Path) -> None:
    write(tmp_path, model("m"), record(6000, 3000, 170))
    before = whole(tmp_path)
    write(tmp_path, model("m"), record(13000, 6000, 240), count(13000, 6000, 240))
    tokens = Tokens(7000, 70, 3000, 0, 128_000)
    assert bill.less(whole(tmp_path), before) == Usage(7000, 70, 1, None, (("m", tokens),))


def test_a_total_that_shrinks_or_comes_again_adds_nothing(tmp_path: Path) -> None:
    """What it writes once its context is full: a `token_count` of nothing. And a file that was put back whole."""
    written = codex.transcript(str(tmp_path))
    write(tmp_path, record(6000, 0, 100), count(0, 0, 0), count(7000, 0, 100))
    assert written.look()[0].usage == Usage(7000, 100, 2, None, ((None, Tokens(7000, 100, request=128_000)),))
    file = tmp_path / ROLLOUT
    text = file.read_bytes()
    file.unlink()
    write(tmp_path, text.rstrip(b"\n"))
    assert written.look() == ()


def test_a_conversation_within_another_is_counted_in_its_own_file(tmp_path: Path) -> None:
    other = "01a1fff4-0000-7602-aea7-d8ab3a0237a7"
    write(tmp_path, record(1000), record(500, thread=other))
    write(tmp_path, record(500, thread=other), path=ROLLOUT.replace(THREAD, other))
    assert (whole(tmp_path).input_tokens, whole(tmp_path).turns) == (1500, 2)


def test_how_full_the_windows_are(tmp_path: Path) -> None:
    written = codex.transcript(str(tmp_path))
    five = {"used_percent": 93.5, "window_minutes": 300, "resets_at": 1795298497}
    week = {"used_percent": 41, "window_minutes": 10080, "resets_at": 1795595497}
    write(tmp_path, event("token_count", info=None, rate_limits={"limit_id": "codex", "primary": five,
                                                                "secondary": week}))  # fmt: skip
    filled = (Filled("five_hour", 935_000, 1795298497), Filled("seven_day", 410_000, 1795595497))
    assert written.look() == (Event("window", windows=filled),)
    bad: list[Any] = [
        None,
        7,
        {},
        {**five, "used_percent": -1},
        {**five, "resets_at": None},
        {**five, "used_percent": "9"},
    ]
    for one in bad:
        write(tmp_path, event("token_count", info=[], rate_limits={"primary": one, "secondary": []}))
    assert written.look() == (Event("message"),)
    odd = {**five, "window_minutes": 60}
    write(tmp_path, event("token_count", info=None, rate_limits={"limit_id": "spark", "primary": odd}))
    assert written.look()[0].windows[-1] == Filled("spark_60_minutes", 935_000, 1795298497)


@pytest.mark.parametrize(
    ("info", "trouble"),
    [
        ({"http_connection_failed": {"http_status_code": 401}}, "auth"),
        ({"response_too_many_failed_attempts": {"http_status_code": 429}}, "rate_limited"),
        ({"http_connection_failed": {"http_status_code": 503}}, "overloaded"),
        ("context_window_exceeded", "context"),
        ("server_overloaded", "overloaded"),
        ("usage_limit_exceeded", "rate_limited"),
        ("invalid_prompt", "refused"),
        ("session_budget_exceeded", "budget"),
    ],
)
def test_the_code_of_a_failure(tmp_path: Path, info: object, trouble: str) -> None:
    written = codex.transcript(str(tmp_path))
    write(tmp_path, failed(info))
    assert written.look() == (Event(trouble, text="x"),)
    assert written.look() == ()


def test_codes_that_say_nothing_of_the_account(tmp_path: Path) -> None:
    lost = {"http_connection_failed": {"http_status_code": None}}
    odd = ({"a": {"http_status_code": 401}, "b": 1}, {"a": 401}, {"a": {"http_status_code": "401"}})
    infos: list[object] = ["other", "model_not_found", None, [], {}, lost, *odd]
    written = codex.transcript(str(tmp_path))
    write(tmp_path, *[failed(info) for info in infos], event("task_complete", error="x"), event("task_complete"))
    assert written.look() == (Event("message"),)


def test_one_code_for_three_things(tmp_path: Path) -> None:
    """Without credit and without a plan there is nothing to wait for; with a limit there is, until it says."""
    written = codex.transcript(str(tmp_path))
    write(tmp_path, failed("usage_limit_exceeded", "Quota exceeded. Check your plan and billing details."))
    assert written.look()[0].kind == "billing"
    full = {"used_percent": 100.0, "window_minutes": 300, "resets_at": 1795298497}
    free = {"used_percent": 41, "window_minutes": 10080, "resets_at": 1795595497}
    write(tmp_path, event("token_count", info=None, rate_limits={"primary": full, "secondary": free}))
    write(tmp_path, failed("usage_limit_exceeded", "You’ve hit your usage limit. Try again later."))
    assert [(event.kind, event.until) for event in written.look()] == [("window", None), ("rate_limited", 1795298497)]


def test_a_failure_that_was_answered_since_is_none(tmp_path: Path) -> None:
    written = codex.transcript(str(tmp_path))
    write(tmp_path, failed("usage_limit_exceeded"), record(1000))
    assert [event.kind for event in written.look()] == ["usage"]


def test_what_its_tools_put_there_is_passed_over(tmp_path: Path) -> None:
    """Nothing hangs and nothing is followed: a tool may write below its HOME where nothing nests a sandbox."""
    folder = (tmp_path / ROLLOUT).parent
    folder.mkdir(parents=True)
    secret = tmp_path / "secret"
    secret.write_text(json.dumps(record(9)) + "\n")
    (folder / f"rollout-2026-{THREAD}.jsonl").symlink_to(secret)
    os.mkfifo(folder / "rollout-pipe.jsonl")
    (folder / "rollout-folder.jsonl").mkdir()
    for line in (b"\xff\xfe", b"[" * 10_000, b'"token_count"', b'{"type": "token_count"}',
                 b'{"type": ["event_msg"], "payload": {"type": "token_count"}}',
                 b'{"type": "turn_context", "payload": {"model": 7}}',
                 b'{"type": "token_usage_record", "payload": "x"}'):  # fmt: skip
        write(tmp_path, line)
    nonsense = {"input_tokens": -5, "output_tokens": float("nan"), "cached_input_tokens": "9"}
    write(tmp_path, event("token_count", info={"total_token_usage": nonsense}, rate_limits=[]))
    assert whole(tmp_path) == Usage()
    write(tmp_path, b"x" * (9 << 20), record(7))
    assert whole(tmp_path).input_tokens == 7
    assert codex.session(str(tmp_path)) is None


def test_a_thousand_models_are_a_few(tmp_path: Path) -> None:
    lines = [line for number in range(300) for line in (model(f"m{number}"), record(number + 1))]
    write(tmp_path, *lines)
    usage = whole(tmp_path)
    assert (usage.input_tokens, usage.turns) == (300, 300)
    assert len(usage.unpriced) <= 65


def test_the_conversation_that_could_be_gone_on_with(tmp_path: Path) -> None:
    assert codex.session(str(tmp_path)) is None
    write(tmp_path, {"type": "session_meta", "payload": {"id": THREAD, "source": "exec"}}, record(1))
    assert codex.session(str(tmp_path)) == Conversation(THREAD, ROLLOUT)
    later = "01a1fff5-0000-7602-aea7-d8ab3a0237a7"
    meta = {"type": "session_meta", "payload": {"id": later, "source": {"subagent": "x"}}}
    write(tmp_path, meta, path=ROLLOUT.replace(THREAD, later))
    os.utime(tmp_path / ROLLOUT, (1, 1))
    assert codex.session(str(tmp_path)) is None
