"""The misbehaving peers: they break the protocol, flood, speak something else, or drop at any stage."""

import asyncio
import random
import struct

from .peer import BINARY, CLOSE, PING, TEXT, Peer, World, frame
from .server import CLOSE_TIMEOUT, MARGIN, OPEN_TIMEOUT

__all__ = ["misbehaving"]


def _offences() -> dict[str, tuple[bytes, tuple[int, ...]]]:
    """List what breaks the protocol: name, bytes after the handshake, the close codes that answer them."""
    long_text = "é" * 40
    return {
        "unmasked": (frame(TEXT, b"bare", masked=False), (1002,)),
        "rsv1": (frame(TEXT, b"bit", rsv=4), (1002,)),
        "rsv3": (frame(BINARY, b"bit", rsv=1), (1002,)),
        "opcode 3": (frame(3, b"?"), (1002,)),
        "opcode 11": (frame(11, b"?"), (1002,)),
        "long ping": (frame(PING, bytes(126)), (1002,)),
        "fragmented ping": (frame(PING, b"p", fin=False), (1002,)),
        "continuation of nothing": (frame(0, b"x"), (1002,)),
        "text in a text": (frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), (1002,)),
        "invalid UTF-8": (frame(TEXT, b"ok \xff"), (1007,)),
        "UTF-8 cut off": (frame(TEXT, long_text.encode()[:-1]), (1007,)),
        "surrogate": (frame(TEXT, b"\xed\xa0\x80"), (1007,)),
        "close code 999": (frame(CLOSE, struct.pack("!H", 999)), (1002,)),
        "close code 1006": (frame(CLOSE, struct.pack("!H", 1006)), (1002,)),
        "close of one byte": (frame(CLOSE, b"\x03"), (1002,)),
        "close reason no UTF-8": (frame(CLOSE, struct.pack("!H", 1000) + b"\xff"), (1007, 1002)),
        "too long by its header": (struct.pack("!BBQ", 0x82, 0xFF, 1 << 40) + bytes(4), (1009, 1002)),
        "length above 2**63": (struct.pack("!BBQ", 0x82, 0xFF, 1 << 63) + bytes(4), (1002, 1009)),
        "too long in fragments": (
            b"".join(frame(BINARY if i == 0 else 0, bytes(1 << 18), fin=False) for i in range(5)),
            (1009,),
        ),
    }


async def _offend(world: World, peer: Peer) -> None:
    name, (data, codes) = random.choice(list(_offences().items()))
    if not await peer.upgrade():
        return
    if random.random() < 0.3:
        for i in range(len(data)):  # the same in pieces
            peer.write(data[i : i + 1])
            if i > 20:
                peer.write(data[i + 1 :])
                break
            await asyncio.sleep(0)
    else:
        peer.write(data)
    if not await peer.gone(CLOSE_TIMEOUT + MARGIN):
        world.fail(f"misbehaving, {name}: not closed within {CLOSE_TIMEOUT + MARGIN:g} s")
    elif peer.close_code is None:
        world.events["misbehaving: dropped without a close frame"] += 1
    elif peer.close_code not in codes:
        world.fail(f"misbehaving, {name}: closed with {peer.close_code}, not {' or '.join(map(str, codes))}")
    else:
        world.events[f"misbehaving: closed with {peer.close_code}"] += 1


async def _no_websocket(world: World, peer: Peer) -> None:
    """Speak something else than WebSocket: it must be refused and the connection ended."""
    right = world.request()
    data = random.choice(
        (
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + random.randbytes(200),
            right.replace(b"Version: 13", b"Version: 12"),
            right.replace(b"HTTP/1.1", b"HTTP/1.0"),
            right.replace(b"\r\n\r\n", b"\r\nX: " + b"y" * 20000 + b"\r\n\r\n"),
            random.randbytes(100) + b"\r\n\r\n",
        )
    )
    peer.write(data)
    await asyncio.wait([peer.upgraded], timeout=OPEN_TIMEOUT + MARGIN)
    if peer.upgraded.done() and peer.upgraded.result():
        world.fail("misbehaving: 101 in answer to a wrong request")
    elif not await peer.gone(OPEN_TIMEOUT + MARGIN):
        world.fail("misbehaving: not dropped after a wrong request")
    else:
        world.events["misbehaving: refused"] += 1


async def _drop(world: World, peer: Peer) -> None:
    """Drop at any stage, with a reset or without."""
    stage = random.randrange(4)
    if stage == 1:
        peer.write(world.request()[: random.randint(1, 150)])
    elif stage >= 2:
        if stage == 2:
            peer.write(world.request())
        elif await peer.upgrade():
            for _ in range(20):
                peer.write(frame(BINARY, bytes(1000)))
            peer.write(frame(BINARY, bytes(5000))[: random.randint(1, 5000)])
    await asyncio.sleep(random.choice((0, 0, 0.01, 0.1)))
    if random.random() < 0.5:
        peer.reset()
    else:
        peer.abort()
    world.events["misbehaving: dropped the connection"] += 1


async def _flood_messages(world: World, peer: Peer) -> None:
    """Send thousands of one-byte messages in one go; each must come back."""
    if not await peer.upgrade():
        return
    peer.expected = 5000
    peer.write(frame(BINARY, b"x") * 5000)
    if not await peer.flood_back(30):
        world.fail(f"misbehaving: of 5,000 tiny messages {peer.received} came back (close code {peer.close_code})")
    world.events["misbehaving: floods of messages"] += 1


async def _flood_pings(world: World, peer: Peer) -> None:
    """Send thousands of pings, read or not."""
    if not await peer.upgrade() or peer.transport is None:
        return
    if random.random() < 0.5:
        peer.transport.pause_reading()
    for _ in range(20):
        peer.write(frame(PING, random.randbytes(100)) * 250)
        await asyncio.sleep(0)
    await asyncio.sleep(0.5)
    world.events["misbehaving: floods of pings"] += 1


async def _flood_fragments(world: World, peer: Peer) -> None:
    """Send thousands of empty fragments of one message."""
    if await peer.upgrade():
        peer.write(frame(BINARY, b"", fin=False) + frame(0, b"", fin=False) * 5000)
        await asyncio.sleep(0.5)
        world.events["misbehaving: floods of fragments"] += 1


async def misbehaving(world: World) -> None:
    """Misbehave in one way after the other."""
    acts = (_offend, _offend, _offend, _no_websocket, _drop, _drop, _flood_messages, _flood_pings, _flood_fragments)
    # The floods are few, or they would be all that the server does.
    weights = (6, 6, 6, 4, 4, 4, 0.3, 0.3, 0.3)
    while not world.stopping.is_set():
        (act,) = random.choices(acts, weights)
        try:
            peer = await world.dial("misbehaving")
        except OSError as exc:
            world.fail(f"misbehaving: could not connect: {exc}")
            await world.pause(1)
            continue
        world.open["misbehaving"] += 1
        try:
            await act(world, peer)
        finally:
            world.open["misbehaving"] -= 1
            peer.abort()
        await world.pause(random.uniform(1, 5))
