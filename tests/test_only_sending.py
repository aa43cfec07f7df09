"""Handlers that take a message, such as a subscription, and only send from then on: a close need not wait for them."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
import trio
from sync_helpers import until
from trio_helpers import in_trio
from trio_helpers import serving as serving_trio

import wsfast
import wsfast.sync
import wsfast.testing
import wsfast.trio
from wsfast.session import Do, Session

anyio = pytest.mark.anyio

FEW = 0.02


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[Do]:
    """Let the time that a handler has be short; what the sessions answer when a Close frame might be kept back."""
    answers: list[Do] = []
    keep_back = Session.keep_back

    def noted(session: Session, *args: Any) -> Do:
        answers.append(keep_back(session, *args))
        return answers[-1]

    monkeypatch.setattr("wsfast.session.GRACE", FEW)
    monkeypatch.setattr(Session, "keep_back", noted)
    return answers


@anyio
@pytest.mark.parametrize("late", [True, False], ids=["a while ago", "just now"])
async def test_on_asyncio(kept: list[Do], monkeypatch: pytest.MonkeyPatch, late: bool) -> None:
    if not late:
        monkeypatch.setattr("wsfast.session.GRACE", 5.0)
    async with wsfast.testing.pair() as (client, server):
        await client.send("subscribe")
        assert await server.recv() == "subscribe"
        if late:
            await asyncio.sleep(FEW * 2)
        client.close_nowait()
        with pytest.raises(wsfast.ConnectionClosedOK):
            while True:
                await server.send("answer")
                await asyncio.sleep(0)
                if not late and kept:
                    await server.recv()
        assert kept == [Do.SETTLE if late else Do.NOTHING]


@anyio
async def test_what_is_unread_is_waited_for(kept: list[Do]) -> None:
    async with wsfast.testing.pair() as (client, server):
        await client.send("subscribe")
        assert await server.recv() == "subscribe"
        await asyncio.sleep(FEW * 2)
        await client.send("more")
        client.close_nowait()
        while not kept:
            await asyncio.sleep(0)
        assert kept == [Do.NOTHING]
        await server.send("answer")
        assert [message async for message in client] == ["answer"]


def test_in_threads(kept: list[Do]) -> None:
    over = threading.Event()

    def handler(ws: wsfast.sync.WebSocket) -> None:
        assert ws.recv() == "subscribe"
        ws.send("subscribed")
        over.wait()

    with wsfast.sync.serve(handler, "127.0.0.1", 0) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        with wsfast.sync.connect(f"ws://127.0.0.1:{server.socket.getsockname()[1]}/") as ws:
            ws.send("subscribe")
            assert ws.recv() == "subscribed"
            time.sleep(FEW * 2)
        until(lambda: kept)
        over.set()
        server.shutdown()
        serving.join()
    assert kept == [Do.SETTLE]


@in_trio
async def test_on_trio(kept: list[Do]) -> None:
    async def handler(ws: wsfast.trio.WebSocket) -> None:
        assert await ws.recv() == "subscribe"
        await ws.send("subscribed")
        await ws.wait_closed()

    async with serving_trio(handler) as (_, uri), wsfast.trio.connect(uri) as ws:
        await ws.send("subscribe")
        assert await ws.recv() == "subscribed"
        await trio.sleep(FEW * 2)
        await ws.close()
        assert kept == [Do.SETTLE]
