"""The verbs of the contract's programs, as Claude Code 2.1.329 says them. Prepended to them, never imported.

Its transcript has each answer with its tokens; its results, on stdout, have tokens and dollars: of this process since
the last one, and (`total_cost_usd`) of all of it.
"""

import json
import os
import signal  # noqa: F401 - for the program that follows
import sys
import time

END = "\n"
MODEL = "claude-sonnet-5-5"
RESUMED = "--resume" in sys.argv
SESSION = sys.argv[sys.argv.index("--resume") + 1] if RESUMED else "00000000-0000-4000-8000-000000000001"
TALK = os.path.join(os.environ["CLAUDE_CONFIG_DIR"], "projects", "-work", SESSION + ".jsonl")
SINCE, ALL = [], []  # input, output, dollars of each request
ERRORS = {"rate_limited": ("rate_limit", 429), "auth": ("authentication_failed", 401),
          "billing": ("billing_error", 400), "overloaded": ("overloaded", 529)}  # fmt: skip
ENDS = {"context": {"terminal_reason": "prompt_too_long"}, "refused": {"stop_reason": "refusal"},
        "max_turns": {"subtype": "error_max_turns"}, "budget": {"subtype": "error_max_budget_usd"}}  # fmt: skip


def line(**said):
    sys.stdout.write(json.dumps({**said, "session_id": SESSION}) + END)
    sys.stdout.flush()


def said(text, **more):
    line(type="assistant", message={"id": "m", "content": [{"type": "text", "text": text}]}, **more)


def used(input, output, usd=None):
    request = (input, output, (input + output) / 1e6 if usd is None else usd)
    SINCE.append(request)
    ALL.append(request)
    message = {"id": f"msg_{time.time_ns()}_{len(ALL)}", "model": MODEL, "role": "assistant",
               "usage": {"input_tokens": input, "output_tokens": output}}  # fmt: skip
    os.makedirs(os.path.dirname(TALK), exist_ok=True)
    with open(TALK, "a") as file:
        file.write(json.dumps({"type": "assistant", "sessionId": SESSION, "message": message}) + "\n")


def window(utilization, resets_at, status="allowed_warning"):
    info = {"status": status, "resetsAt": resets_at, "rateLimitType": "five_hour", "utilization": utilization}
    line(type="rate_limit_event", rate_limit_info={**info, "unifiedWindows": {"five_hour": info}})


def turned_away(kind):
    error, status = ERRORS[kind]
    if kind == "billing":  # nothing that it would try again
        said("Credit balance is too low", error=error, api_error_status=status)
    else:
        line(type="system", subtype="api_retry", attempt=1, error_status=status, error=error)


def limited(until):
    window(1, until, status="rejected")


def result(**how):
    totals = [sum(column) for column in zip(*SINCE, strict=True)] or [0, 0, 0]
    used = {"inputTokens": totals[0], "outputTokens": totals[1], "costUSD": totals[2], "costBasis": "list"}
    line(**{"type": "result", "subtype": "success", "is_error": False, "api_error_status": None,
            "terminal_reason": "completed", "num_turns": len(SINCE), "result": "",
            "total_cost_usd": sum(request[2] for request in ALL),
            "usage": {"input_tokens": totals[0], "output_tokens": totals[1]},
            "model_usage_since_last_result": {MODEL: used} if SINCE else {}, **how})  # fmt: skip
    SINCE.clear()


def gave_up(kind):
    if kind in ENDS:
        result(is_error=True, **ENDS[kind])
    else:
        error, status = ERRORS[kind]
        said("API Error", error=error, api_error_status=status)
        result(is_error=True, api_error_status=status, terminal_reason="api_error")


def done():
    result()


def interrupted():
    result(subtype="error_during_execution", is_error=True, terminal_reason="aborted_tools")
