"""uvicorn and gunicorn as programs, with wsfast: their ways to be started, and that each of them stops."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import wsfast
import wsfast.sync

pytestmark = pytest.mark.skipif(os.name == "nt", reason="SIGTERM is POSIX's")

# The application waits elsewhere than in `receive`, for ever; `of` raises where another implementation serves.
APP = """
import asyncio
import os
import wsfast.asgi
import wsfast.uvicorn

ws = wsfast.uvicorn.configure(compression=None)

async def app(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    wsfast.asgi.of(scope)
    await send({"type": "websocket.send", "text": f"VERSION {os.getpid()}"})
    await asyncio.sleep(3600)
"""
WORKER = """
from uvicorn_worker import UvicornWorker

class Worker(UvicornWorker):
    CONFIG_KWARGS = {**UvicornWorker.CONFIG_KWARGS, "ws": "wsfast.uvicorn:Protocol", "lifespan": "off"}
"""
UVICORN = ("uvicorn", "myapp:app", "--port", "0", "--lifespan", "off")
GUNICORN = ("gunicorn", "-k", "myworker.Worker", "-b", "127.0.0.1:0", "myapp:app")
SOON = 40
"""Seconds within which everything must have happened, on a machine that does other work, too."""


class Program:
    """A server that runs.

    Args:
        process: its parent process, or its only one.
        log: what it writes to.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    def url(self) -> str:
        """Wait until it listens, and return where."""
        end = time.monotonic() + SOON
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", self._log.read_text())):
            assert self.process.poll() is None, self._log.read_text()
            assert time.monotonic() < end, self._log.read_text()
            time.sleep(0.02)
        return f"ws://127.0.0.1:{found[1]}/"

    def connect(self) -> tuple[wsfast.sync.WebSocket, str, int]:
        """Connect; return the connection and what the application says of itself: its version and its process."""
        url, end = self.url(), time.monotonic() + SOON
        while True:
            try:
                ws = wsfast.sync.connect(url, open_timeout=SOON)
                break
            except ConnectionRefusedError:  # the address is bound, and no worker listens yet
                assert time.monotonic() < end, self._log.read_text()
                time.sleep(0.02)
        version, pid = str(ws.recv(SOON)).split()
        return ws, version, int(pid)

    def stop(self) -> str:
        """Ask it to stop, wait until it has, and return its log."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(SOON)
        return self._log.read_text()


@contextlib.contextmanager
def program(folder: Path, *arguments: str, app: str = APP, **environment: str) -> Iterator[Program]:
    """Run a module of Python in a folder that has the application."""
    (folder / "myapp.py").write_text(app.replace("VERSION", "one"))
    (folder / "myworker.py").write_text(WORKER)
    path = os.pathsep.join([str(Path(wsfast.__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", **environment},
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        yield Program(process, log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # workers, too
        process.wait()


def ended(ws: wsfast.sync.WebSocket) -> int | None:
    """Wait for the end of a connection, and return its close code."""
    with pytest.raises(wsfast.ConnectionClosed):
        ws.recv(SOON)
    return ws.close_code


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (UVICORN, {"UVICORN_WS": "wsfast.uvicorn:Protocol"}),
        ((*UVICORN, "--ws", "myapp:ws", "--timeout-graceful-shutdown", "1"), {}),
        ((*UVICORN, "--http", "wsfast.uvicorn:HTTP", "--workers", "2"), {}),
        (GUNICORN, {}),
    ],
    ids=["UVICORN_WS", "configured, with a graceful timeout", "workers", "gunicorn"],
)
def test_it_stops_while_an_application_waits_elsewhere(
    tmp_path: Path, arguments: tuple[str, ...], environment: dict[str, str]
) -> None:
    with program(tmp_path, *arguments, **environment) as server:
        ws, version, pid = server.connect()
        assert version == "one"
        assert (pid == server.process.pid) is (arguments != GUNICORN and "--workers" not in arguments)
        log = server.stop()
        assert ended(ws) == 1012
        assert "Traceback" not in log, log


def test_reload_does_not_wait_for_connections(tmp_path: Path) -> None:
    with program(tmp_path, *UVICORN, "--ws", "wsfast.uvicorn:Protocol", "--reload") as server:
        ws, _, before = server.connect()
        changed = tmp_path / "myapp.py"
        changed.write_text(APP.replace("VERSION", "two"))
        # uvicorn looks every 0.25 s, and takes what it sees the first time for the state that it started with.
        for later in range(10, 70):
            os.utime(changed, (time.time() + later,) * 2)
            with contextlib.suppress(TimeoutError, wsfast.ConnectionClosed):
                ws.recv(1)
            if ws.close_code is not None:
                break
        assert ended(ws) == 1012
        again, version, after = server.connect()
        assert version == "two"
        assert after != before
        server.stop()
        assert ended(again) == 1012
