"""Look for leaks behind ASGI: connections to a FastAPI application, opened and ended in many ways.

``python -m tests.asgi_leaks`` opens and ends 10,000; `tests/test_asgi_leaks.py` fewer. A tenth of them warms up what is
kept on purpose (caches, free lists). Afterwards nothing more may be held: what `tracemalloc` sees, descriptors, tasks,
and uvicorn's connections.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
import tracemalloc
from typing import Any

from fastapi import FastAPI, WebSocket

if __package__:
    sys.path.insert(0, os.path.dirname(__file__))

from asgi_helpers import WAYS, Running, running
from raw import close, text
from shared import until

import wsfast.uvicorn
from wsfast.asgi import of

__all__ = ["look", "main"]

HOW = ("closes", "resets", "within a frame", "the application returns", "it raises", "refused", "never accepted")
AT_ONCE = 10
SLACK = (64 if getattr(sys, "_is_gil_enabled", lambda: True)() else 128) * 1024
"""Bytes of noise; the smallest connection takes 2 KiB. Without a GIL, CPython frees a part of its memory later."""


def application(topics: wsfast.Topics) -> FastAPI:
    """Make an application with an endpoint for each end."""
    app = FastAPI()

    @app.websocket("/echo")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        await of(websocket).subscribe("room")
        async for message in websocket.iter_text():
            await websocket.send_text(message)

    @app.websocket("/returns")
    async def returns(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive_text()

    @app.websocket("/raises")
    async def raises(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive_text()
        raise KeyError("of the application")

    @app.websocket("/refuses")
    async def refuses(websocket: WebSocket) -> None:
        await websocket.close()

    @app.websocket("/waits")
    async def waits(websocket: WebSocket) -> None:
        await websocket.receive()
        await websocket.receive()  # the peer goes meanwhile

    return app


async def one(run: Running, number: int) -> None:
    """Open a connection and have it end in one of the ways."""
    how = HOW[number % len(HOW)]
    paths = {"the application returns": "/returns", "it raises": "/raises", "refused": "/refuses"}
    paths["never accepted"] = "/waits"
    client = await run.open()
    run.clients.remove(client)
    try:
        if how == "never accepted":
            client.send(client_request("/waits"))
            await asyncio.sleep(0)
            return
        await client.handshake(path=paths.get(how, "/echo"))
        if how == "refused":
            assert client.status == 403
            return
        client.send(text(f"message {number}"))
        if how in ("the application returns", "it raises"):
            assert (await client.receive_close())[0] == (1000 if how == "the application returns" else 1011)
            return
        assert await client.receive_message() == f"message {number}"
        if how == "closes":
            client.send(close())
            assert (await client.receive_close())[0] == 1000
        elif how == "within a frame":
            client.send(text("a frame that is cut")[:10])
        else:
            client.reset()
    finally:
        client.abort()


def client_request(path: str) -> bytes:
    """Return a request for a WebSocket."""
    from raw import request

    return request(path=path)


async def look(connections: int, **options: Any) -> str:
    """Open and end so many connections, and return what was found.

    Raises:
        AssertionError: something was kept.
    """
    topics = wsfast.Topics()
    async with topics:
        ws = wsfast.uvicorn.configure(topics=topics)
        async with running(application(topics), **{**options, "ws": ws}) as run:
            numbers = iter(range(connections + connections // 10))

            async def work(until_number: int) -> None:
                for number in numbers:
                    await one(run, number)
                    if number >= until_number:
                        return

            async def part(last: int) -> tuple[int, int, int]:
                await asyncio.gather(*(work(last) for _ in range(AT_ONCE)))
                await until(lambda: not run.state.connections and not run.state.tasks)
                await until(lambda: len(asyncio.all_tasks()) <= tasks)
                gc.collect()
                return tracemalloc.get_traced_memory()[0], len(os.listdir("/proc/self/fd")), len(gc.get_objects())

            tasks = len(asyncio.all_tasks())
            tracemalloc.start()
            try:
                before = await part(connections // 10)
                after = await part(connections * 2)
            finally:
                tracemalloc.stop()
            grown, files, objects = (b - a for a, b in zip(before, after, strict=True))
            found = f"{connections} connections: {grown:+} bytes, {files:+} descriptors, {objects:+} objects"
            assert grown < SLACK + connections * 8, found
            assert files <= 0, found
            assert objects < 500, found
            assert topics.counters["subscriptions"] == 0
    return found


def main() -> None:
    """Run it on a loop, both ways to tell uvicorn."""
    import logging

    parser = argparse.ArgumentParser(prog="python -m tests.asgi_leaks", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--connections", type=int, default=10_000, help="default: 10,000")
    parser.add_argument("--uvloop", action="store_true", help="run on uvloop instead of asyncio's loop")
    args = parser.parse_args()
    logging.disable(logging.ERROR)
    factory = None
    if args.uvloop:
        import uvloop

        factory = uvloop.new_event_loop
    for name, way in WAYS.items():
        with asyncio.Runner(loop_factory=factory) as runner:
            print(f"--{name}: {runner.run(look(args.connections, **way))}", flush=True)


if __name__ == "__main__":
    main()
