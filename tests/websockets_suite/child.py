# ruff: noqa: N802, N815 - the names are unittest's
"""Run one module of websockets' tests on `wsfast.websockets`, and print the outcome of each test as JSON."""

from __future__ import annotations

import importlib
import json
import logging
import signal
import sys
import types
import unittest
import warnings
from pathlib import Path
from typing import Any

PATIENCE = 20
"""Seconds for one test."""


class Result(unittest.TestResult):
    """Keeps what became of each test."""

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: dict[str, list[str]] = {}

    def _note(self, test: unittest.TestCase, outcome: str, text: str = "") -> None:
        name = ".".join(test.id().split(".")[-2:])
        if self.outcomes.get(name, ["passed"])[0] == "passed":
            self.outcomes[name] = [outcome, text]

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        signal.alarm(PATIENCE)

    def stopTest(self, test: unittest.TestCase) -> None:
        signal.alarm(0)
        super().stopTest(test)

    def addSuccess(self, test: unittest.TestCase) -> None:
        self._note(test, "passed")

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        self._note(test, "failed", _text(err))

    addError = addFailure

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self._note(test, "skipped", reason)

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        if err is not None:
            self._note(test, "failed", _text(err))


def _text(err: Any) -> str:
    exc = err[1]
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    if exc is not err[1]:
        err = type(exc), exc
    return f"{err[0].__name__}: {err[1]}"[:2000]


def _late(*args: Any) -> None:
    raise TimeoutError(f"the test took more than {PATIENCE} s")


def adapt() -> Any:
    """Put `adapter` in the place of what reaches into websockets' inside, and return it."""
    here = Path(__file__).parent
    adapter = types.ModuleType("adapter")
    exec(compile((here / "adapter.py").read_text(), str(here / "adapter.py"), "exec"), adapter.__dict__)
    protocol: Any = types.ModuleType("tests.protocol")
    protocol.RecordingProtocol = adapter.RecordingProtocol
    sys.modules["tests.protocol"] = protocol
    connection: Any = types.ModuleType("tests.asyncio.connection")
    connection.InterceptingConnection = adapter.InterceptingConnection
    sys.modules["tests.asyncio.connection"] = connection
    threads: Any = types.ModuleType("tests.sync.connection")
    threads.InterceptingConnection = adapter.InterceptingSyncConnection
    sys.modules["tests.sync.connection"] = threads
    proxy: Any = importlib.import_module("websockets.proxy")
    proxy.prepare_connect_request = None  # only its own tests are about it
    sync_server: Any = importlib.import_module("tests.sync.server")

    def get_sync_uri(running: Any, secure: bool | None = None) -> str:
        if secure is None:
            secure = running._ssl is not None
        return "{}://{}:{}".format("wss" if secure else "ws", *running.socket.getsockname()[:2])

    sync_server.get_uri = get_sync_uri
    on_trio: Any = types.ModuleType("tests.trio.connection")
    on_trio.InterceptingConnection = adapter.InterceptingTrioConnection
    sys.modules["tests.trio.connection"] = on_trio
    trio_server: Any = importlib.import_module("tests.trio.server")

    def get_trio_uri(running: Any, secure: bool | None = None) -> str:
        if secure is None:
            secure = running._ssl is not None
        return "{}://{}:{}".format("wss" if secure else "ws", *trio_server.get_host_port(running.listeners))

    trio_server.get_uri = get_trio_uri
    server: Any = importlib.import_module("tests.asyncio.server")

    def get_uri(running: Any, secure: bool | None = None) -> str:
        host, port = server.get_host_port(running)
        if secure is None:
            secure = running._listen.get("ssl") is not None
        return f"{'wss' if secure else 'ws'}://{host}:{port}"

    server.get_uri = get_uri
    return adapter


def main() -> None:
    """Run ``child.py CHECKOUT MODULE``."""
    checkout, module = sys.argv[1:]
    sys.path[0] = checkout
    warnings.simplefilter("ignore")
    importlib.import_module("wsfast.websockets.alias").install()
    importlib.import_module("tests")
    logging.disable(logging.NOTSET)
    result = Result()
    signal.signal(signal.SIGALRM, _late)
    try:
        adapter = adapt()
        if module == "tests.asyncio.test_connection":
            adapter.soften(importlib.import_module(module))
        elif module in ("tests.sync.test_connection", "tests.trio.test_connection"):
            adapter.soften_sync(importlib.import_module(module))
        suite = unittest.defaultTestLoader.loadTestsFromName(module)
    except Exception as exc:
        print(json.dumps({"(the module)": ["failed", f"{type(exc).__name__}: {exc}"]}))
        return
    suite.run(result)
    print(json.dumps(result.outcomes))


if __name__ == "__main__":
    main()
