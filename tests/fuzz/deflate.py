"""Fuzzing of permessage-deflate: inflating what a peer could send, and the way there and back.

Inflating arbitrary bytes must return at most what the limit allows or raise a `PeerError`, hold no matter how the bytes
were cut, and agree between the DEFLATE libraries that are installed. What is compressed must come back.
"""

from __future__ import annotations

import zlib
from typing import Any

from wsfast.deflate import PerMessageDeflate
from wsfast.deflate.backends import BACKENDS
from wsfast.deflate.negotiate import Deflate, accept, confirm, offer
from wsfast.exceptions import PayloadTooBig, PeerError

from .source import Cuts, Source

LIMITS = (-1, 0, 1, 10, 100, 1000, 65536, 1 << 20)
TAIL = b"\x00\x00\xff\xff"


def pair(server: Deflate, client: Deflate) -> tuple[PerMessageDeflate, PerMessageDeflate]:
    """Negotiate between a server and a client, and return what each of them got."""
    agreed = accept(server, offer(client))
    if agreed is None:
        raise AssertionError(f"{server!r} declined {offer(client)!r}")
    confirmed = confirm(client, [agreed[0]])
    if confirmed is None:
        raise AssertionError("confirmed nothing")
    return agreed[1], confirmed


def inflate(extension: PerMessageDeflate, pieces: list[bytes], limit: int) -> bytes | None:
    """Inflate a message that comes in pieces; None if it is refused."""
    out = bytearray()
    for number, piece in enumerate(pieces):
        left = limit if limit < 0 else limit - len(out)
        try:
            out += extension.decompress(piece, number == len(pieces) - 1, left)
        except PayloadTooBig:
            if limit < 0:
                raise AssertionError("too big without a limit") from None
            return None
        except PeerError:
            return None
        if 0 <= limit < len(out):
            raise AssertionError(f"{len(out)} bytes, the limit is {limit}")
    return bytes(out)


def plainly(data: bytes) -> bytes | None:
    """Inflate a message by zlib alone; None if it is no single stream that ends where a block ends."""
    stream = zlib.decompressobj(-15)
    try:
        out = stream.decompress(data, 1 << 22)
        # The tail is an empty block, unless it comes within one: then it is taken for codes.
        if stream.unconsumed_tail or stream.decompress(TAIL) or stream.eof:
            return None
        out += stream.decompress(b"\x01\x00\x00\xff\xff")
    except zlib.error:
        return None
    return out if stream.eof else None


def run_inflate(source: Source) -> None:
    """Inflate arbitrary bytes."""
    limit = source.choice(LIMITS)
    cuts = Cuts(source.byte())
    repeat, forgets = source.choice([(times, forgets) for times in (1, 1, 1, 2, 30, 1000) for forgets in (False, True)])
    data: bytes = source.rest() * repeat
    if len(data) > 200_000:
        return
    results: dict[str, bytes | None] = {}
    for name in BACKENDS:
        config = Deflate(
            backend=name, server_max_window_bits=15, client_max_window_bits=15, client_no_context_takeover=forgets
        )
        extension, _ = pair(config, config)
        results[name] = inflate(extension, [data], limit)
        extension, _ = pair(config, config)
        pieces = [*cuts.split(data), b""] if cuts.next() & 1 else cuts.split(data) or [b""]
        cut = inflate(extension, pieces, limit)
        if cut != results[name]:
            raise AssertionError(f"{name}: whole {results[name]!r:.500}, in pieces {cut!r:.500}")
    # Where the context is kept, nothing tells that a message ends within a block, and the libraries notice bad data
    # behind it at different times.
    if forgets and len(set(results.values())) > 1:
        raise AssertionError(f"{results!r:.2000}")
    reference = plainly(data) if forgets else None
    if reference is not None and 0 < len(data) < 1000 and not 0 <= limit < len(reference):
        for name, result in results.items():
            if result != reference:
                raise AssertionError(f"{name} {result!r:.500}, zlib {reference!r:.500}")


def run_round_trip(source: Source) -> None:
    """Send messages both ways, compressed as the input says, and compare what comes out."""
    flags = source.byte()
    server = Deflate(
        backend=source.choice([None, *BACKENDS]),
        server_max_window_bits=source.choice((None, 8, 9, 10, 12, 15)),
        client_max_window_bits=source.choice((None, 8, 9, 10, 12, 15)),
        server_no_context_takeover=bool(flags & 1),
        client_no_context_takeover=bool(flags & 2),
        level=1 + source.number(9),
        mem_level=1 + source.number(9),
        threshold=0,
    )
    client = Deflate(
        backend=source.choice([None, *BACKENDS]),
        server_max_window_bits=source.choice((None, 8, 9, 10, 12, 15)),
        client_max_window_bits=source.choice((None, 9, 10, 12, 15)),
        server_no_context_takeover=bool(flags & 4),
        client_no_context_takeover=bool(flags & 8),
        threshold=0,
    )
    ends: Any = pair(server, client)
    now = 0.0
    for _ in range(20):
        if not source:
            break
        kind = source.byte()
        sender, receiver = ends if kind & 1 else reversed(ends)
        message = source.take(source.byte()) * source.choice((1, 1, 2, 50, 300))
        if kind & 2:
            pieces = Cuts(source.byte()).split(message)[:20] or [b""]
            message = b"".join(pieces)
            if kind & 16:
                pieces.append(b"")
            wire = [sender.compress_fragment(piece, i == len(pieces) - 1) for i, piece in enumerate(pieces)]
        elif kind & 4:
            wire = [sender.shared_key.compress(message)]
            sender.note_shared()
        else:
            wire = [sender.compress(message)]
        if kind & 8:
            wire = [part for piece in wire for part in Cuts(kind).split(piece)] + [b""]
        came = inflate(receiver, wire, len(message))
        if came != message:
            raise AssertionError(f"sent {message!r:.500}, came {came!r:.500}")
        if kind & 32:
            now += 100
            sender.free_idle(now)
            now += 100
            sender.free_idle(now)
    for end in ends:
        end.close()
        if end.memory:
            raise AssertionError("memory is held after close()")


def run(data: bytes) -> None:
    """Check one input."""
    source = Source(data)
    if source.byte() & 1:
        run_round_trip(source)
    else:
        run_inflate(source)
