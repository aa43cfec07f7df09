"""The short version of ``python -m tests.leaks``."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from typing import Any

import pytest
from leaks import BATCH, STAGES, Leaks, make_contexts
from raw import connect_raw, text
from shared import until

import wsfast


@pytest.mark.anyio
async def test_messages_and_dropped_connections_leave_nothing(
    anyio_backend: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    leaks = Leaks(messages=5_000, connections=60, contexts=make_contexts())
    await leaks.run()
    assert leaks.failures == []
    assert capsys.readouterr().out.count("ok\n") == 6 + len(STAGES)


@pytest.mark.anyio
async def test_a_leak_is_found(anyio_backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    leaks = Leaks(messages=0, connections=0, contexts=make_contexts())
    kept: list[Any] = []

    async def leaky(count: int) -> None:
        kept.extend(bytearray(100) for _ in range(count))

    leaks.server = _Idle()  # type: ignore[assignment]
    tracemalloc.start(1)
    try:
        await leaks.measure("leaky", 10 * BATCH, leaky)
    finally:
        tracemalloc.stop()
    assert len(leaks.failures) == 1
    assert "bytes of Python objects" in leaks.failures[0]


class _Noting(wsfast.Listener):
    noted: list[weakref.ref[wsfast.WebSocket]]

    def __init__(self, ws: wsfast.WebSocket) -> None:
        super().__init__(ws)
        self.noted.append(weakref.ref(ws))

    def on_message(self, message: str | bytes) -> None:
        self.ws.send_nowait(message)


@pytest.mark.anyio
@pytest.mark.parametrize("form", ["handler", "listener"])
async def test_a_connection_that_has_ended_is_freed_without_the_garbage_collector(
    anyio_backend: Any, form: str
) -> None:
    noted: list[weakref.ref[wsfast.WebSocket]] = []

    async def echo(ws: wsfast.WebSocket) -> None:
        noted.append(weakref.ref(ws))
        async for message in ws:
            await ws.send(message)

    _Noting.noted = noted
    server = wsfast.Server()
    async with server:
        await server.start("127.0.0.1", 0)
        if form == "listener":
            server.register_listener(None, _Noting)
        else:
            server.register_handler(None, echo)
        gc.disable()
        try:
            async with await connect_raw(server) as client:
                client.send(text("x"))
                assert await client.receive_message() == "x"
                await client.end()
            await until(lambda: noted and noted[0]() is None)
        finally:
            gc.enable()


class _Idle:
    counters = {"connections": 0, "handshakes": 0}  # noqa: RUF012
