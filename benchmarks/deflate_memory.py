"""Print the memory for each connection and the CPU for each message by choice of parameters.

    python -m benchmarks.deflate_memory [--connections 200]

Each row is a process of its own: connections that have inflated and compressed 1 message of 1 KiB of JSON ("1"), then
100 ("full"), in KiB of resident memory for each; then the CPU time for one exchange, and what is left of the replies.
Linux with the GNU C library only.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import platform
import subprocess
import sys
import time
from typing import Any

ROWS: list[tuple[str, str, dict[str, Any]]] = [
    ("wsfast, default", "wsfast", {}),
    ("wsfast, default, idle", "wsfast", {"idle": 0}),
    ("wsfast, DeflateBudget spent", "wsfast", {"budget": 0}),
    *(
        (f"wsfast, {bits} bits, mem_level {mem}", "wsfast", {"bits": bits, "mem_level": mem})
        for bits, mem in ((8, 1), (9, 1), (10, 3), (15, 8))
    ),
    *((f"wsfast, level {level}", "wsfast", {"level": level}) for level in (6, 9)),
    ("wsfast, zlib only", "wsfast-zlib", {}),
    *((f"wsfast, zlib only, level {level}", "wsfast-zlib", {"level": level}) for level in (1, 6)),
    ("wsfast, zlib only, 15 bits, mem_level 8", "wsfast-zlib", {"bits": 15, "mem_level": 8}),
    ("wsfast, zlib only, DeflateBudget spent", "wsfast-zlib", {"budget": 0}),
    ("wsfast, zlib_ng only", "wsfast-zlib_ng", {}),
    ("wsfast, zlib_ng only, level 1", "wsfast-zlib_ng", {"level": 1}),
    ("websockets, default", "websockets", {}),
    ("websockets, no takeover", "websockets", {"takeover": False}),
    ("aiohttp, default", "aiohttp", {}),
]


def resident() -> int:
    # Freed memory is for the next connection that needs it; without this it counts as the last one's.
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(peer: str, options: dict[str, Any], count: int) -> dict[str, float]:
    """Measure one row in this process.

    Args:
        peer: a key of `deflate_cases.PEERS`.
        options: `Deflate`'s, and `takeover`; `bits` stands for both windows.
        count: connections.
    """
    from benchmarks.deflate_cases import PEERS, Wsfast, incoming, json_messages
    from wsfast.deflate import DeflateBudget

    takeover = options.pop("takeover", True)
    if (bits := options.pop("bits", None)) is not None:
        options |= {"server_max_window_bits": bits, "client_max_window_bits": bits}
    if (budget := options.get("budget")) is not None:
        options["budget"] = DeflateBudget(budget)
        takeover_in = False
    else:
        takeover_in = takeover
    messages = json_messages(100)
    wbits = min(bits or 12, 12)
    packed = incoming(messages, takeover=takeover_in) if wbits == 12 else _narrow(messages, wbits)
    cls: Any = PEERS[peer]

    def make() -> Any:
        return cls(takeover=takeover, **options)

    def free(connections: list[Any]) -> None:
        if "idle" in options:
            for connection in connections:
                connection.deflate.free_idle(0.0)
                connection.deflate.free_idle(1.0)

    warm = make()
    for one in packed:
        warm.exchange(one)
    start = resident()
    connections = [make() for _ in range(count)]
    fresh = resident() - start
    for connection in connections:
        connection.exchange(packed[0])
    free(connections)
    one_message = resident() - start
    for connection in connections:
        for one in packed[1:]:
            connection.exchange(one)
    free(connections)
    full = resident() - start
    times = []
    for _ in range(30):
        connection = make()
        connection.exchange(packed[0])
        begin = time.process_time()
        for one in packed[1:]:
            connection.exchange(one)
        times.append((time.process_time() - begin) / (len(packed) - 1))
    connection = make()
    for one in packed:
        connection.exchange(one)
    assert not isinstance(connection, Wsfast) or connection.deflate.parameters.memory >= connection.deflate.memory
    return {
        "fresh": fresh / count / 1024,
        "one": one_message / count / 1024,
        "full": full / count / 1024,
        "cpu": min(times) * 1e6,
        "ratio": connection.sent / sum(map(len, messages)),
    }


def _narrow(messages: list[bytes], bits: int) -> list[bytes]:
    import zlib

    compressor = zlib.compressobj(6, wbits=-max(bits, 9))
    return [(compressor.compress(m) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4] for m in messages]


def main() -> None:
    parser = argparse.ArgumentParser(description="Memory and CPU of permessage-deflate by choice of parameters.")
    parser.add_argument("--connections", type=int, default=200, help="connections in each process (default: 200)")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row is not None:
        peer, options = json.loads(arguments.row)
        print(json.dumps(measure(peer, options, arguments.connections)))
        return
    system = f"{platform.system()} {platform.machine()}"
    print(f"Python {platform.python_version()}, {system}, {arguments.connections} connections")
    print(f"{'':42} {'KiB for each connection':>26} {'us for each':>12} {'size':>6}")
    print(f"{'':42} {'new':>8} {'1':>8} {'full':>8} {'exchange':>12} {'left':>6}")
    for title, peer, options in ROWS:
        argv = [sys.executable, "-m", "benchmarks.deflate_memory", "--connections", str(arguments.connections), "--row"]
        run = subprocess.run([*argv, json.dumps([peer, options])], capture_output=True, text=True, check=True)
        row = json.loads(run.stdout)
        memory = " ".join(f"{row[when]:8.1f}" for when in ("fresh", "one", "full"))
        print(f"{title:42} {memory} {row['cpu']:12.1f} {row['ratio']:6.3f}", flush=True)


if __name__ == "__main__":
    main()
