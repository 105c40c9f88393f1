"""No isolation: the program runs as we do. It keeps the environment, the limits and the sweep, and nothing else."""

from __future__ import annotations

from watchbill.isolation.base import Jail

name = "none"
monitored = False


def unavailable() -> str | None:
    return None


def wrap(jail: Jail, argv: tuple[str, ...]) -> tuple[str, ...]:  # noqa: ARG001 - the port's signature
    return tuple(argv)
