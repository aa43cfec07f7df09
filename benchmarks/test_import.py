"""CPU time of an import, in an interpreter of its own: less the time of an interpreter that imports nothing.

``pytest benchmarks/test_import.py`` prints it for `import wsfast`, for what a client and a server use of it, and for
websockets' client.
"""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

PROGRAMS = {
    "nothing": "pass",
    "wsfast": "import wsfast",
    "wsfast.connection": "import wsfast.connection",
    "wsfast.sync": "import wsfast.sync",
    "wsfast.connect": "import wsfast; wsfast.connect",
    "wsfast.serve": "import wsfast; wsfast.serve",
    "websockets.asyncio.client": "import websockets.asyncio.client",
}


def cpu_time(program: str) -> float:
    """Return the seconds of CPU that a program takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("name", PROGRAMS)
def test_import(benchmark, name: str) -> None:  # type: ignore[no-untyped-def]
    times: list[float] = []
    benchmark.pedantic(lambda: times.append(cpu_time(PROGRAMS[name])), rounds=3, warmup_rounds=1)
    benchmark.extra_info["cpu_ms"] = 1000 * min(times)


def test_ours_is_not_dearer_than_websockets() -> None:
    # By turns, and the least of each: the machine may be busy.
    least = {"wsfast": 9e9, "websockets.asyncio.client": 9e9}
    for _ in range(4):
        for name in least:
            least[name] = min(least[name], cpu_time(PROGRAMS[name]))
    assert least["wsfast"] <= least["websockets.asyncio.client"]
