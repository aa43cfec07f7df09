"""The codec beside its peers: masking, decoding and encoding, 100 operations in each timed call.

Frames up to 16 KiB are decoded from one batch of 100; longer ones come one by one, as from a socket. A decoder
is a server's: its frames are masked. Peers take part as far as they can be reached without a socket: websockets'
protocol and aiohttp's reader, of which the first joins no fragments and does not decode text (`str` is called
on it here). picows' parser is only there behind a transport.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from .conftest import COUNT

KEY = b"\x12\x34\x56\x78"
TEXT, BINARY = 1, 2
SIZES = {
    "16 B": 16,
    "64 B": 64,
    "256 B": 256,
    "4 KiB": 4096,
    "16 KiB": 16384,
    "64 KiB": 65536,
    "1 MiB": 1 << 20,
}
KINDS = {
    "binary": bytes(range(1, 256)),
    "ASCII": b"The quick brown fox jumps over the lazy dog. ",
    "non-ASCII": "Zwölf Boxkämpfer jagen Viktor, быстро, 素早い茶色の狐. ".encode(),
}
CODECS = {"cython": "wsfast._codec", "python": "wsfast._codec_py"}


def payload(kind: str, size: int) -> bytes:
    """Make a payload of a size; text ends with a whole character."""
    unit = KINDS[kind]
    data = (unit * (size // len(unit) + 1))[:size]
    if kind != "binary":
        whole = data.decode("utf-8", "ignore").encode()
        data = whole + b"." * (size - len(whole))
    return data


def message(kind: str, size: int) -> str | bytes:
    data = payload(kind, size)
    return data if kind == "binary" else data.decode()


def masked_frame(kind: str, size: int) -> bytes:
    from wsfast._codec_py import encode_frame

    return encode_frame(BINARY if kind == "binary" else TEXT, payload(kind, size), mask=KEY)


def peer(name: str) -> Any:
    """Import a peer's module, or skip, visibly."""
    return pytest.importorskip(name, reason=f"the peer {name.split('.')[0]} is not installed, or not its C part")


# --- Masking ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*CODECS, "websockets", "aiohttp"])
@pytest.mark.parametrize("size", SIZES)
def test_mask(measure: Callable[..., None], size: str, name: str) -> None:
    """Mask in place; websockets' function cannot, it returns new bytes."""
    data = bytearray(payload("binary", SIZES[size]))
    call: Callable[[], object]
    if name in CODECS:
        apply_mask = importlib.import_module(CODECS[name]).apply_mask

        def call() -> None:
            for _ in range(COUNT):
                apply_mask(data, KEY, data)

    elif name == "aiohttp":
        mask = peer("aiohttp._websocket.mask")._websocket_mask_cython

        def call() -> None:
            for _ in range(COUNT):
                mask(KEY, data)

    else:
        mask = peer("websockets.speedups").apply_mask
        source = bytes(data)

        def call() -> None:
            for _ in range(COUNT):
                mask(source, KEY)

    measure(f"mask {size}", name, SIZES[size], call)


# --- Decoding ---------------------------------------------------------------------------------------------------------


def wsfast_decoder(name: str) -> Callable[[bytes], list[Any]]:
    feed: Callable[[bytes], list[Any]] = importlib.import_module(CODECS[name]).Decoder(masked=True, max_size=None).feed
    return feed


def websockets_decoder() -> Callable[[bytes], list[Any]]:
    server, protocol = peer("websockets.server"), peer("websockets.protocol")
    connection = server.ServerProtocol(state=protocol.OPEN, max_size=None)

    def feed(data: bytes) -> list[Any]:
        connection.receive_data(data)
        return [str(f.data, "utf-8") if f.opcode == TEXT else f.data for f in connection.events_received()]

    return feed


def aiohttp_decoder() -> Callable[[bytes], list[Any]]:
    reader = peer("aiohttp._websocket.reader_c")
    protocol = SimpleNamespace(
        _reading_paused=False, pause_reading=lambda *_: None, resume_reading=lambda *_: None, connected=True
    )
    queue = reader.WebSocketDataQueue(protocol, 1 << 30, loop=SimpleNamespace())
    parse = reader.WebSocketReader(queue, 1 << 30, False, True).feed_data

    def feed(data: bytes) -> list[Any]:
        failed, _ = parse(data)
        assert not failed
        messages = [entry[0].data for entry in queue._buffer]
        queue._buffer.clear()
        return messages

    return feed


@pytest.mark.parametrize("name", [*CODECS, "websockets", "aiohttp"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_decode(measure: Callable[..., None], size: str, kind: str, name: str) -> None:
    feed = (
        wsfast_decoder(name) if name in CODECS else websockets_decoder() if name == "websockets" else aiohttp_decoder()
    )
    frame = masked_frame(kind, SIZES[size])
    assert feed(frame * 3) == [message(kind, SIZES[size])] * 3
    call: Callable[[], object]
    if SIZES[size] <= 16384:
        batch = frame * COUNT

        def call() -> None:
            feed(batch)

    else:

        def call() -> None:
            for _ in range(COUNT):
                feed(frame)

    measure(f"decode {size} {kind}", name, SIZES[size], call)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("size", ["64 KiB", "1 MiB"])
def test_receive_in_place(measure: Callable[..., None], size: str, name: str) -> None:
    """Decode from reads of 64 KiB into the memory that the decoder lends; the copies of the reads are timed too."""
    frame = memoryview(masked_frame("binary", SIZES[size]))
    decoder = importlib.import_module(CODECS[name]).Decoder(masked=True, max_size=None)
    get_buffer, buffer_updated = decoder.get_buffer, decoder.buffer_updated

    def call() -> None:
        for _ in range(COUNT):
            at = 0
            while at < len(frame):
                lent = get_buffer()
                count = min(len(lent), 65536, len(frame) - at)
                lent[:count] = frame[at : at + count]
                buffer_updated(count)
                at += count

    measure(f"receive {size} binary", name, SIZES[size], call)


@pytest.mark.parametrize("name", CODECS)
def test_decode_fragments(measure: Callable[..., None], name: str) -> None:
    """A message of 100 fragments of 64 bytes: figures are for each fragment."""
    from wsfast._codec_py import encode_frame

    feed = wsfast_decoder(name)
    part = bytes(64)
    stream = encode_frame(BINARY, part, fin=False, mask=KEY)
    stream += encode_frame(0, part, fin=False, mask=KEY) * (COUNT - 2) + encode_frame(0, part, mask=KEY)
    assert feed(stream) == [part * COUNT]
    measure("decode 64 B fragments", name, 64, lambda: feed(stream))


@pytest.mark.parametrize("name", CODECS)
def test_decode_pings(measure: Callable[..., None], name: str) -> None:
    from wsfast._codec_py import encode_frame

    feed = wsfast_decoder(name)
    stream = encode_frame(9, b"keepalive", mask=KEY) * COUNT
    measure("decode pings", name, 9, lambda: feed(stream))


# --- Encoding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*CODECS, "websockets"])
@pytest.mark.parametrize("side", ["server", "client"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_encode(measure: Callable[..., None], size: str, kind: str, side: str, name: str) -> None:
    """Encode into one buffer that is then taken (each frame by itself from 64 KiB on); a client's frames are masked."""
    what = message(kind, SIZES[size])
    alone = SIZES[size] > 16384
    call: Callable[[], object]
    if name in CODECS:
        encoder = importlib.import_module(CODECS[name]).Encoder(mask=side == "client")
        encode, take = encoder.message, encoder.take

        def call() -> None:
            for _ in range(COUNT):
                encode(what)
                if alone:
                    take()
            take()

    else:
        frames = peer("websockets.frames")
        opcode = frames.Opcode.BINARY if kind == "binary" else frames.Opcode.TEXT
        mask = side == "client"

        def call() -> None:
            for _ in range(COUNT):
                data = what if isinstance(what, bytes) else what.encode()
                frames.Frame(opcode, data).serialize(mask=mask)

    measure(f"encode {size} {kind}, {side}", name, SIZES[size], call)
