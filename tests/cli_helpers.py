"""Running `python -m wsfast serve` as a program, and reading terminals."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO


@dataclass
class Serve:
    """A server that runs in a process of its own."""

    process: subprocess.Popen[str]
    printed: str
    """What it printed when it was ready."""
    port: int
    """The port it listens on, 0 if on none."""
    logged: str = ""
    """Its log, once it has ended."""
    _log: IO[str] | None = None

    def log(self) -> str:
        """Return what it has logged so far."""
        if self._log is None or self._log.closed:
            return self.logged
        return os.pread(self._log.fileno(), 1 << 24, 0).decode()


@contextlib.contextmanager
def serve(*arguments: str, port: int | None = 0) -> Iterator[Serve]:
    """Start the server, wait until it is ready, and stop it in the end.

    Args:
        arguments: more of the command line.
        port: 0 for any free one; None to leave it away.
    """
    where = [] if port is None else ["--port", str(port)]
    command = [sys.executable, "-m", "wsfast", "serve", *where, *arguments]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout is not None
        try:
            lines = []
            for line in process.stdout:
                lines.append(line)
                if "Ctrl-C stops it" in line:
                    break
            else:
                log.seek(0)
                raise AssertionError(f"it ended with {process.wait()}: {''.join(lines)}{log.read()}")
            printed = "".join(lines)
            found = re.search(r"wss?://[^ /]+:(\d+)/", printed)
            running = Serve(process, printed, int(found[1]) if found else 0, _log=log)
            yield running
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
        log.seek(0)
        running.logged = log.read()


def read_terminal(master: int) -> bytes:
    """Return all that programs showed on a terminal, whose other end is closed; one read may have a part of it."""
    shown = b""
    with contextlib.suppress(OSError):  # EIO: there is no more
        while part := os.read(master, 65536):
            shown += part
    return shown
