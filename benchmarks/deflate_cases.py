"""What the benchmarks of permessage-deflate compare: payloads, and each library's compressor and inflater.

The incoming messages are the same for all: zlib's level 6 in a window of 12 bits, as a browser would send them after
our answer. `Peer.exchange` does with one message what an echo server does: inflate it, compress the reply.
"""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Callable

from aiohttp._websocket.models import WS_DEFLATE_TRAILING
from aiohttp.compression_utils import ZLibBackend, ZLibCompressor, ZLibDecompressor
from websockets.extensions.permessage_deflate import PerMessageDeflate as WebsocketsDeflate
from websockets.frames import Frame, Opcode

from wsfast.deflate.negotiate import EXTENSION, Deflate, accept

__all__ = ["PAYLOADS", "PEERS", "Peer", "incoming"]

MAX_SIZE = 1 << 20


def json_messages(count: int, items: int = 12) -> list[bytes]:
    """Make messages of about 1 KiB, unlike each other in their values only."""
    rng = random.Random(1)
    return [
        json.dumps(
            {
                "type": "trade",
                "id": i,
                "symbol": rng.choice(["BTC-USD", "ETH-USD", "SOL-EUR"]),
                "items": [
                    {
                        "price": round(rng.uniform(10, 5e4), 2),
                        "size": round(rng.random(), 6),
                        "side": rng.choice(["buy", "sell"]),
                        "ts": 1700000000000 + rng.randrange(10**9),
                    }
                    for _ in range(items)
                ],
                "note": f"x{rng.randrange(10**6)}",
            }
        ).encode()
        for i in range(count)
    ]


def binary_messages(count: int) -> list[bytes]:
    """Make messages of 1 KiB of records with small integers and a few floats."""
    rng = random.Random(2)
    return [
        b"".join(struct.pack("<IHHf", i * 64 + n, rng.randrange(500), 0, rng.randrange(1000) / 8) for n in range(85))
        for i in range(count)
    ]


def random_messages(count: int) -> list[bytes]:
    """Make messages of 1 KiB that can not be compressed."""
    rng = random.Random(3)
    return [rng.randbytes(1024) for _ in range(count)]


PAYLOADS: dict[str, Callable[[int], list[bytes]]] = {
    "json": json_messages,
    "binary": binary_messages,
    "random": random_messages,
}


def incoming(messages: list[bytes], *, takeover: bool) -> list[bytes]:
    """Compress messages as a browser does."""
    flush = zlib.Z_SYNC_FLUSH if takeover else zlib.Z_FULL_FLUSH
    compressor = zlib.compressobj(6, wbits=-12)
    return [(compressor.compress(m) + compressor.flush(flush))[:-4] for m in messages]


class Peer:
    """One connection's two directions, by one library, as a server sets them up by default."""

    def __init__(self, *, takeover: bool) -> None:
        self.sent = 0

    def exchange(self, packed: bytes) -> None:
        """Inflate a message and compress the same as the reply."""
        raise NotImplementedError


class Wsfast(Peer):
    """Ours, by the best of the libraries that are installed."""

    backend: str | None = None

    def __init__(self, *, takeover: bool, **options: object) -> None:
        super().__init__(takeover=takeover)
        deflate = Deflate(
            server_no_context_takeover=not takeover,
            client_no_context_takeover=not takeover,
            backend=self.backend,
            **options,  # type: ignore[arg-type]
        )
        chosen = accept(deflate, [(EXTENSION, [("client_max_window_bits", None)])])
        assert chosen is not None
        self.deflate = chosen[1]

    def exchange(self, packed: bytes) -> None:
        deflate = self.deflate
        data = deflate.decompress(packed, True, MAX_SIZE)
        self.sent += len(deflate.compress(data) if deflate.should_compress(len(data)) else data)


class WsfastZlib(Wsfast):
    """Ours, by the standard zlib only."""

    backend = "zlib"


class WsfastZlibNg(Wsfast):
    """Ours, by zlib-ng only."""

    backend = "zlib_ng"


class Websockets(Peer):
    """The extension object of websockets, with the parameters of its default."""

    def __init__(self, *, takeover: bool) -> None:
        super().__init__(takeover=takeover)
        self.deflate = WebsocketsDeflate(not takeover, not takeover, 12, 12, {"memLevel": 5})

    def exchange(self, packed: bytes) -> None:
        frame = self.deflate.decode(Frame(Opcode.BINARY, packed, rsv1=True), max_size=MAX_SIZE)
        self.sent += len(self.deflate.encode(Frame(Opcode.BINARY, frame.data)).data)


class Aiohttp(Peer):
    """The two objects of aiohttp, called as its reader and its writer call them, without their other work."""

    def __init__(self, *, takeover: bool) -> None:
        super().__init__(takeover=takeover)
        self.flush = ZLibBackend.Z_SYNC_FLUSH if takeover else ZLibBackend.Z_FULL_FLUSH
        self.compressor: ZLibCompressor | None = None
        self.decompressor: ZLibDecompressor | None = None

    def exchange(self, packed: bytes) -> None:
        if self.decompressor is None:
            self.decompressor = ZLibDecompressor(suppress_deflate_header=True)
            self.compressor = ZLibCompressor(level=ZLibBackend.Z_BEST_SPEED, wbits=-15, max_sync_chunk_size=16384)
        data = self.decompressor.decompress_sync(packed + WS_DEFLATE_TRAILING, MAX_SIZE)
        assert self.compressor is not None
        out = (self.compressor.compress_sync(data) + self.compressor.flush(self.flush)).removesuffix(
            WS_DEFLATE_TRAILING
        )
        self.sent += len(out)


PEERS: dict[str, type[Peer]] = {
    "wsfast": Wsfast,
    "wsfast-zlib": WsfastZlib,
    "wsfast-zlib_ng": WsfastZlibNg,
    "websockets": Websockets,
    "aiohttp": Aiohttp,
}
