"""The verbs of the contract's programs, as Codex 0.169.0 says them. Prepended to them, never imported.

Its rollout has the tokens of every request, the windows of the account and the code of a failure; on stdout there are
only sentences, and at the end of a turn what the whole conversation used, with what it had before this run.
"""

import json
import os
import signal  # noqa: F401 - for the program that follows
import sys
import time  # noqa: F401

END = "\n"
RESUMED = sys.argv[1:3] == ["exec", "resume"]
THREAD = sys.argv[-2] if RESUMED else "01a1fff4-2aef-7602-aea7-d8ab3a0237a7"
FOLDER = os.path.join(os.environ["CODEX_HOME"], "sessions", "2026", "11", "21")
ROLLOUT = os.path.join(FOLDER, f"rollout-2026-11-21T21-12-34-{THREAD}.jsonl")
STATUSES = {"rate_limited": "429 Too Many Requests", "auth": "401 Unauthorized", "billing": "402 Payment Required",
            "overloaded": "503 Service Unavailable"}  # fmt: skip
CODES = {"rate_limited": "usage_limit_exceeded", "auth": "unauthorized", "billing": "usage_limit_exceeded",
         "overloaded": "server_overloaded", "context": "context_window_exceeded", "refused": "cyber_policy",
         "budget": "session_budget_exceeded"}  # fmt: skip
SENTENCES = {"rate_limited": "exceeded retry limit, last status: 429 Too Many Requests",
             "auth": "unexpected status 401 Unauthorized: no such key", "overloaded": "Selected model is at capacity.",
             "billing": "Quota exceeded. Check your plan and billing details.",
             "context": "Codex ran out of room in the model's context window."}  # fmt: skip


def line(**said):
    sys.stdout.write(json.dumps(said) + END)
    sys.stdout.flush()


def entry(kind, **payload):
    with open(ROLLOUT, "a") as file:
        file.write(json.dumps({"timestamp": "2026-11-21T21:12:34.414Z", "type": kind, "payload": payload}) + "\n")


def event(type, **payload):
    entry("event_msg", type=type, **payload)


def tokens(input, output):
    return {"input_tokens": input, "cached_input_tokens": 0, "output_tokens": output, "total_tokens": input + output}


def begun():
    """The conversation's total so far: input, output."""
    os.makedirs(FOLDER, exist_ok=True)
    if not RESUMED:
        entry("session_meta", id=THREAD, source="exec", cli_version="0.169.0")
        return [0, 0]
    with open(ROLLOUT) as file:
        known = [entry["payload"] for entry in map(json.loads, file) if entry["type"] == "token_usage_record"]
    last = known[-1]["thread_token_usage"] if known else tokens(0, 0)
    return [last["input_tokens"], last["output_tokens"]]


TOTAL = begun()
entry("turn_context", model="gpt-5.5")


def said(text):
    line(type="item.completed", item={"id": "item_0", "type": "agent_message", "text": text})


def used(input, output, usd=None):  # noqa: ARG001 - it knows no price
    TOTAL[:] = TOTAL[0] + input, TOTAL[1] + output
    entry("token_usage_record", thread_id=THREAD, usage=tokens(input, output), thread_token_usage=tokens(*TOTAL))
    event("token_count", info={"total_token_usage": tokens(*TOTAL)}, rate_limits=None)


def window(utilization, resets_at):
    primary = {"used_percent": utilization * 100, "window_minutes": 300, "resets_at": resets_at}
    event("token_count", info=None, rate_limits={"limit_id": "codex", "primary": primary, "secondary": None})


def turned_away(kind):
    line(type="error", message=f"Reconnecting... 1/3 (unexpected status {STATUSES[kind]}: no)")


def limited(until):
    window(1, int(until))
    event("error", message="You've hit your usage limit.", codex_error_info="usage_limit_exceeded")


def gave_up(kind):
    text = SENTENCES.get(kind, "The request cannot be answered.")
    event("task_complete", error={"message": text, "codex_error_info": CODES[kind]})
    line(type="error", message=text)
    line(type="turn.failed", error={"message": text})


def done():
    line(type="turn.completed", usage=tokens(*TOTAL))
    event("task_complete", error=None)


def interrupted():
    event("turn_aborted", reason="interrupted")
