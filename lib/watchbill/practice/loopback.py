"""A threading HTTP/1.1 server on 127.0.0.1 that can be closed for certain: every socket shut, every thread joined."""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
import tempfile
import threading
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import IO, Any

#: Bytes moved at once, on the way in and out.
BLOCK = 65536
_HUNG_UP = "the client hung up in the middle of its request"


class Server(ThreadingHTTPServer):
    """Knows its open connections, so that `close` does not wait for a client that keeps one alive."""

    daemon_threads = False  # with block_on_close, server_close() joins them
    request_queue_size = 128  # fifty firings may be due in one second

    def __init__(self, handler: type[BaseHTTPRequestHandler], port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        super().__init__(("127.0.0.1", port), handler)
        self.closing = threading.Event()  # what waits on purpose (a delay fault) waits on this
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), name="practice", daemon=True)
        self._thread.start()

    def server_activate(self) -> None:
        super().server_activate()
        if self._tls:  # the handshake is made by the connection's own thread, at its first read
            self.socket = self._tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._guard:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._guard:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no news; anything else is shown as the base class does."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def close(self) -> None:
        """Stop accepting, end every connection, join every thread. Idempotent."""
        if self.closing.is_set():
            return
        self.closing.set()
        self.shutdown()
        self._thread.join()
        with self._guard:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """What the practice forge and the bare git server share."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        """Silent: the request log is kept by the practice forge."""

    def hang_up(self) -> None:
        """End the connection with no answer at all."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        """A whole answer of known length."""
        payload = b"" if status in {204, 304} or self.command == "HEAD" else body
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status not in {204, 304}:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(payload)


@contextlib.contextmanager
def request_body(handler: BaseHTTPRequestHandler) -> Iterator[IO[bytes]]:
    """The request's body, unchunked and unpacked, as a file at its start: packs may be larger than memory."""
    with tempfile.TemporaryFile() as file:
        inflate = zlib.decompressobj(31) if handler.headers.get("Content-Encoding") in {"gzip", "x-gzip"} else None
        for block in _blocks(handler):
            file.write(inflate.decompress(block) if inflate else block)
        if inflate:
            file.write(inflate.flush())
        file.seek(0)
        yield file


def _blocks(handler: BaseHTTPRequestHandler) -> Iterator[bytes]:
    if "chunked" in handler.headers.get("Transfer-Encoding", "").lower():
        while size := int(_line(handler).split(b";")[0], 16):
            yield from _exactly(handler, size)
            _line(handler)
        while _line(handler).strip():  # trailers
            pass
    else:
        yield from _exactly(handler, int(handler.headers.get("Content-Length") or 0))


def _line(handler: BaseHTTPRequestHandler) -> bytes:
    line = handler.rfile.readline(BLOCK)
    if not line:
        raise ConnectionError(_HUNG_UP)
    return line


def _exactly(handler: BaseHTTPRequestHandler, size: int) -> Iterator[bytes]:
    while size:
        block = handler.rfile.read(min(size, BLOCK))
        if not block:
            raise ConnectionError(_HUNG_UP)
        size -= len(block)
        yield block
