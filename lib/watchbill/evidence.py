"""Typed records of what happened, made by the runner and not by the agent; their bytes lie in blobs/, by digest."""

from __future__ import annotations

import hashlib
import os
from typing import Any

from watchbill.home import Home
from watchbill.ledger import evidence
from watchbill.ledger.evidence import Evidence
from watchbill.live import Firing

#: A record keeps at most so many bytes: the head and the tail, with a line between that says what is missing.
MOST_BYTES = 1 << 20


def keep(f: Firing, kind: str, content: str, summary: dict[str, Any]) -> str:
    """Write one record; its digest. Secrets are taken out before anything touches the disk."""
    data = bounded(f.redact(content)).encode("utf-8", "backslashreplace")
    digest = write_blob(f.ports.home, data)
    with f.ledger.transaction():
        write_blob(f.ports.home, data)  # again: nothing referred to it, and `ledger prune` may have taken it since
        evidence.add(f.ledger, Evidence(f.id, kind, digest, len(data), summary, f.now))
    return digest


def bounded(text: str, most: int = MOST_BYTES) -> str:
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"


def write_blob(home: Home, data: bytes) -> str:
    """Content-addressed: the same bytes are one file, and a half-written one never has the name."""
    digest = hashlib.sha256(data).hexdigest()
    path = blob_path(home, digest)
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        aside = f"{path}.{os.getpid()}"
        with open(aside, "wb") as file:
            file.write(data)
        os.replace(aside, path)
    return digest


def blob_path(home: Home, digest: str) -> str:
    return os.path.join(home.blobs, digest[:2], digest)


def read_blob(home: Home, digest: str) -> str:
    """FileNotFoundError when it was pruned."""
    with open(blob_path(home, digest), encoding="utf-8", errors="backslashreplace") as file:
        return file.read()
