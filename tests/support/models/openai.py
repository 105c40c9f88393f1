"""The Responses API of OpenAI, as far as programs need it (platform.openai.com/docs/api-reference/responses)."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from support.models.step import Call, Step, fails, refused

#: The usual credential: nobody's, in the form that programs know.
KEY = "sk-proj-nobody-0000"
_ids = itertools.count(1)


def unauthorized(credential: str | None) -> Step:
    if credential is None:
        return refused(401, type="invalid_request_error", message="Missing bearer authentication in header")
    return refused(401, type="invalid_request_error", code="invalid_api_key", message="Incorrect API key provided: "
                   f"{credential[:8]}***.")  # fmt: skip


def out_of_credit() -> Step:
    return refused(429, type="insufficient_quota", code="insufficient_quota",
                   message="You exceeded your current quota, please check your plan and billing details.")  # fmt: skip


def limit_reached(resets_at: int) -> Step:
    """A subscription's window is full."""
    return refused(429, type="usage_limit_reached", message="The usage limit has been reached", plan_type="plus",
                   resets_at=resets_at)  # fmt: skip


def windows(used_percent: float, resets_at: int, week_percent: float = 40.0) -> dict[str, str]:
    """The headers that tell of a subscription's windows: five hours, and the week, which ends a day later."""
    told = {"primary": (used_percent, 300, resets_at), "secondary": (week_percent, 10_080, resets_at + 86_400)}
    return {
        f"x-codex-{name}-{what}": str(value)
        for name, values in told.items()
        for what, value in zip(("used-percent", "window-minutes", "reset-at"), values, strict=True)
    }


def too_long() -> Step:
    return fails(times=None, code="context_length_exceeded", message="Your input exceeds the context window.")


def is_turn(method: str, path: str, headers: Mapping[str, str], body: Mapping[str, Any]) -> bool:  # noqa: ARG001
    """Every request for words: also that for a summary, by which Codex makes room, and which has no tools."""
    return method == "POST" and path.endswith("/responses")


def told(body: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a request that `Seen` names; what a developer says is a part of the instructions."""
    given = body.get("input")
    items = [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []
    ordered = [json.dumps(item.get("content"), ensure_ascii=False) for item in items if item.get("role") == "developer"]
    return {
        "model": body.get("model"),
        "tools": tuple(str(tool.get("name") or tool.get("type")) for tool in _tools(body)),
        "system": "\n".join([str(body.get("instructions") or ""), *ordered]),
        "last": json.dumps(items[-1] if items else given, ensure_ascii=False),
    }


def aside(method: str, path: str, headers: Mapping[str, str], body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:  # noqa: ARG001
    if "upgrade" in headers:
        return 426, {"error": {"type": "invalid_request_error", "message": "no WebSockets here"}}
    if method == "GET" and path.endswith("/models"):
        return 200, {"object": "list", "data": [], "models": []}
    return 404, {"error": {"type": "not_found_error", "message": path}}


def error(step: Step) -> dict[str, Any]:
    return {"error": {"message": f"status {step.status}, as scripted", "type": "error", "code": None, "param": None,
                      **step.error}}  # fmt: skip


def whole(model: str | None, step: Step) -> dict[str, Any]:
    return {**_response(model), "status": "completed", "output": _items(step), "usage": _usage(step)}


def events(model: str | None, step: Step) -> Iterator[dict[str, Any]]:
    number = itertools.count()
    items, begun = _items(step), _response(model)

    def event(type: str, **more: Any) -> dict[str, Any]:
        return {"type": type, "sequence_number": next(number), **more}

    yield event("response.created", response=begun)
    if step.stream == "fails":
        yield event("response.failed", response={**begun, "status": "failed", "error": dict(step.error)})
    if step.stream != "whole":
        return
    for index, item in enumerate(items):
        yield event("response.output_item.added", output_index=index, item={**item, "status": "in_progress"})
        if item["type"] == "message":
            yield event("response.output_text.delta", output_index=index, item_id=item["id"], content_index=0,
                        delta=step.text)  # fmt: skip
        yield event("response.output_item.done", output_index=index, item=item)
    ended = {**begun, "output": items, "usage": _usage(step)}
    if step.stop is not None:
        reason = {"status": "incomplete", "incomplete_details": {"reason": step.stop}}
        yield event("response.incomplete", response={**ended, **reason})
    else:
        yield event("response.completed", response={**ended, "status": "completed"})


def _tools(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Newer models are given them among the input."""
    given = body.get("input")
    items = given if isinstance(given, list) else []
    more = [tool for item in items if isinstance(item, dict) and item.get("type") == "additional_tools"
            for tool in item.get("tools") or ()]  # fmt: skip
    return [*(body.get("tools") or ()), *more]


def _response(model: str | None) -> dict[str, Any]:
    return {"id": f"resp_{next(_ids):020}", "object": "response", "created_at": int(time.time()), "model": model,
            "status": "in_progress", "output": []}  # fmt: skip


def _usage(step: Step) -> dict[str, Any]:
    used = step.used
    return {"input_tokens": used.input, "input_tokens_details": {"cached_tokens": used.cache_read},
            "output_tokens": used.output, "output_tokens_details": {"reasoning_tokens": step.reasoning},
            "total_tokens": used.input + used.output}  # fmt: skip


def _items(step: Step) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if step.text:
        content = [{"type": "output_text", "text": step.text, "annotations": []}]
        items.append({"type": "message", "id": f"item_{next(_ids):020}", "role": "assistant", "status": "completed",
                      "content": content})  # fmt: skip
    return items + [_called(call) for call in step.calls]


def _called(call: Call) -> dict[str, Any]:
    number = next(_ids)
    named = {"id": f"item_{number:020}", "call_id": f"call_{number:020}", "name": call.name, "status": "completed"}
    if isinstance(call.input, str):
        return {"type": "custom_tool_call", **named, "input": call.input}
    return {"type": "function_call", **named, "arguments": json.dumps(call.input)}
