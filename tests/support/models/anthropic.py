"""The Messages API of Anthropic, as far as programs need it (docs.anthropic.com/en/api/messages-streaming)."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from support.models.step import Step, refused

#: The usual credential: nobody's, in the form that programs know.
KEY = "sk-ant-api03-nobody-0000"
_ids = itertools.count(1)
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
_PREFIX = "anthropic-ratelimit-unified"


def windows(status: str, resets_at: int, used: float, week: tuple[float, int] = (0.4, 0)) -> dict[str, str]:
    """The headers that tell of a subscription's windows: five hours, and the week as (how full, its end)."""
    weeks_end = week[1] or resets_at + 86400
    surpassed = {f"{_PREFIX}-5h-surpassed-threshold": "0.9"} if status == "allowed_warning" else {}
    return {
        f"{_PREFIX}-status": status, f"{_PREFIX}-reset": str(resets_at),
        f"{_PREFIX}-representative-claim": "five_hour",
        f"{_PREFIX}-5h-status": status, f"{_PREFIX}-5h-utilization": str(used), f"{_PREFIX}-5h-reset": str(resets_at),
        f"{_PREFIX}-7d-status": "allowed", f"{_PREFIX}-7d-utilization": str(week[0]),
        f"{_PREFIX}-7d-reset": str(weeks_end), **surpassed}  # fmt: skip


def unauthorized(credential: str | None) -> Step:
    return refused(401, message="x-api-key header is required" if credential is None else "invalid x-api-key")


def out_of_credit() -> Step:
    return refused(400, type="invalid_request_error", message="Your credit balance is too low to access the Anthropic "
                   "API. Please go to Plans & Billing to upgrade or purchase credits.")  # fmt: skip


def too_long() -> Step:
    return refused(400, times=None, type="invalid_request_error",
                   message="prompt is too long: 209000 tokens > 200000 maximum")  # fmt: skip


def is_turn(method: str, path: str, headers: Mapping[str, str], body: Mapping[str, Any]) -> bool:  # noqa: ARG001
    """What has no tools is a side errand of the program: a title, a summary, a look whether the key is good."""
    return method == "POST" and path == "/v1/messages" and bool(body.get("tools"))


def told(body: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a request that `Seen` names."""
    system, messages = body.get("system", ""), body.get("messages") or [{}]
    return {
        "model": body.get("model"),
        "tools": tuple(str(tool.get("name")) for tool in body.get("tools") or ()),
        "system": system if isinstance(system, str) else "\n".join(part.get("text", "") for part in system),
        "last": json.dumps(messages[-1], ensure_ascii=False),
    }


def aside(method: str, path: str, headers: Mapping[str, str], body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:  # noqa: ARG001
    if path == "/v1/messages/count_tokens":
        return 200, {"input_tokens": len(json.dumps(body)) // 4}
    return 200, whole(body.get("model"), Step(text="ok"))


def error(step: Step) -> dict[str, Any]:
    said = {"type": _TYPES.get(step.status, "api_error"), "message": f"status {step.status}, as scripted", **step.error}
    return {"type": "error", "error": said, "request_id": f"req_{next(_ids)}"}


def whole(model: str | None, step: Step) -> dict[str, Any]:
    return {**_message(model), "content": _blocks(step), "stop_reason": _stop(step), "usage": _usage(step)}


def events(model: str | None, step: Step) -> Iterator[dict[str, Any]]:
    # Like the real one: what was written is counted at the end, and 1 until then.
    yield {"type": "message_start", "message": {**_message(model), "usage": {**_usage(step), "output_tokens": 1}}}
    if step.stream == "fails":
        yield error(step)
    if step.stream != "whole":
        return
    for index, block in enumerate(_blocks(step)):
        yield {"type": "content_block_start", "index": index, "content_block": _empty(block)}
        yield {"type": "content_block_delta", "index": index, "delta": _delta(block)}
        yield {"type": "content_block_stop", "index": index}
    yield {"type": "message_delta", "delta": {"stop_reason": _stop(step), "stop_sequence": None}, "usage": _usage(step)}
    yield {"type": "message_stop"}


def _message(model: str | None) -> dict[str, Any]:
    return {"id": f"msg_{next(_ids):020}", "type": "message", "role": "assistant", "model": model, "content": [],
            "stop_reason": None, "stop_sequence": None}  # fmt: skip


def _usage(step: Step) -> dict[str, int]:
    used = step.used
    return {"input_tokens": used.input - used.cache_read - used.cache_write, "output_tokens": used.output,
            "cache_read_input_tokens": used.cache_read, "cache_creation_input_tokens": used.cache_write}  # fmt: skip


def _stop(step: Step) -> str:
    return step.stop or ("tool_use" if step.calls else "end_turn")


def _blocks(step: Step) -> list[dict[str, Any]]:
    text = [{"type": "text", "text": step.text}] if step.text else []
    return text + [{"type": "tool_use", "id": f"toolu_{next(_ids):020}", "name": call.name, "input": call.input}
                   for call in step.calls]  # fmt: skip


def _empty(block: dict[str, Any]) -> dict[str, Any]:
    return {**block, "text": ""} if block["type"] == "text" else {**block, "input": {}}


def _delta(block: dict[str, Any]) -> dict[str, Any]:
    if block["type"] == "text":
        return {"type": "text_delta", "text": block["text"]}
    return {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
