"""Git's smart HTTP protocol on loopback, by git's own CGI program `git http-backend` (git-http-backend(1)).

`answer` is called by any request handler; `serve` is a whole server for the repositories below one directory.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import IO
from urllib.parse import urlsplit

from watchbill.practice import loopback

#: All of the smart protocol, so that nothing else below a repository can be asked for.
SERVICES = ("info/refs", "git-upload-pack", "git-receive-pack")

# Given through the environment (git-config(1), GIT_CONFIG_COUNT), so that the person's repository keeps its own
# configuration. Automatic maintenance would outlive the request; the rest is what GitHub allows a client.
_CONFIG = {
    "http.receivepack": "true",
    "receive.autogc": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "safe.directory": "*",
    "uploadpack.allowFilter": "true",
    "uploadpack.allowAnySHA1InWant": "true",
}


def git_environment() -> dict[str, str]:
    """The whole environment of a git process of the practice forge: nothing of the operator's but PATH."""
    env = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": "/nonexistent",
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_COUNT": str(len(_CONFIG)),
    }
    for index, (key, value) in enumerate(_CONFIG.items()):
        env[f"GIT_CONFIG_KEY_{index}"] = key
        env[f"GIT_CONFIG_VALUE_{index}"] = value
    return env


def split(path: str) -> tuple[str, str] | None:
    """`/acme/api.git/info/refs` -> ("acme/api", "info/refs"); None when it is no smart HTTP request."""
    for service in SERVICES:
        if path.endswith(f".git/{service}"):
            return path[1 : -len(f".git/{service}")], service
    return None


def writes(service: str, query: str) -> bool:
    """Does this request belong to a push?"""
    return service == "git-receive-pack" or "service=git-receive-pack" in query


def answer(
    handler: BaseHTTPRequestHandler,
    repository: str,
    service: str,
    query: str,
    *,
    user: str = "anonymous",
    deliver: bool = True,
    told: Callable[[int], None] = lambda _status: None,
) -> None:
    """Answer one request for the bare `repository`; whoever calls has checked permission.

    `told` is called with the status before the first byte goes out. With `deliver` False git does what was asked and
    its answer is thrown away: the caller answers, or hangs up.
    """
    with loopback.request_body(handler) as body:
        env = git_environment() | {
            "PATH_TRANSLATED": os.path.join(repository, service),
            "PATH_INFO": "/" + service,
            "QUERY_STRING": query,
            "REQUEST_METHOD": handler.command,
            "CONTENT_TYPE": handler.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(os.fstat(body.fileno()).st_size),
            "REMOTE_USER": user,
            "REMOTE_ADDR": "127.0.0.1",
            "GIT_PROTOCOL": handler.headers.get("Git-Protocol", ""),
            "GIT_HTTP_EXPORT_ALL": "1",
        }
        child = subprocess.Popen(
            ["git", "http-backend"],
            stdin=body,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=env,
            start_new_session=True,
        )
        with child:
            assert child.stdout is not None
            try:
                if deliver:
                    _relay(handler, child.stdout, told)
                else:
                    _discard(child.stdout)
            except OSError:
                # The client is gone: end the child and its own children, for nobody reads what they have to say.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                handler.close_connection = True


def _relay(handler: BaseHTTPRequestHandler, out: IO[bytes], told: Callable[[int], None]) -> None:
    status, headers = 200, []
    ended = False
    while line := out.readline():
        if not line.strip():
            ended = True
            break
        name, _, value = line.decode("latin-1").partition(":")
        if name == "Status":
            status = int(value.split()[0])
        else:
            headers.append((name, value.strip()))
    if not ended:  # it died before it said anything
        status, headers = 500, []
    told(status)
    handler.send_response(status)
    for name, value in headers:
        handler.send_header(name, value)
    handler.send_header("Transfer-Encoding", "chunked")
    # libcurl repeats by itself a request that got no answer on a connection it had used before; one request a
    # connection makes an answer lost on purpose be a lost answer.
    handler.send_header("Connection", "close")
    handler.end_headers()
    while block := out.read1(loopback.BLOCK):  # type: ignore[attr-defined]
        handler.wfile.write(b"%x\r\n%b\r\n" % (len(block), block))
    handler.wfile.write(b"0\r\n\r\n")


def _discard(out: IO[bytes]) -> None:
    while out.read(loopback.BLOCK):
        pass


@contextlib.contextmanager
def serve(root: str, port: int = 0) -> Iterator[str]:
    """Serve every `root/OWNER/NAME.git` to everybody, pushes too; yields the base URL, `http://127.0.0.1:PORT`."""
    top = os.path.realpath(root)

    class Git(loopback.Handler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            found = split(url.path)
            repository = os.path.realpath(os.path.join(top, found[0] + ".git")) if found else ""
            if found is None or not repository.startswith(top + os.sep) or not os.path.isdir(repository):
                with loopback.request_body(self):
                    self.send(404, {}, b"not found\n")
            else:
                answer(self, repository, found[1], url.query)

        do_POST = do_GET

    server = loopback.Server(Git, port)
    try:
        yield server.url
    finally:
        server.close()
