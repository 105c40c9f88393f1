"""The server: one for a test, a path prefix for each script, so that programs side by side keep their places."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from support.models import anthropic, openai
from support.models.step import Step, refused

#: A step, or what makes one when its request comes; it runs in the server's thread.
Scripted = Step | Callable[["Seen"], Step]


class Seen(NamedTuple):
    """A request that came, as far as a test may want to know."""

    method: str
    path: str  # below the script's own prefix
    headers: Mapping[str, str]  # names in small letters
    credential: str | None  # the value: of x-api-key, or what Authorization carries
    body: Mapping[str, Any]  # empty when it is no JSON
    model: str | None = None
    tools: tuple[str, ...] = ()
    system: str = ""  # instructions, as one text
    last: str = ""  # the newest message, as JSON

    @property
    def text(self) -> str:
        """All of the body, for looking whether something reached the model."""
        return json.dumps(self.body, ensure_ascii=False)


class Script:
    """What the model answers to one program, and what that asked."""

    def __init__(self, url: str, steps: tuple[Scripted, ...], key: str | None = "") -> None:
        self.key = key  # what every request has to bring; "": the usual one of its protocol, None: anything or nothing
        self.anthropic_url = url
        self.openai_url = f"{url}/v1"
        self.turns: list[Seen] = []  # requests for an answer with tools, in the order of their coming
        self.others: list[Seen] = []  # everything else: titles, models, token counts
        self.turned_away: list[Seen] = []  # of either kind, with another credential or none
        self._steps = steps
        self._at = self._served = 0
        self._lock = threading.Lock()

    @property
    def unused(self) -> int:
        """How many steps nobody has asked for yet; one that goes on for ever counts until it was asked for once."""
        begun = self._at < len(self._steps) and self._times() is None and self._served > 0
        return len(self._steps) - self._at - begun

    def admits(self, seen: Seen, usual: str) -> bool:
        """Whether it brings the credential, as the provider would ask for it; else it is on record as turned away."""
        admitted = self.key is None or seen.credential == (self.key or usual)
        if not admitted:
            self.turned_away.append(seen)
        return admitted

    def answer(self, seen: Seen) -> Step:
        with self._lock:
            self.turns.append(seen)
            if self._at >= len(self._steps):
                return refused(400, type="invalid_request_error", message=f"the script has {len(self._steps)} steps, "
                               f"and this is request {len(self.turns)}")  # fmt: skip
            scripted, times = self._steps[self._at], self._times()
            self._served += 1
            if times is not None and self._served >= times:
                self._at, self._served = self._at + 1, 0
        return scripted if isinstance(scripted, Step) else scripted(seen)

    def _times(self) -> int | None:
        step = self._steps[self._at]
        return step.times if isinstance(step, Step) else 1


class Models:
    """The server, while it is entered."""

    def __enter__(self) -> Models:
        self._scripts: list[Script] = []
        self._server = _Server(self._scripts)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.closing.set()
        self._server.shutdown()
        self._server.hang_up()
        self._server.server_close()  # waits for the threads of all requests
        self._thread.join()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def script(self, *steps: Scripted, key: str | None = "") -> Script:
        """A new script; a request beyond its end is answered with status 400, one without its `key` with 401."""
        script = Script(f"http://127.0.0.1:{self.port}/s/{len(self._scripts)}", steps, key)
        self._scripts.append(script)
        return script


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 64

    def __init__(self, scripts: list[Script]) -> None:
        self.scripts = scripts
        self.closing = threading.Event()
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it has ended by itself

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # whoever asked has gone; a defect of ours shows as the answer that did not come


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.json(200, {})

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def _handle(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self._body(headers)
        _, _, number, *rest = [*self.path.split("?")[0].split("/"), "", ""]
        path = "/" + "/".join(rest).rstrip("/")
        if not (self.path.startswith("/s/") and number.isdigit() and int(number) < len(self.server.scripts)):
            return self.json(
                404, {"error": {"type": "not_found_error", "message": f"there is no script at {self.path}"}}
            )
        script = self.server.scripts[int(number)]
        wire: Any = anthropic if path.startswith("/v1/messages") else openai
        bare = headers.get("authorization", "").partition(" ")[2] or None
        seen = Seen(self.command, path, headers, headers.get("x-api-key") or bare, body, **wire.told(body))
        if not script.admits(seen, wire.KEY):
            return self._play(wire, seen, wire.unauthorized(seen.credential))
        if wire.is_turn(self.command, path, headers, body):
            return self._play(wire, seen, script.answer(seen))
        script.others.append(seen)
        status, answer = wire.aside(self.command, path, headers, body)
        return self.json(status, answer)

    def _play(self, wire: Any, seen: Seen, step: Step) -> None:
        if step.delay_s:
            self.server.closing.wait(step.delay_s)
        if step.status != 200:
            return self.json(step.status, wire.error(step), step.headers)
        if not seen.body.get("stream") and step.stream == "whole":
            return self.json(200, wire.whole(seen.model, step), step.headers)
        self._begin(200, {"content-type": "text/event-stream", "cache-control": "no-cache", "connection": "close",
                          **step.headers})  # fmt: skip
        self.close_connection = True
        for event in wire.events(seen.model, step):
            self.wfile.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
            self.wfile.flush()
            if step.pause_s and event["type"] in ("content_block_stop", "response.output_item.done"):
                self.server.closing.wait(step.pause_s)
        if step.stream == "stalls":
            self.server.closing.wait()
        return None

    def _body(self, headers: Mapping[str, str]) -> dict[str, Any]:
        raw = self._chunks() if "chunked" in headers.get("transfer-encoding", "") else self.rfile.read(
            int(headers.get("content-length", 0)))  # fmt: skip
        try:
            told = json.loads(gzip.decompress(raw) if headers.get("content-encoding") == "gzip" else raw or b"{}")
        except (ValueError, OSError):
            return {}
        return told if isinstance(told, dict) else {}

    def _chunks(self) -> bytes:
        found = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def json(self, status: int, told: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        data = json.dumps(told).encode()
        self._begin(status, {"content-type": "application/json", "content-length": str(len(data)), **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(data)

    def _begin(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
