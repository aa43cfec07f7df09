"""The well-behaved peers: what they send must come back, whole and in order."""

import asyncio
import random
import struct
import time
from collections.abc import Awaitable, Callable

from .peer import BINARY, CLOSE, TEXT, Peer, World, frame
from .server import CLOSE_TIMEOUT, MARGIN

__all__ = ["chatty", "idle", "slow", "take_leave"]


def _message() -> tuple[int, bytes, int]:
    """Make up a message: mostly small, now and then large, text or binary, sometimes in fragments."""
    roll = random.random()
    size = (
        random.randint(0, 200)
        if roll < 0.9
        else random.randint(201, 5000)
        if roll < 0.99
        else random.randint(5001, 70000)
    )
    if random.random() < 0.5:
        payload = random.randbytes(size)
        opcode = BINARY
    else:
        alphabet = random.choice(("plain text ", "Größe déjà ", "Привет мир ", "日本語 🎉 "))
        payload = (alphabet * (size // len(alphabet) + 1))[: size // 2].encode()
        opcode = TEXT
    return opcode, payload, random.choice((1, 1, 1, 1, 2, 3, 7))


async def take_leave(world: World, peer: Peer) -> None:
    """End a well-behaved connection: every echo back, then the close handshake."""
    if not await peer.all_back(60):
        world.fail(f"{peer.kind}: echoes missing at the end")
        world.events[f"{peer.kind}: echoes missing"] += len(peer.pending)
    if peer.closed.done():
        world.fail(f"{peer.kind}: the connection was lost (close code {peer.close_code})")
        return
    peer.write(frame(CLOSE, struct.pack("!H", 1000)))
    if not await peer.gone(CLOSE_TIMEOUT + MARGIN):
        world.fail(f"{peer.kind}: no end of the connection after the close handshake")
    elif peer.close_code != 1000:
        world.fail(f"{peer.kind}: closed with 1000, answered with {peer.close_code}")
    peer.abort()


async def _well_behaved(
    world: World, kind: str, live: Callable[[World, Peer], Awaitable[None]], buffer: int | None
) -> None:
    while not world.stopping.is_set():
        peer = await world.join(kind, buffer)
        if peer is None:
            await world.pause(1)
            continue
        world.open[kind] += 1
        try:
            await live(world, peer)
            await take_leave(world, peer)
        finally:
            world.open[kind] -= 1
            peer.abort()


async def _live_chatty(world: World, peer: Peer) -> None:
    # A share of them comes and goes.
    stay = random.expovariate(1 / 30) if random.random() < 0.2 else float("inf")
    end = time.monotonic() + stay
    while time.monotonic() < end and await world.pause(random.expovariate(world.rate)):
        if peer.closed.done():
            return
        peer.send(*_message())
        if len(peer.pending) > 100:
            await peer.all_back(60)
        await peer.drain()


async def _live_idle(world: World, peer: Peer) -> None:
    while not peer.closed.done() and await world.pause(5):
        pass
    peer.send(TEXT, b"still here")


async def _live_slow(world: World, peer: Peer) -> None:
    while not world.stopping.is_set() and not peer.closed.done():
        if peer.transport is None:
            raise RuntimeError("a joined peer has a transport")
        peer.transport.pause_reading()
        for _ in range(150):
            peer.send(BINARY, random.randbytes(1024))
        while peer.pending and not peer.closed.done():
            # Read for a moment, rest for a while; at the end go on all the same, until all is back.
            await asyncio.sleep(0.2)
            if not peer.transport.is_closing():
                peer.transport.resume_reading()
            await asyncio.sleep(0.005)
            if not peer.transport.is_closing():
                peer.transport.pause_reading()
        if not peer.transport.is_closing():
            peer.transport.resume_reading()
        await world.pause(random.uniform(4, 10))


async def chatty(world: World) -> None:
    """Send messages of all kinds at random times."""
    await _well_behaved(world, "chatty", _live_chatty, None)


async def idle(world: World) -> None:
    """Answer pings only, and send one message at the end, to see that the connection is alive."""
    await _well_behaved(world, "idle", _live_idle, None)


async def slow(world: World) -> None:
    """Send bursts and read the echoes little by little, through a small receive buffer."""
    await _well_behaved(world, "slow", _live_slow, 8192)
