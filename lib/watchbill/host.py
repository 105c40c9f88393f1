"""Which host this is: a random id kept in the home, bound to machine, process-id namespace and the home itself.

A home that was copied, or is mounted into a container, must not take the other's firings for its own: their pids mean
nothing here, or are the original's to end. On a mismatch a new id is made and every older record becomes a foreign
host's.
Standard library only: this module lies on the way to a refusal.
"""

from __future__ import annotations

import fcntl
import json
import os


def _binding(home: str) -> dict[str, str]:
    machine = ""
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        try:
            with open(path, encoding="ascii", errors="replace") as file:
                machine = file.read().strip()
        except OSError:
            continue
        if machine:
            break
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    # A copy has another inode; a home that was moved or renamed on its disk keeps its own. Device numbers come and go.
    return {
        "machine": machine or os.uname().nodename,
        "pid_namespace": namespace,
        "home": str(os.stat(home or ".").st_ino),
    }


def host_id(path: str) -> str:
    """The id kept at `path`, made there when absent or bound to somewhere else."""
    binding = _binding(os.path.dirname(path))
    known = _read(path)
    if known and known.items() >= binding.items():
        return str(known["id"])
    locks = os.path.join(os.path.dirname(path), "locks")
    os.makedirs(locks, mode=0o700, exist_ok=True)
    lock = os.open(os.path.join(locks, "host.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of firings that begin together one writes, and all use what it wrote
        again = _read(path)
        if again != known and again and again.items() >= binding.items():
            return str(again["id"])
        # An older program did not bind the home itself: then the id stays.
        older = again and "home" not in again and {**again, "home": binding["home"]}.items() >= binding.items()
        made = {"id": again["id"] if again and older else os.urandom(6).hex(), **binding}
        aside = f"{path}.{os.getpid()}"
        with open(aside, "w", encoding="ascii") as file:
            json.dump(made, file)
        os.replace(aside, path)  # also of one that cannot be read: a new id each time would be a new host each time
        return str(made["id"])
    finally:
        os.close(lock)


def _read(path: str) -> dict[str, str] | None:
    try:
        with open(path, encoding="ascii") as file:
            known = json.load(file)
    except (OSError, ValueError):
        return None
    return known if isinstance(known, dict) and isinstance(known.get("id"), str) else None
