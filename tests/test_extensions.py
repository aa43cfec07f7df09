"""Extensions of a program's own: negotiation, the way of frames, what goes wrong, and each shell (RFC 6455, 9)."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import re
import threading
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from random import Random
from types import ModuleType
from typing import Any

import pytest
import trio
import websockets.extensions
import websockets.typing
from client_helpers import scripted, url_of
from shared import echo, port_of, serving, stream_echo
from trio_helpers import echo as trio_echo
from trio_helpers import in_trio

import wsfast
import wsfast.sync
import wsfast.testing
import wsfast.trio
from wsfast import Close, CloseCause, Connection, Opcode, Ping, Side, encode_frame
from wsfast.deflate import Deflate
from wsfast.exceptions import ExtensionError, NegotiationError, PayloadTooBig, PeerError, ProtocolError
from wsfast.extensions import (
    Chain,
    ClientExtensionFactory,
    Extension,
    ExtensionParameter,
    Frame,
    ServerExtensionFactory,
    accept,
    check_factories,
    confirm,
)

pytestmark = pytest.mark.anyio


class Turned(Extension):
    """Turns payloads around, those of control frames too, and marks frames by RSV2."""

    name = "x-turned"
    rsv2 = True

    def __init__(self) -> None:
        self.seen: list[Frame] = []

    def encode(self, frame: Frame) -> Frame:
        if bytes(frame.data).endswith(b"not to be sent"):
            raise ValueError("encode failed")
        return dataclasses.replace(frame, data=bytes(frame.data)[::-1], rsv2=True)

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        self.seen.append(frame)
        if not frame.rsv2:
            raise ProtocolError("expected RSV2")
        return dataclasses.replace(frame, data=bytes(frame.data)[::-1], rsv2=False)


class Stamped(Extension):
    """Puts a byte in front of messages, and marks them by RSV3."""

    name = "x-stamped"
    rsv3 = True

    def encode(self, frame: Frame) -> Frame:
        return dataclasses.replace(frame, data=b"#" + bytes(frame.data), rsv3=True)

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        assert bytes(frame.data[:1]) == b"#"
        return dataclasses.replace(frame, data=frame.data[1:], rsv3=False)


class Packed(Extension):
    """Compresses frames one by one, by RSV1: an extension whose frames may grow when they are decoded."""

    name = "x-packed"
    rsv1 = True

    def encode(self, frame: Frame) -> Frame:
        return dataclasses.replace(frame, data=zlib.compress(frame.data), rsv1=True)

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        inflater = zlib.decompressobj()
        data = inflater.decompress(frame.data, 0 if max_size is None else max_size + 1)
        if max_size is not None and len(data) > max_size:
            raise PayloadTooBig(f"more than {max_size} bytes")
        return dataclasses.replace(frame, data=data, rsv1=False)


class Offer(ClientExtensionFactory):
    def __init__(self, kind: type[Extension], *params: ExtensionParameter) -> None:
        self.kind, self.name, self.params = kind, kind.name, list(params)

    def get_request_params(self) -> Sequence[ExtensionParameter]:
        return self.params

    def process_response_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> Extension:
        if list(params) != self.params:
            raise NegotiationError(f"expected {self.params}")
        return self.kind()


class Take(ServerExtensionFactory):
    def __init__(self, kind: type[Extension], *params: ExtensionParameter) -> None:
        self.kind, self.name, self.params = kind, kind.name, list(params)

    def process_request_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> tuple[Sequence[ExtensionParameter], Extension]:
        if list(params) != self.params:
            raise NegotiationError(f"expected {self.params}")
        return params, self.kind()


def pair(*kinds: type[Extension], **options: Any) -> tuple[Connection, Connection]:
    """Make the two ends of a connection that agreed on extensions."""
    client = Connection(Side.CLIENT, compression=Chain([kind() for kind in kinds]), **options)
    server = Connection(Side.SERVER, compression=Chain([kind() for kind in kinds]), **options)
    return client, server


def frame(payload: bytes, rsv: int = 0, opcode: int = Opcode.BINARY, *, fin: bool = True, masked: bool = True) -> bytes:
    encoded = encode_frame(opcode, payload, fin=fin, mask=bytes(4) if masked else None)
    return bytes((encoded[0] | rsv,)) + encoded[1:]


@contextlib.contextmanager
def encoding_fails() -> Iterator[None]:
    with pytest.raises(ExtensionError) as caught:
        yield
    assert repr(caught.value.__cause__) == "ValueError('encode failed')"


# --- Negotiation ----------------------------------------------------------------------------------------


def test_a_server_chooses_in_the_clients_order() -> None:
    factories = [Take(Stamped), Take(Turned, ("way", "back"))]
    answers, extensions = accept(factories, [("x-turned", [("way", "back")]), ("other", []), ("x-stamped", [])])
    assert answers == [("x-turned", [("way", "back")]), ("x-stamped", [])]
    assert [type(extension) for extension in extensions] == [Turned, Stamped]


def test_what_a_server_declines() -> None:
    ways = [("x-turned", [("way", "forth")]), ("x-turned", [("way", "back")]), ("x-turned", [("way", "back")])]
    answers, _ = accept([Take(Turned, ("way", "back"))], ways)
    assert answers == [("x-turned", [("way", "back")])]  # the first that is acceptable, and it once
    answers, _ = accept([Take(Turned), Take(Packed)], [("x-packed", []), ("x-turned", [])], reserved=0x40)
    assert answers == [("x-turned", [])]  # RSV1 is taken

    class AlsoRsv2(Turned):
        name = "x-also"

    answers, _ = accept([Take(Turned), Take(AlsoRsv2)], [("x-also", []), ("x-turned", [])])
    assert answers == [("x-also", [])]


@pytest.mark.parametrize(
    ("chosen", "reserved", "text"),
    [
        ([("x-other", [])], 0, "server chose the extension 'x-other', which was not offered"),
        ([("x-turned", []), ("x-turned", [])], 0, "server chose the extension 'x-turned' twice"),
        ([("x-packed", [])], 0x40, "server chose the extension 'x-packed', which uses reserved bits of another one"),
        (
            [("x-turned", [("a", "\x1b")])],
            0,
            r"server chose the extension 'x-turned' with wrong parameters: 'expected \[\]'",
        ),
    ],
)
def test_what_a_client_refuses(chosen: Any, reserved: int, text: str) -> None:
    with pytest.raises(NegotiationError, match=f"^{text}$"):
        confirm([Offer(Turned), Offer(Packed)], chosen, reserved)


def test_a_client_may_offer_the_same_in_several_ways() -> None:
    factories = [Offer(Turned, ("way", "forth")), Offer(Turned, ("way", "back"))]
    (extension,) = confirm(factories, [("x-turned", [("way", "back")])])
    assert type(extension) is Turned


class Nameless:
    process_response_params = process_request_params = print


class Named(Nameless):
    def __init__(self, name: Any) -> None:
        self.name = name


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ("x-turned", TypeError, "extensions must be a list of factories or None, got str"),
        (3, TypeError, "extensions must be a list of factories or None, got int"),
        (["x"], TypeError, r"extensions must be factories that have process_response_params\(\), got str"),
        ([Offer], TypeError, r".*\(\), got the class Offer"),
        ([Take(Turned)], TypeError, r".*\(\), got Take"),
        ([Nameless()], TypeError, "the name of an extension must be str, got NoneType"),
        ([Named("a b")], ValueError, r"the name of an extension must be a token \(RFC 9110, 5.6.2\), got 'a b'"),
        ([Named("permessage-deflate")], ValueError, "permessage-deflate is not for extensions: use compression=.*"),
    ],
)
def test_options_that_are_wrong(given: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^{text}$"):
        wsfast.connect("ws://localhost/", extensions=given)
    with pytest.raises(error, match=f"^{text}$"):
        wsfast.sync.connect("ws://localhost/", extensions=given)
    if not isinstance(given, list) or not isinstance(given[0], (Take, type)):
        with pytest.raises(error, match=f"^{text}$".replace("process_response_params", "process_request_params")):
            wsfast.Server(extensions=given)


def test_none_are_as_good_as_no_option() -> None:
    assert check_factories(None, "process_request_params") == check_factories([], "process_request_params") == ()
    assert wsfast.Server(extensions=None).limits.extensions == ()


@pytest.mark.parametrize("factory", [Offer(Turned), Take(Turned)])
def test_a_factory_that_returns_no_extension(factory: Any) -> None:
    factory.kind = object
    with pytest.raises(
        TypeError, match=r"^(Offer|Take)\.process_\w+\(\) must return a wsfast\.extensions\.Extension, got object$"
    ):
        if isinstance(factory, Offer):
            confirm([factory], [("x-turned", [])])
        else:
            accept([factory], [("x-turned", [])])


# --- The way of frames ----------------------------------------------------------------------------------


def test_frames_pass_through_all_in_order_and_back() -> None:
    client, server = pair(Turned, Stamped)
    client.send_message("ab")
    client.send_ping(b"p")
    client.send_fragment(b"c", False)
    client.send_fragment(b"d", True)
    client.close(1000, "end")
    sent = client.encoder.take()
    assert sent[0] == 0x81 | 0x30
    key = sent[2:6]
    assert bytes(byte ^ key[i % 4] for i, byte in enumerate(sent[6:9])) == b"#ba"  # stamped last
    assert server.receive_data(sent) == ["ab", Ping(b"p"), b"cd", Close(1000, "end")]
    assert client.receive_data(server.encoder.take()) == [wsfast.Pong(b"p"), Close(1000, "end")]
    assert client.closed_ok


def test_bytes_may_be_cut_anywhere(codec: ModuleType) -> None:
    frames = [
        frame(b"cba", 0x20, Opcode.TEXT, fin=False),
        frame(b"p", 0x20, Opcode.PING),
        frame(b"fed", 0x20, Opcode.CONT),
        frame(bytes(range(256)) * 300, 0x20),
        frame(b"x" * 300, 0x20, Opcode.TEXT),
    ]
    data = b"".join(frames)
    for cut in (1, 2, 3, 5, 7, 64, 1000, 65536):
        chain = Chain([Turned()])
        chain.join(codec.Encoder(), is_client=False, max_size=100_000)
        decoder = codec.Decoder(masked=True, max_size=100_000, extensions=chain)
        events = []
        for at in range(0, len(data), cut):
            events += decoder.feed(data[at : at + cut])
        assert events == [Ping(b"p"), "abcdef", (bytes(range(256)) * 300)[::-1], "x" * 300]
        assert decoder.held == 0


def test_one_call_does_a_bounded_amount_of_work(codec: ModuleType) -> None:
    chain = Chain([Packed()])
    chain.join(codec.Encoder(), is_client=False, max_size=100_000)
    decoder = codec.Decoder(masked=True, max_size=100_000, max_events=10, extensions=chain)
    big, small = frame(zlib.compress(bytes(100_000)), 0x40), frame(zlib.compress(b""), 0x40)
    calls = [decoder.feed(5 * big + 25 * small + b"\xff\xff")]
    while decoder.pending:
        assert decoder.held
        calls.append(decoder.feed(b""))
    assert [len(events) for events in calls] == [1, 1, 1, 1, 1, 10, 10, 6]
    assert calls[0] == [bytes(100_000)]
    assert isinstance(calls[-1][-1], ProtocolError)  # behind all that came before it


def test_one_call_decodes_a_bounded_number_of_frames(codec: ModuleType) -> None:
    extension = Turned()
    chain = Chain([extension])
    chain.join(codec.Encoder(), is_client=False, max_size=None)
    decoder = codec.Decoder(masked=True, max_events=256, extensions=chain)
    counts = [len(decoder.feed(1000 * frame(b"x", 0x20)))]
    assert len(extension.seen) <= 256
    while decoder.pending:
        counts.append(len(decoder.feed(b"")))
    assert sum(counts) == len(extension.seen) == 1000


def test_pieces(codec: ModuleType) -> None:
    chain = Chain([Turned()])
    chain.join(codec.Encoder(), is_client=True, max_size=None)
    decoder = codec.Decoder(masked=False, max_size=None, extensions=chain)
    decoder.streaming = True
    first = frame(b"ab", 0x20, Opcode.TEXT, fin=False, masked=False)
    assert decoder.feed(first + frame(b"cd", 0x20, Opcode.CONT, masked=False)[:-1]) == [wsfast.Fragment("ba", False)]
    assert decoder.held == 3
    assert decoder.feed(b"d") == [wsfast.Fragment("dc", True)]


@pytest.mark.parametrize("kind", ["get_buffer", "feed"])
def test_what_is_lent_comes_through_too(codec: ModuleType, kind: str) -> None:
    chain = Chain([Turned()])
    chain.join(codec.Encoder(), is_client=False, max_size=None)
    decoder = codec.Decoder(masked=True, extensions=chain)
    data = frame(b"y" * 60_000 + b"z", 0x20)
    events: list[Any] = []
    while data and not events:
        if kind == "feed":
            events, data = decoder.feed(data[:5000]), data[5000:]
        else:
            memory = decoder.get_buffer()
            taken = min(len(memory), 5000, len(data))
            memory[:taken] = data[:taken]
            events, data = decoder.buffer_updated(taken), data[taken:]
    assert events == [b"z" + b"y" * 60_000]


def test_a_decoder_is_at_work_while_an_extension_decodes(codec: ModuleType) -> None:
    class Nosy(Turned):
        def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
            with pytest.raises(RuntimeError, match="the decoder is at work"):
                decoder.feed(b"")
            return super().decode(frame)

    chain = Chain([Nosy()])
    chain.join(codec.Encoder(), is_client=False, max_size=None)
    decoder = codec.Decoder(masked=True, extensions=chain)
    assert decoder.feed(frame(b"ab", 0x20)) == [b"ba"]


def test_frames_made_for_many_are_encoded_for_each() -> None:
    client, server = pair(Turned)
    frames = encode_frame(Opcode.TEXT, "a" * 200) + encode_frame(Opcode.BINARY, b"bc") + encode_frame(Opcode.TEXT, "")
    server.outgoing.encoded(frames)
    assert client.receive_data(server.encoder.take()) == ["a" * 200, b"bc", ""]


def test_with_permessage_deflate() -> None:
    from wsfast.deflate import accept as accept_deflate
    from wsfast.deflate import confirm as confirm_deflate
    from wsfast.deflate import offer

    settings = Deflate(threshold=0)
    agreed = accept_deflate(settings, offer(settings))
    assert agreed is not None
    client = Connection(Side.CLIENT, compression=Chain([Turned()], confirm_deflate(settings, [agreed[0]])))
    server = Connection(Side.SERVER, compression=Chain([Turned()], agreed[1]))
    text = "compressible " * 100
    client.send_message(text)
    with encoding_fails():
        client.outgoing.frame(Opcode.BINARY, b"not to be sent", rsv1=True)
    client.send_message(text)  # by a compressor that does not refer to what was not sent
    client.send_message(text, compress=False)
    sent = client.encoder.take()
    assert sent[0] == 0x81 | 0x60
    assert len(sent) < 1600
    assert server.receive_data(sent) == [text] * 3
    assert server.receive_data(frame(b"x", 0x60, Opcode.PING)) != []
    assert isinstance(server.failure, ProtocolError)


class Nothing(Extension):
    """Changes nothing."""

    name = "x-nothing"

    def encode(self, frame: Frame) -> Frame:
        return frame

    decode: Any = lambda self, frame, max_size: frame


def stream(random: Random, masked: bool) -> bytes:
    """Make frames, right ones and, half of the times, some that are not."""
    data = bytearray()
    for _ in range(random.randint(1, 12)):
        opcode = random.choice([0, 1, 1, 2, 2, 8, 9, 10])
        payload: bytes = random.choice(
            [b"", "\xe9".encode() * random.randint(0, 60), random.randbytes(300), bytes(65536)]
        )
        payload = b"\x03\xe8bye" if opcode == 8 else payload[:125] if opcode > 8 else payload
        mask = random.randbytes(4) if masked else None
        data += encode_frame(opcode, payload, fin=opcode >= 8 or random.random() < 0.7, mask=mask)
    if random.random() < 0.5:
        for _ in range(random.randint(1, 3)):
            data[random.randrange(min(len(data), 60))] = random.randrange(256)
    return bytes(data[: random.randint(0, len(data))] if random.random() < 0.3 else data)


def events_of(decoder: Any, data: bytes, cuts: list[int]) -> tuple[list[Any], bool]:
    """Decode; return what came, and whether it failed."""
    events: list[Any] = []
    for begin, end in pairwise([0, *cuts, len(data)]):
        events += decoder.feed(data[begin:end])
        while decoder.pending:
            events += decoder.feed(b"")
    failed = bool(events) and isinstance(events[-1], PeerError)
    return events[:-1] if failed else events, failed


def test_extensions_make_no_difference_to_the_rules(codec: ModuleType) -> None:
    for seed in range(300):
        random = Random(seed)
        masked, most = random.random() < 0.5, random.choice([None, 1, 3, 256])
        data = stream(random, masked)
        cuts = sorted(random.randint(0, len(data)) for _ in range(random.randint(0, 6)))
        chain = Chain([Nothing()])
        chain.join(codec.Encoder(), not masked, None)
        options = {"masked": masked, "max_size": None, "max_events": most}
        events, failed = events_of(codec.Decoder(**options), data, cuts)
        decoder = codec.Decoder(**options, extensions=chain)
        # Only that a frame is looked at once it is there in whole.
        same = events_of(decoder, data, cuts)
        assert same == (events, failed) or (failed and same == (events, False) and decoder.held), seed


# --- What goes wrong ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "code", "text"),
    [
        (frame(b"ab"), 1002, "expected RSV2"),
        (frame(b"ab", 0x30), 1002, "reserved bits 0x10 set in a frame with opcode 0x2"),
        (frame(b"ab", 0x60), 1002, "reserved bits 0x40 set in a frame with opcode 0x2"),
        (frame(b"ab", 0x20, 0x0), 1002, "continuation frame without a message to continue"),
        (b"\xa3\x80" + bytes(4), 1002, "reserved opcode 0x3"),
        (b"\xa9\xfe", 1002, "control frame with opcode 0x9 has more than 125 bytes"),
        (b"\x29\x80", 1002, "control frame with opcode 0x9 is fragmented"),
        (b"\xa2\x02ab", 1002, "frame is not masked"),
        (b"\xa2\xfe\x00\x01", 1002, "length 1 is not encoded in the shortest form"),
        (b"\xa2\xff\x80" + bytes(7), 1002, f"length {2**63} has its most significant bit set"),
        (frame(b"\xff", 0x20, Opcode.TEXT), 1007, "text message is not UTF-8 at byte 0"),
        (frame(b"a" * 101, 0x20), 1009, "message has 101 bytes or more, the limit is 100"),
        (b"\xa2\xfe\x08\x00", 1009, "message has 2048 bytes or more, the limit is 100"),
        (
            frame(b"x" * 60, 0x20, fin=False) + frame(b"x" * 41, 0x20, 0x0),
            1009,
            "message has 101 bytes or more, the limit is 100",
        ),
    ],
)
def test_what_a_peer_must_not_send(sent: bytes, code: int, text: str) -> None:
    _, server = pair(Turned, max_size=100)
    before = frame(b"ko", 0x20, Opcode.TEXT)
    first, failure = server.receive_data(before + sent)
    assert first == "ok"
    assert isinstance(failure, PeerError)
    assert (failure.code, str(failure)) == (code, text)
    assert server.receive_data(before) == []
    assert server.close_sent == Close(code, text)


def test_what_is_decoded_is_held_to_the_limits() -> None:
    _, server = pair(Packed, max_size=100)
    inside = frame(zlib.compress(bytes(60)), 0x40, fin=False)
    (failure,) = server.receive_data(inside + frame(zlib.compress(bytes(60)), 0x40, Opcode.CONT))
    assert isinstance(failure, PayloadTooBig)
    assert str(failure) == "more than 40 bytes"
    _, server = pair(Packed)
    (failure,) = server.receive_data(frame(zlib.compress(bytes(126)), 0x40, Opcode.PING))
    assert isinstance(failure, ProtocolError)
    assert str(failure) == "control frame with opcode 0x9 has more than 125 bytes"


def test_an_extension_may_add_to_what_max_size_allows() -> None:
    client, server = pair(Stamped, max_size=1000)
    client.send_message(bytes(1000))
    assert server.receive_data(client.encoder.take()) == [bytes(1000)]


class Broken(Extension):
    name = "x-broken"

    def encode(self, frame: Frame) -> Frame:
        if frame.opcode == Opcode.CLOSE or frame.data == b"bug":
            raise KeyError("a secret")
        if frame.data == b"none":
            return None  # type: ignore[return-value]
        if frame.data == b"bits":
            return dataclasses.replace(frame, rsv3=True)
        if frame.data == b"long":
            return dataclasses.replace(frame, data=bytes(126))
        return frame

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        return frame if frame.opcode == Opcode.CLOSE else self.encode(frame)


@pytest.mark.parametrize(
    ("data", "kind", "text"),
    [
        (b"bug", KeyError, "'a secret'"),
        (b"none", TypeError, r"Broken\.encode\(\) must return a Frame, got NoneType"),
        (b"bits", ValueError, r"encode\(\) set the reserved bits 0x10, which no extension says it uses"),
    ],
)
def test_what_encode_raises_is_for_the_caller(data: bytes, kind: type[Exception], text: str) -> None:
    client, server = pair(Broken)
    for send in (client.send_message, partial(client.send_fragment, fin=False)):
        with pytest.raises(ExtensionError, match="an extension failed to encode a frame") as caught:
            send(data)
        assert type(caught.value.__cause__) is kind
        assert re.fullmatch(text, str(caught.value.__cause__))
    assert not client.in_message
    client.send_message("next")
    assert server.receive_data(client.encoder.take()) == ["next"]


def test_control_frames_that_cannot_be_encoded(caplog: pytest.LogCaptureFixture) -> None:
    client, server = pair(Broken)
    client.send_ping(b"long")
    client.send_pong(b"bug")
    with pytest.raises(ValueError, match="a control frame's payload must have at most 125 bytes, got 126"):
        client.send_ping(bytes(126))
    assert client.encoder.take() == b""
    assert server.receive_data(frame(b"long", opcode=Opcode.TEXT)) == ["\0" * 126]
    client.close(1000, "secret")
    assert server.receive_data(client.encoder.take()) == [Close(1005)]
    told = "an extension failed on a control frame with opcode 0x"
    assert [record.getMessage() for record in caplog.records] == [told + digit for digit in "9a88"]
    assert {(record.name, record.levelname) for record in caplog.records} == {("wsfast.extensions", "ERROR")}


@pytest.mark.parametrize("data", [b"bug", b"none"])
def test_what_decode_must_not_raise(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    _, server = pair(Broken)
    first, failure = server.receive_data(frame(b"ok") + frame(data) + frame(b"later"))
    assert first == b"ok"
    assert isinstance(failure, ExtensionError)
    assert isinstance(failure.__cause__, KeyError if data == b"bug" else TypeError)
    assert server.cause is CloseCause.HANDLER_ERROR
    assert server.close_sent == Close(1011, "an extension failed")  # nothing of the cause is told
    (record, *_) = caplog.records
    assert record.getMessage() == "an extension failed on a frame that came"
    assert record.exc_info is not None


def test_what_ends_a_program_goes_through(codec: ModuleType) -> None:
    class Ends(Turned):
        def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
            raise KeyboardInterrupt

    chain = Chain([Ends()])
    chain.join(codec.Encoder(), is_client=False, max_size=None)
    decoder = codec.Decoder(masked=True, extensions=chain)
    with pytest.raises(KeyboardInterrupt):
        decoder.feed(frame(b"a", 0x20))
    assert decoder.feed(frame(b"a", 0x20)) == []


# --- The shells -----------------------------------------------------------------------------------------

MESSAGES: list[str | bytes] = ["", "hi", b"\x00\x01", "ä" * 3000, bytes(200_000)]
BOTH: dict[str, Any] = {
    "offer": [Offer(Stamped), Offer(Turned, ("way", "back"))],
    "take": [Take(Turned, ("way", "back")), Take(Stamped)],
}
HEADER = "x-stamped, x-turned; way=back"


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_on_asyncio(compression: Any) -> None:
    options: dict[str, Any] = {"compression": compression}
    async with (
        serving(echo, extensions=BOTH["take"], **options) as server,
        wsfast.connect(f"ws://127.0.0.1:{port_of(server)}", extensions=BOTH["offer"], **options) as ws,
    ):
        (other,) = server.connections
        for end in (ws, other):
            assert end.response is not None
            agreed = end.response.headers["Sec-WebSocket-Extensions"]
            assert agreed.endswith(HEADER)
            assert agreed.startswith("permessage-deflate") is (compression is not None)
        for message in MESSAGES:
            await ws.send(message)
            assert await ws.recv() == message
        ws.send_nowait("now")
        await ws.send(["in ", "pieces"])
        await ws.send("x" * 300_000)
        assert [await ws.recv() for _ in range(3)] == ["now", "in pieces", "x" * 300_000]
        await (await ws.ping())
        wsfast.broadcast(server.connections, "all")
        wsfast.broadcast([ws], "back")
        assert [await ws.recv() for _ in range(2)] == ["all", "back"]
        await ws.close(4000, "reason")
        await other.wait_closed()
        assert (other.close_code, other.close_reason) == (4000, "reason")
        async with wsfast.connect(f"ws://127.0.0.1:{port_of(server)}") as plain:
            await plain.send("hi")
            assert await plain.recv() == "hi"
            assert plain.response is not None
            assert "Sec-WebSocket-Extensions" not in plain.response.headers


async def test_streams_and_listeners() -> None:
    class Echo(wsfast.Listener):
        def on_message(self, message: str | bytes) -> None:
            self.ws.send_nowait(message)

    server = wsfast.Server(extensions=[Take(Turned)])
    server.register_stream_handler("stream", stream_echo)
    server.register_listener("listener", Echo)
    await server.start("127.0.0.1", 0)
    uri = f"ws://127.0.0.1:{port_of(server)}"
    async with server:
        reader, writer = await wsfast.connect_stream(uri, subprotocols=["stream"], extensions=[Offer(Turned)])
        await writer.write(b"a" * 100_000)
        await writer.flush()
        assert await reader.readexactly(100_000) == b"a" * 100_000
        await writer.close()
        async with wsfast.connect(uri, subprotocols=["listener"], extensions=[Offer(Turned)]) as ws:
            for i in range(300):
                await ws.send(str(i))
            assert [await ws.recv() for _ in range(300)] == [str(i) for i in range(300)]


async def test_topics() -> None:
    topics = wsfast.Topics()

    async def handler(ws: wsfast.WebSocket) -> None:
        await ws.subscribe("news")
        await ws.send("subscribed")
        await ws.wait_closed()

    server = wsfast.Server(extensions=[Take(Turned)], topics=topics)
    server.register_handler(None, handler)
    await server.start("127.0.0.1", 0)
    async with (
        server,
        wsfast.connect(f"ws://127.0.0.1:{port_of(server)}", extensions=[Offer(Turned)]) as ws,
        wsfast.connect(f"ws://127.0.0.1:{port_of(server)}") as plain,
    ):
        for end in (ws, plain):
            assert await end.recv() == "subscribed"
        for text in ("one", "two"):
            topics.publish("news", text)
        for end in (ws, plain):
            assert [await end.recv() for _ in range(2)] == ["one", "two"]


class Buggy(Broken):
    def encode(self, frame: Frame) -> Frame:
        return frame

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        if frame.data == b"bug":
            raise KeyError("a secret")
        return frame


async def test_a_failure_on_asyncio(caplog: pytest.LogCaptureFixture) -> None:
    async with (
        serving(echo, extensions=[Take(Buggy)]) as server,
        wsfast.connect(f"ws://127.0.0.1:{port_of(server)}", extensions=[Offer(Turned)]) as plain,
        wsfast.connect(f"ws://127.0.0.1:{port_of(server)}", extensions=[Offer(Buggy)]) as ws,
    ):
        await ws.send(b"fine")
        assert await ws.recv() == b"fine"
        await ws.send(b"bug")
        with pytest.raises(wsfast.ConnectionClosedError) as caught:
            await ws.recv()
        assert caught.value.rcvd == Close(1011, "an extension failed")
        await plain.send(b"bug")  # without it, since it was not agreed on
        assert await plain.recv() == b"bug"
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        "an extension failed on a frame that came"
    ]


async def test_a_handler_whose_answer_cannot_be_encoded() -> None:
    async def handler(ws: wsfast.WebSocket) -> None:
        async for message in ws:
            with contextlib.suppress(ExtensionError):
                await ws.send(message)
            with contextlib.suppress(ExtensionError):
                ws.send_nowait(message)

    async with (
        serving(handler, extensions=[Take(Turned)]) as server,
        wsfast.connect(f"ws://127.0.0.1:{port_of(server)}", extensions=[Offer(Turned)]) as ws,
    ):
        with encoding_fails():
            await ws.send(b"not to be sent")
        await ws.send(b"fine")
        assert await ws.recv() == b"fine"


async def test_a_message_in_fragments_that_cannot_be_finished() -> None:
    async with (
        serving(echo, extensions=[Take(Turned)]) as server,
        wsfast.connect(f"ws://127.0.0.1:{port_of(server)}", extensions=[Offer(Turned)]) as ws,
    ):
        with encoding_fails():
            await ws.send([b"not to be sent", b"at all"])
        await ws.send([b"to be ", b"sent"])
        assert await ws.recv() == b"to be sent"
        with encoding_fails():
            await ws.send([b"begun, but ", b"not to be sent"])
        await ws.wait_closed()
        assert ws.close_code == 1011


async def test_a_broadcast_skips_who_cannot_be_sent_it(caplog: pytest.LogCaptureFixture) -> None:
    async with (
        serving(echo, extensions=[Take(Turned)]) as server,
        wsfast.connect(f"ws://127.0.0.1:{port_of(server)}", extensions=[Offer(Turned)]) as ws,
        wsfast.connect(f"ws://127.0.0.1:{port_of(server)}") as plain,
    ):
        wsfast.broadcast(server.connections, b"not to be sent")
        with pytest.raises(ExceptionGroup, match="skipped"):
            wsfast.broadcast(server.connections, b"not to be sent", raise_exceptions=True)
        wsfast.broadcast(server.connections, b"fine")
        assert await ws.recv() == b"fine"
        assert [await plain.recv() for _ in range(3)] == [b"not to be sent", b"not to be sent", b"fine"]
    assert "an extension failed to encode a frame" in caplog.text


async def test_a_server_that_puts_permessage_deflate_behind() -> None:
    async def answer(peer: Any) -> None:
        await peer.read_head()
        peer.accept("Sec-WebSocket-Extensions: x-turned, permessage-deflate")
        await peer.until_end()

    async with scripted(answer) as server:
        with pytest.raises(NegotiationError, match="server chose permessage-deflate behind another extension"):
            await wsfast.connect(url_of(server), extensions=[Offer(Turned)], compression="deflate")


def test_in_threads() -> None:
    def handler(ws: Any) -> None:
        for message in ws:
            ws.send(message)

    with wsfast.sync.serve(handler, "127.0.0.1", 0, extensions=BOTH["take"], compression="deflate") as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        uri = f"ws://127.0.0.1:{server.socket.getsockname()[1]}/"
        with wsfast.sync.connect(uri, extensions=BOTH["offer"]) as ws:
            assert ws.response is not None
            assert ws.response.headers["Sec-WebSocket-Extensions"] == HEADER
            for message in MESSAGES:
                ws.send(message)
                assert ws.recv(timeout=10) == message
            wsfast.sync.broadcast([ws], "all")
            assert ws.recv(timeout=10) == "all"
            with encoding_fails():
                ws.send(b"not to be sent")
        assert ws.close_code == 1000
        with wsfast.sync.connect(uri, extensions=BOTH["offer"], compression="deflate") as ws:
            ws.send("x" * 1000)
            assert ws.recv(timeout=10) == "x" * 1000
    thread.join()


@in_trio
async def test_on_trio() -> None:
    async with trio.open_nursery() as nursery:
        server: Any = await nursery.start(
            partial(wsfast.trio.serve, trio_echo, port=0, host="127.0.0.1", extensions=BOTH["take"])
        )
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with wsfast.trio.connect(uri, extensions=BOTH["offer"]) as ws:
            assert ws.response is not None
            assert ws.response.headers["Sec-WebSocket-Extensions"] == HEADER
            for message in MESSAGES:
                await ws.send(message)
                assert await ws.recv() == message
            with encoding_fails():
                await ws.send(b"not to be sent")
        assert ws.close_code == 1000
        nursery.cancel_scope.cancel()


async def test_under_uvicorn() -> None:
    uvicorn = pytest.importorskip("uvicorn")
    import wsfast.uvicorn

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] != "websocket.disconnect":
            if event["type"] == "websocket.receive":
                await send({"type": "websocket.send", "text": event["text"]})

    with pytest.raises(TypeError, match="extensions must be factories"):
        wsfast.uvicorn.configure(extensions=[Offer(Turned)])  # type: ignore[list-item]
    kind = wsfast.uvicorn.configure(extensions=[Take(Turned)])
    config = uvicorn.Config(app, port=0, ws=kind, lifespan="off", log_level=logging.WARNING)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    uri = f"ws://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    async with wsfast.connect(uri, extensions=[Offer(Turned)]) as ws:
        assert ws.response is not None
        assert ws.response.headers["Sec-WebSocket-Extensions"] == "x-turned"
        for i in range(5):
            await ws.send(f"message {i}")
            assert await ws.recv() == f"message {i}"
    server.should_exit = True
    await task


# --- websockets at the other end ------------------------------------------------------------------------


class TheirTurned(websockets.extensions.Extension):
    """The same extension, written for `websockets`."""

    name = websockets.typing.ExtensionName(Turned.name)

    def encode(self, frame: Any) -> Any:
        return dataclasses.replace(frame, data=bytes(frame.data)[::-1], rsv2=True)

    def decode(self, frame: Any, *, max_size: int | None = None) -> Any:
        return dataclasses.replace(frame, data=bytes(frame.data)[::-1], rsv2=False)


class TheirOffer(websockets.extensions.ClientExtensionFactory):
    name = TheirTurned.name

    def get_request_params(self) -> Any:
        return []

    def process_response_params(self, params: Any, accepted_extensions: Any) -> Any:
        return TheirTurned()


class TheirTake(websockets.extensions.ServerExtensionFactory):
    name = TheirTurned.name

    def process_request_params(self, params: Any, accepted_extensions: Any) -> Any:
        return [], TheirTurned()


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_with_websockets(compression: Any) -> None:
    """Their client asks for its own extension first; this server answers in its order, which both then obey."""

    async def their_echo(ws: Any) -> None:
        async for message in ws:
            await ws.send(message)

    from websockets.asyncio import client, server

    async with (
        server.serve(their_echo, "127.0.0.1", 0, extensions=[TheirTake()], compression=compression) as theirs,
        serving(echo, extensions=[Take(Turned)], compression=compression) as ours,
    ):
        their_uri = f"ws://127.0.0.1:{theirs.sockets[0].getsockname()[1]}"
        async with wsfast.connect(their_uri, extensions=[Offer(Turned)], compression=compression) as ws:
            assert ws.response is not None
            assert ws.response.headers["Sec-WebSocket-Extensions"].endswith("x-turned")
            for message in MESSAGES:
                await ws.send(message)
                assert await ws.recv() == message
            await (await ws.ping())
        assert ws.close_code == 1000
        async with client.connect(
            f"ws://127.0.0.1:{port_of(ours)}", extensions=[TheirOffer()], compression=compression
        ) as their:
            names = [extension.name for extension in their.protocol.extensions]
            assert names == ([] if compression is None else ["permessage-deflate"]) + ["x-turned"]
            for message in MESSAGES:
                await their.send(message)
                assert await their.recv() == message
            await (await their.ping())
        assert their.close_code == 1000
