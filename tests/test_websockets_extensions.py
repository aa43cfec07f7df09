"""Extensions of a program's own work on the connections of `wsfast.websockets`, on each of its faces."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import trio

from wsfast.codec import Encoder
from wsfast.websockets.asyncio import client, server
from wsfast.websockets.exceptions import (
    ConnectionClosedError,
    InvalidHandshake,
    NegotiationError,
    PayloadTooBig,
    ProtocolError,
)
from wsfast.websockets.extensions import ClientExtensionFactory, Extension, ServerExtensionFactory
from wsfast.websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    ServerPerMessageDeflateFactory,
)
from wsfast.websockets.frames import CLOSE, TEXT, Frame
from wsfast.websockets.sync import client as sync_client
from wsfast.websockets.sync import server as sync_server
from wsfast.websockets.trio import client as trio_client
from wsfast.websockets.trio import server as trio_server
from wsfast.websockets.typing import ExtensionName, ExtensionParameter

pytestmark = pytest.mark.anyio


class Turned(Extension):
    """Turns payloads around, and marks frames by RSV2."""

    name = ExtensionName("x-turned")

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        if not frame.rsv2:
            raise ProtocolError("expected RSV2")
        self.seen.append(frame.opcode)
        return dataclasses.replace(frame, data=bytes(frame.data)[::-1], rsv2=False)

    def encode(self, frame: Frame) -> Frame:
        return dataclasses.replace(frame, data=bytes(frame.data)[::-1], rsv2=True)


class Offer(ClientExtensionFactory):
    name = Turned.name

    def get_request_params(self) -> Sequence[ExtensionParameter]:
        return [("way", "back")]

    def process_response_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> Extension:
        if list(params) != [("way", "back")]:
            raise NegotiationError("another way")
        return Turned()


class Take(ServerExtensionFactory):
    name = Turned.name

    def __init__(self, *answer: ExtensionParameter) -> None:
        self.answer = list(answer)

    def process_request_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> tuple[list[ExtensionParameter], Extension]:
        return self.answer or list(params), Turned()


MESSAGES: list[str | bytes] = ["", "hi", b"\x00\x01\x02", "ä" * 3000, os.urandom(200_000)]


async def echo(ws: Any) -> None:
    async for message in ws:
        await ws.send(message)


def names(ws: Any) -> list[str]:
    return [type(extension).__name__ for extension in ws.protocol.extensions]


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_on_asyncio(compression: str | None) -> None:
    options: dict[str, Any] = {"compression": compression}
    async with server.serve(echo, "127.0.0.1", 0, extensions=[Take()], **options) as one:
        uri = f"ws://127.0.0.1:{one.sockets[0].getsockname()[1]}/"
        async with client.connect(uri, extensions=[Offer()], **options) as ws:
            agreed = ["Turned"] if compression is None else ["Turned", "PerMessageDeflate"]
            assert names(ws) == agreed
            (other,) = one.connections
            assert names(other) == agreed
            for message in MESSAGES:
                await ws.send(message)
                assert await ws.recv() == message
            await ws.send(["in ", "pieces"])
            assert await ws.recv() == "in pieces"
            await (await ws.ping())
        assert (ws.close_code, other.close_code) == (1000, 1000)
        turned: Any = ws.protocol.extensions[0]
        seen = turned.seen
        assert seen[:2] == [TEXT, TEXT]
        assert seen[-1] is CLOSE
        async with client.connect(uri, compression=None) as ws:  # of who does not offer it
            await ws.send("hi")
            assert await ws.recv() == "hi"
            assert names(ws) == []


async def test_only_permessage_deflate_is_wsfasts_own() -> None:
    ours, theirs = ClientPerMessageDeflateFactory(), ServerPerMessageDeflateFactory()
    async with server.serve(echo, "127.0.0.1", 0, extensions=[theirs], compression=None) as one:
        uri = f"ws://127.0.0.1:{one.sockets[0].getsockname()[1]}/"
        async with client.connect(uri, extensions=[ours], compression=None) as ws:
            assert isinstance(ws._channel.connection.outgoing, Encoder)  # nothing is in front of it
            assert names(ws) == ["PerMessageDeflate"]
            await ws.send("hi")
            assert await ws.recv() == "hi"


async def test_an_answer_that_is_not_acceptable() -> None:
    async with server.serve(echo, "127.0.0.1", 0, extensions=[Take(("way", "forth"))]) as one:
        uri = f"ws://127.0.0.1:{one.sockets[0].getsockname()[1]}/"
        with pytest.raises(InvalidHandshake, match=r"^Unsupported extension: name = x-turned, params = "):
            await client.connect(uri, extensions=[Offer()])


def test_in_threads() -> None:
    def handler(ws: Any) -> None:
        for message in ws:
            ws.send(message)

    with sync_server.serve(handler, "127.0.0.1", 0, extensions=[Take()]) as one:
        thread = threading.Thread(target=one.serve_forever)
        thread.start()
        uri = f"ws://127.0.0.1:{one.socket.getsockname()[1]}/"
        with sync_client.connect(uri, extensions=[Offer()]) as ws:
            assert names(ws) == ["Turned", "PerMessageDeflate"]
            for message in MESSAGES:
                ws.send(message)
                assert ws.recv(timeout=10) == message
        assert ws.close_code == 1000
    thread.join()


def test_on_trio() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            one: Any = await nursery.start(
                partial(trio_server.serve, echo, port=0, host="127.0.0.1", extensions=[Take()])
            )
            uri = f"ws://127.0.0.1:{one.listeners[0].socket.getsockname()[1]}/"
            with trio.fail_after(20):
                async with trio_client.connect(uri, extensions=[Offer()]) as ws:
                    assert names(ws) == ["Turned", "PerMessageDeflate"]
                    for message in MESSAGES:
                        await ws.send(message)
                        assert await ws.recv() == message
                assert ws.close_code == 1000
                await one.aclose()

    trio.run(main)


# --- What goes wrong ------------------------------------------------------------------------------------


class Picky(Extension):
    """Raises for one payload."""

    name = Turned.name

    def __init__(self, failure: Exception) -> None:
        self.failure = failure

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        if frame.data == b"fail":
            raise self.failure
        return frame

    def encode(self, frame: Frame) -> Frame:
        return frame


@pytest.mark.parametrize(
    ("failure", "code"), [(PayloadTooBig(None, 3), 1009), (ProtocolError("wrong"), 1002), (KeyError("bug"), 1011)]
)
@pytest.mark.parametrize("first", [b"", b"fragment"])
async def test_what_an_extension_refuses(
    failure: Exception, code: int, first: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    class Refuse(Take):
        def process_request_params(self, params: Any, accepted_extensions: Any) -> Any:
            return list(params), Picky(failure)

    class Plain(Offer):
        def process_response_params(self, params: Any, accepted_extensions: Any) -> Any:
            return Picky(KeyError("not here"))

    async with server.serve(echo, "127.0.0.1", 0, extensions=[Refuse()], compression=None) as one:
        uri = f"ws://127.0.0.1:{one.sockets[0].getsockname()[1]}/"
        async with client.connect(uri, extensions=[Plain()], compression=None) as ws:
            await ws.send([first.decode(), "fail"] if first else "fail")
            with pytest.raises(ConnectionClosedError) as caught:
                await ws.recv()
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == code
    told = [record for record in caplog.records if record.getMessage() == "an extension failed on a frame that came"]
    assert bool(told) is isinstance(failure, KeyError)
    assert all(record.name == "websockets.server" for record in told)
