"""The one place where an exception becomes an exit status: what the operator can fix, and what is a bug of ours."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import traceback

from watchbill.errors import Fixable
from watchbill.outcomes import EXIT


def guarded(args: argparse.Namespace) -> int:
    """Run a verb; 0 or its own status, the table of DESIGN section 2 for errors, 130 on Ctrl-C, 70 for a bug."""
    try:
        return int(args.run(args))
    except Fixable as problem:
        print(problem, file=sys.stderr)
        return EXIT[problem.outcome]
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        raise
    except Exception:
        print(f"this is a bug in watchbill; the report is {bug_report()}", file=sys.stderr)
        return EXIT["bug"]


def bug_report() -> str:
    """Write down the exception being handled; the path of the report."""
    from watchbill import scan

    descriptor, path = tempfile.mkstemp(prefix="watchbill-bug-", suffix=".txt")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(scan.redact(f"watchbill {' '.join(sys.argv[1:2])}\n\n{traceback.format_exc()}"))
    return path
