"""What systemd keeps of a unit in a user's own folders, and how it goes: files, links, stamps."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Sequence

from watchbill.schedulers import systemd_ask as ask
from watchbill.schedulers import units
from watchbill.schedulers.base import File


def folder() -> str:
    """Where a user's units lie (systemd.unit(5), UNIT FILE LOAD PATH)."""
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.join(units.person(), ".config")
    return os.path.join(config, "systemd", "user")


def delete(files: Sequence[File]) -> dict[str, str]:
    """Delete them; units whose files stay, and why."""
    kept: dict[str, str] = {}
    for file in files:
        try:
            os.unlink(file.path)
        except FileNotFoundError:
            pass
        except OSError as error:
            kept[os.path.basename(file.path).rpartition(".")[0]] = f"{file.path}: {error.strerror}"
    return kept


def unlink(names: Collection[str], folders: Collection[str] = ()) -> dict[str, str]:
    """What `enable` and `mask` made of links to these units in the user's own folders; units whose links stay, and why.

    `folders`: where their files were, which need not be where this shell looks.
    """
    links = {f"{name}.{kind}" for name in names for kind in ("timer", "service")}
    kept: dict[str, str] = {}
    for top in {folder(), os.path.join(ask.runtime_directory(), "systemd", "user"), *folders}:
        with contextlib.suppress(FileNotFoundError):
            wanting = [entry.path for entry in os.scandir(top) if entry.name.endswith((".wants", ".requires"))]
            for place in (top, *wanting):
                for entry in list(os.scandir(place)):
                    if entry.name not in links or not entry.is_symlink():
                        continue
                    try:
                        os.unlink(entry.path)
                    except OSError as error:
                        kept[entry.name.rpartition(".")[0]] = f"{entry.path}: {error.strerror}"
    return kept


def forget_stamp(name: str) -> None:
    """When it fired last, as systemd remembers it (systemd.timer(5), Persistent=)."""
    data = os.environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(data, "systemd", "timers", f"stamp-{name}.timer"))
