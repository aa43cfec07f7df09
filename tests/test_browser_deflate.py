"""Chromium and permessage-deflate: what it offers, what is agreed, and that compressed frames come and go."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any, Self

import pytest
from browser import chromium
from selenium.webdriver import Chrome

import wsfast
from wsfast.connection import Connection

pytestmark = pytest.mark.browser

PAGE = b"<!DOCTYPE html><title>permessage-deflate</title>"

# Answers with the extension as the browser sees it, and with what came back.
SCRIPT = """
const [port, messages, done] = arguments;
const ws = new WebSocket(`ws://127.0.0.1:${port}/`);
ws.binaryType = 'arraybuffer';
const received = [];
const next = () => {
    const [kind, text] = messages[received.length];
    ws.send(kind === 'text' ? text : new TextEncoder().encode(text));
};
ws.onopen = next;
ws.onmessage = ({ data }) => {
    received.push(typeof data === 'string' ? ['text', data] : ['binary', new TextDecoder().decode(data)]);
    if (received.length < messages.length) next(); else ws.close(1000);
};
ws.onclose = ({ code, wasClean }) => done({ extensions: ws.extensions, received, code, wasClean });
"""

MESSAGES = [
    ["text", json.dumps([{"id": number, "side": "buy"} for number in range(200)])],
    ["binary", "binary " * 500],
    ["text", "ä€🙂" * 10_000],
    ["text", "short"],
    ["text", "x" * 500_000],
    ["text", json.dumps([{"id": number, "side": "buy"} for number in range(200)])],
]


class Running:
    """A server in a thread, which notes what it negotiates and what its decoder and encoders are given."""

    def __init__(self, compression: wsfast.Deflate) -> None:
        self.compression = compression
        self.offered: list[str] = []
        self.answered: list[str | None] = []
        self.ports: Future[int] = Future()
        self._stop: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()

        def page(ws: wsfast.WebSocket, request: Any) -> Any:
            if "Upgrade" in request.headers:
                self.offered += request.headers.getall("Sec-WebSocket-Extensions", [])
                return None
            response = ws.respond(200, PAGE.decode())
            response.headers["Content-Type"] = "text/html"
            return response

        async def echo(ws: wsfast.WebSocket) -> None:
            async for message in ws:
                await ws.send(message)

        async with wsfast.serve(echo, "127.0.0.1", 0, compression=self.compression, process_request=page) as server:
            self.ports.set_result(server.sockets[0].getsockname()[1])
            await self._stop.wait()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as running:
        running.set_script_timeout(60)
        yield running


@pytest.mark.parametrize(
    ("options", "agreed"),
    [
        ({}, "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12"),
        (
            {"server_no_context_takeover": True, "client_no_context_takeover": True},
            (
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
                "server_max_window_bits=12; client_max_window_bits=12"
            ),
        ),
        (
            {"server_max_window_bits": 8, "client_max_window_bits": 9},
            # 9 for 8: many peers refuse 8.
            "permessage-deflate; server_max_window_bits=9; client_max_window_bits=9",
        ),
        (
            {"server_max_window_bits": 15, "client_max_window_bits": 15, "executor_threshold": 1000},
            "permessage-deflate",
        ),
    ],
    ids=["default", "no takeover", "narrow", "wide"],
)
def test_compressed_messages(
    driver: Chrome, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], agreed: str
) -> None:
    inflated: list[tuple[int, bool]] = []
    made: list[Connection] = []
    packed: list[int] = []

    def watch(self: Connection, *args: Any, compression: Any = None, **more: Any) -> None:
        assert compression is not None, "nothing was negotiated"
        compress = compression.compress
        decompress = compression.decompress

        class Watched:
            """What the decoder and the channel get instead: RSV1 is what calls the one, or is set by the other."""

            def __getattr__(self, name: str) -> Any:
                return getattr(compression, name)

            def __setattr__(self, name: str, value: Any) -> None:
                setattr(compression, name, value)

            def decompress(self, data: bytes, fin: bool, limit: int) -> bytes:
                inflated.append((len(data), fin))
                return bytes(decompress(data, fin, limit))

            def compress(self, data: bytes) -> bytes:
                out = bytes(compress(data))
                packed.append(len(out))
                return out

        made.append(self)
        original(self, *args, compression=Watched(), **more)

    original = Connection.__init__
    monkeypatch.setattr(Connection, "__init__", watch)
    with Running(wsfast.Deflate(threshold=0, **options)) as running:
        port = running.ports.result(20)
        driver.get(f"http://127.0.0.1:{port}/")
        assert driver.title == "permessage-deflate"
        told = driver.execute_async_script(SCRIPT, port, MESSAGES)
    assert running.offered == ["permessage-deflate; client_max_window_bits"]
    assert told["received"] == MESSAGES
    assert (told["code"], told["wasClean"]) == (1000, True)
    # The browser tells what it agreed to.
    assert told["extensions"].startswith(agreed)
    assert len(made) == 1
    # Each message came with RSV1 and went with it.
    assert sum(fin for _, fin in inflated) == len(MESSAGES)
    assert len(packed) == len(MESSAGES)
    plain = sum(len(text.encode()) for _, text in MESSAGES)
    assert sum(size for size, _ in inflated) * 10 < plain
    assert sum(packed) * 10 < plain
