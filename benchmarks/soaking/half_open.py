"""The half-open peers: they stop in mid-handshake or mid-frame, or never read. The server must drop each in time."""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any

from .peer import BINARY, TEXT, Peer, World, frame
from .server import CLOSE_TIMEOUT, MARGIN, OPEN_TIMEOUT, PING_INTERVAL, PING_TIMEOUT

__all__ = ["half_open"]


async def _nothing(world: World, peer: Peer) -> float:
    return OPEN_TIMEOUT


async def _half_request(world: World, peer: Peer) -> float:
    peer.write(world.request()[:-10])
    return OPEN_TIMEOUT


async def _drip(world: World, peer: Peer) -> float:
    # A byte now and then must not renew the deadline.
    begin = time.monotonic()
    for byte in world.request()[:-1]:
        if peer.closed.done() or time.monotonic() - begin > OPEN_TIMEOUT + MARGIN:
            break
        peer.write(bytes((byte,)))
        await asyncio.sleep(0.25)
    return 0.0


async def _half_header(world: World, peer: Peer) -> float:
    if await peer.upgrade():
        peer.answering = False
        peer.write(frame(BINARY, bytes(70000))[:5])
    return PING_INTERVAL + PING_TIMEOUT + CLOSE_TIMEOUT


async def _half_payload(world: World, peer: Peer) -> float:
    if await peer.upgrade():
        peer.answering = False
        peer.write(frame(BINARY, bytes(70000))[: random.randint(20, 60000)])
    return PING_INTERVAL + PING_TIMEOUT + CLOSE_TIMEOUT


async def _silent(world: World, peer: Peer) -> float:
    if await peer.upgrade():
        peer.answering = False
    return PING_INTERVAL + PING_TIMEOUT + CLOSE_TIMEOUT


async def _never_reads(world: World, peer: Peer) -> float:
    if await peer.upgrade() and peer.transport is not None:
        peer.transport.pause_reading()
        for _ in range(64):
            peer.write(frame(BINARY, bytes(65536)))
            await asyncio.sleep(0)
        await asyncio.sleep(PING_INTERVAL + PING_TIMEOUT + CLOSE_TIMEOUT)
        if not peer.transport.is_closing():
            peer.transport.resume_reading()  # otherwise the reset that ends it is never seen
            peer.answering = False
    return PING_INTERVAL + PING_TIMEOUT + CLOSE_TIMEOUT


async def _half_closed(world: World, peer: Peer) -> float:
    if await peer.upgrade() and peer.transport is not None:
        peer.write(frame(TEXT, b"unfinished")[:9])
        peer.transport.write_eof()
    return CLOSE_TIMEOUT


HALF_OPEN: tuple[Callable[[World, Peer], Coroutine[Any, Any, float]], ...] = (
    _nothing,
    _half_request,
    _drip,
    _half_header,
    _half_payload,
    _silent,
    _never_reads,
    _half_closed,
)


async def half_open(world: World) -> None:
    """Be half-open in one way after the other."""
    while not world.stopping.is_set():
        act = random.choice(HALF_OPEN)
        name = act.__name__.strip("_")
        try:
            peer = await world.dial("half-open")
        except OSError as exc:
            world.fail(f"half-open: could not connect: {exc}")
            await world.pause(1)
            continue
        world.open["half-open"] += 1
        try:
            limit = await act(world, peer)
            if await peer.gone(limit + MARGIN):
                world.events[f"half-open, {name}: dropped by the server"] += 1
            else:
                world.fail(f"half-open, {name}: not dropped within {limit + MARGIN:g} s")
        finally:
            world.open["half-open"] -= 1
            peer.abort()
        await world.pause(random.uniform(0, 1))
