"""Child processes that never outlive this one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self


class Children:
    """Starts processes, each as the leader of its own group, and ends them all.

    The normal way out is the `run` context manager. For the ways that run no code of ours (SIGKILL), a guard process
    watches a pipe from this one and ends what is left when it breaks.
    """

    def __enter__(self) -> Self:
        guard = [sys.executable, str(Path(__file__).with_name("guard.py"))]
        self._guard = subprocess.Popen(guard, stdin=subprocess.PIPE, start_new_session=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait()

    @contextlib.asynccontextmanager
    async def run(
        self, command: Sequence[str], *, log: IO[bytes], env: Mapping[str, str] | None = None, pipe: bool = False
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run a command while the context lasts, and end its whole process group after it.

        Args:
            command: the program and its arguments.
            log: file for stderr, and for stdout unless `pipe`.
            env: the environment, ours by default.
            pipe: make stdout readable at the process's `stdout`.
        """
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE if pipe else log,
            stderr=log,
            env=env,
            start_new_session=True,
            limit=2**22,
        )
        self._tell(f"+{process.pid}")
        try:
            yield process
        finally:
            await asyncio.shield(self._end(process))

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        _signal_group(process.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), 10)
        # Also when the leader has ended: it may have left others of its group behind.
        _signal_group(process.pid, signal.SIGKILL)
        await process.wait()
        self._tell(f"-{process.pid}")

    def _tell(self, line: str) -> None:
        assert self._guard.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._guard.stdin.write(line.encode() + b"\n")
            self._guard.stdin.flush()


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def free_port() -> int:
    """Return a port on which nothing listens, below those that the system gives to outgoing connections.

    One that the system chose could be taken by a connection of the other fuzzer before the server listens on it.
    """
    for _ in range(1000):
        port = random.randrange(20000, 32000)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port between 20000 and 32000")


async def wait_listening(port: int, process: asyncio.subprocess.Process, seconds: float) -> bool:
    """Wait until something listens on the port; return False if the process ends first or time is up."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while process.returncode is None:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.05)
                    continue
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
                return True
    return False
