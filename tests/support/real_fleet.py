"""A fleet whose agent runs a real engine's program against a scripted model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support import real
from support.fleet import Fleet, agent, fleet
from support.models import Script

_ENDPOINT = {"claude": "ANTHROPIC_BASE_URL", "codex": "OPENAI_BASE_URL"}


@contextlib.contextmanager
def real_fleet(
    root: Path,
    engine: str,
    script: Script,
    *,
    key: str | None = None,
    checks: list[str] | None = None,
    files: dict[str, str] | None = None,
    options: str = "",
    **more: Any,
) -> Iterator[Fleet]:
    """bosun uses `engine`, whose key lies in a file outside the fleet's home and is what its script expects.

    `options`: further lines of its table in fleet.toml; `more`: further keys of bosun's own `watchbill:` map.
    """
    file = root / "key-of-the-engine"
    script.key = key or real.KEY[engine]
    file.write_text(script.key)
    file.chmod(0o600)
    url = script.anthropic_url if engine == "claude" else script.openai_url
    toml = (
        f'[engines.{engine}]\nprogram = "{real.program(engine)}"\nmodel = "{real.MODEL[engine]}"\n'
        f'key = "file:{file}"\nenv = {{{_ENDPOINT[engine]} = "{url}"}}\n{options}\n'
    )
    bosun = agent({"use": engine}, **{"timeout": "60s", **more})
    with fleet(root, {"bosun": bosun}, checks, files, toml=toml) as it:
        yield it
