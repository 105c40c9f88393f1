"""The host's zone, by TZ and by /etc/localtime: the same as the C library's, on both sides of a change."""

from __future__ import annotations

import subprocess
import sys

import pytest

ASK = """
import sys, time
from datetime import datetime
from watchbill.schedulers import zone
for at in (1795305600, 1774746000, 1792890000, 1792893600):
    ours = datetime.fromtimestamp(at, zone.local()).strftime("%Y-%m-%d %H:%M %z")
    assert ours == time.strftime("%Y-%m-%d %H:%M %z", time.localtime(at)), (ours, at)
print(zone.local())
"""


@pytest.mark.parametrize(
    "tz", [None, "", "UTC", "Europe/Berlin", ":Europe/Berlin", "/usr/share/zoneinfo/Asia/Kathmandu", "America/St_Johns"]
)
def test_it_is_the_c_librarys(tz: str | None) -> None:
    env = {} if tz is None else {"TZ": tz}
    done = subprocess.run([sys.executable, "-c", ASK], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
