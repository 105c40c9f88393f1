"""The one exception for what an operator can fix, and the words it must bring along.

Everything else that escapes is a bug: exit 70 with a report file (see `cli/boundary.py`).
Standard library only: this module lies on the way to a refusal.
"""

from __future__ import annotations


class Fixable(Exception):
    """Something the operator can put right.

    `id` is stable (`WB-ROSTER-01`) and has a page in docs; `what` failed, with the place
    (`agents/bosun.md:7: watchbill.evry`); `why` we think so; `fix` is the command or the edit that mends it;
    `outcome` names the row of `outcomes.EXIT` that a firing or a command ends with.
    """

    def __init__(self, id: str, what: str, *, why: str = "", fix: str = "", outcome: str = "invalid") -> None:
        super().__init__(what)
        self.id = id
        self.what = what
        self.why = why
        self.fix = fix
        self.outcome = outcome

    def __str__(self) -> str:
        lines = [f"{self.id}: {self.what}"]
        if self.why:
            lines.append(f"  why: {self.why}")
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)
