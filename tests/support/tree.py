"""A directory as a value: to see that nothing in it was changed."""

from __future__ import annotations

import hashlib
from pathlib import Path


def picture(root: Path) -> dict[str, str]:
    """Every path below `root` with its kind, mode and contents."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = f"link {path.readlink()}"
        elif path.is_file():
            found[name] = f"{path.stat().st_mode:o} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        else:
            found[name] = f"{path.stat().st_mode:o} directory"
    return found
