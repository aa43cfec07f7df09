"""Ends what run.py has started when run.py itself is gone, even if it was killed.

Reads lines "+ID" and "-ID" from stdin, each for a process group that was started or has ended. When stdin ends,
the groups that are left are ended.
"""

import contextlib
import os
import signal
import sys
import time

groups: set[int] = set()
for line in sys.stdin:
    (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
for number in (signal.SIGTERM, signal.SIGKILL) if groups else ():
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, number)
    time.sleep(1)
