"""permessage-deflate: RFC 7692, section 7, table by table, and what a peer could do with it."""

import contextlib
import gc
import itertools
import json
import random
import sys
import threading
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inflate_reference import inflate

from wsfast.deflate import DeflateBudget
from wsfast.deflate import context as _permessage
from wsfast.deflate.backends import BACKENDS, Backend
from wsfast.deflate.context import Parameters, PerMessageDeflate, pool
from wsfast.deflate.negotiate import EXTENSION, Deflate, Extension, accept, as_deflate, confirm, offer
from wsfast.exceptions import InvalidPayload, NegotiationError, PayloadTooBig

NAMES = ["zlib", "isal", "zlib_ng"]


def parse(header: str) -> list[Extension]:
    """Read a well-formed header without quotes."""
    extensions: list[Extension] = []
    for element in filter(None, (e.strip() for e in header.split(","))):
        name, *parameters = (p.strip() for p in element.split(";"))
        extensions.append(
            (name, [(p.partition("=")[0], p.partition("=")[2] if "=" in p else None) for p in parameters])
        )
    return extensions


def text(extension: Extension) -> str:
    name, parameters = extension
    return "; ".join([name, *(p if v is None else f"{p}={v}" for p, v in parameters)])


def parameters(
    takeover: bool = True,
    peer_takeover: bool = True,
    bits: int = 15,
    peer_bits: int = 15,
    compress: str = "zlib",
    inflate: str = "zlib",
    **more: Any,
) -> Parameters:
    settled: dict[str, Any] = {"level": 3, "mem_level": 5, "threshold": 0, "idle": 60.0} | more
    return Parameters(
        takeover=takeover,
        peer_takeover=peer_takeover,
        bits=bits,
        peer_bits=peer_bits,
        compress=BACKENDS[compress],
        inflate=BACKENDS[inflate],
        **settled,
    )


def make(*args: Any, **kwargs: Any) -> PerMessageDeflate:
    return PerMessageDeflate(parameters(*args, **kwargs))


def message(seed: int, items: int = 12) -> bytes:
    rng = random.Random(seed)
    rows = [{"price": round(rng.uniform(10, 5e4), 2), "side": rng.choice(["buy", "sell"])} for _ in range(items)]
    return json.dumps({"type": "trade", "id": seed, "items": rows}).encode()


# Configuration


@pytest.mark.parametrize("name", ["server_max_window_bits", "client_max_window_bits"])
def test_window_bits_are_checked(name: str) -> None:
    for bits in (None, 8, 15):
        assert getattr(Deflate(**{name: bits}), name) == bits  # type: ignore[arg-type]
    for bits in (0, 7, 16, -12):
        with pytest.raises(ValueError, match=f"{name} must be from 8 to 15, or None, got {bits}"):
            Deflate(**{name: bits})  # type: ignore[arg-type]
    for value in ("12", 12.0, True):
        with pytest.raises(TypeError, match=f"{name} must be an int from 8 to 15, or None, got"):
            Deflate(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"level": 0}, ValueError, "level must be from 1 to 9, got 0"),
        ({"level": 10}, ValueError, "level must be from 1 to 9, got 10"),
        ({"level": None}, TypeError, "level must be an int from 1 to 9, got None"),
        ({"mem_level": 0}, ValueError, "mem_level must be from 1 to 9, got 0"),
        ({"mem_level": 10}, ValueError, "mem_level must be from 1 to 9, got 10"),
        ({"threshold": -1}, ValueError, "threshold must be at least 0, got -1"),
        ({"threshold": None}, TypeError, "threshold must be an int at least 0, got None"),
        ({"executor_threshold": -1}, ValueError, "executor_threshold must be at least 0, or None, got -1"),
        ({"idle": -0.1}, ValueError, "idle must be at least 0 seconds, or None, got -0.1"),
        ({"idle": float("nan")}, ValueError, "idle must be at least 0 seconds, or None, got nan"),
        ({"idle": "60"}, TypeError, "idle must be a number of seconds or None, got str"),
        ({"idle": True}, TypeError, "idle must be a number of seconds or None, got bool"),
        ({"backend": "gzip"}, ValueError, "backend must be one of .*, got 'gzip'"),
        ({"budget": 1 << 20}, TypeError, "budget must be a DeflateBudget or None, got 1048576"),
    ],
)
def test_wrong_options(options: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        Deflate(**options)


def test_option_borders() -> None:
    for level in (1, 9):
        Deflate(level=level, mem_level=level, threshold=0, executor_threshold=0, idle=0)
    Deflate(executor_threshold=None, idle=None, backend="isal")


def test_config_is_frozen() -> None:
    with pytest.raises(AttributeError):
        Deflate().level = 1  # type: ignore[misc]
    assert Deflate() == Deflate()
    assert hash(Deflate()) == hash(Deflate())


def test_compression_option() -> None:
    assert as_deflate(None) is None
    assert as_deflate("deflate") == Deflate()
    deflate = Deflate(level=1)
    assert as_deflate(deflate) is deflate
    with pytest.raises(ValueError, match="must be None, 'deflate' or a Deflate, got 'gzip'"):
        as_deflate("gzip")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be None, 'deflate' or a Deflate, got True"):
        as_deflate(True)  # type: ignore[arg-type]


# Negotiation

NARROW = "; server_max_window_bits=12"
WIDE = Deflate(server_max_window_bits=15, client_max_window_bits=15)


@pytest.mark.parametrize(
    ("offers", "answer"),
    [
        # RFC 7692, 7.1.3 and its neighbours; `None` declines.
        ("permessage-deflate", "permessage-deflate"),
        (
            "permessage-deflate; client_max_window_bits; server_max_window_bits=10",
            "permessage-deflate; server_max_window_bits=10",
        ),
        (
            (
                "permessage-deflate; client_max_window_bits; server_max_window_bits=10, "
                "permessage-deflate; client_max_window_bits"
            ),
            "permessage-deflate; server_max_window_bits=10",
        ),
        # 7.1.1.1 and 7.1.1.2
        ("permessage-deflate; server_no_context_takeover", "permessage-deflate; server_no_context_takeover"),
        ("permessage-deflate; client_no_context_takeover", "permessage-deflate; client_no_context_takeover"),
        (
            "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        ),
        # 7.1.2.1
        ("permessage-deflate; server_max_window_bits=15", "permessage-deflate; server_max_window_bits=15"),
        ("permessage-deflate; server_max_window_bits=9", "permessage-deflate; server_max_window_bits=9"),
        ("permessage-deflate; server_max_window_bits=8", "permessage-deflate; server_max_window_bits=8"),
        # 7.1.2.2
        ("permessage-deflate; client_max_window_bits", "permessage-deflate"),
        ("permessage-deflate; client_max_window_bits=15", "permessage-deflate; client_max_window_bits=15"),
        ("permessage-deflate; client_max_window_bits=10", "permessage-deflate; client_max_window_bits=10"),
        ("permessage-deflate; client_max_window_bits=8", "permessage-deflate; client_max_window_bits=8"),
        # Values out of range, badly written, or missing
        ("permessage-deflate; server_max_window_bits", None),
        ("permessage-deflate; server_max_window_bits=", None),
        ("permessage-deflate; server_max_window_bits=7", None),
        ("permessage-deflate; server_max_window_bits=16", None),
        ("permessage-deflate; server_max_window_bits=08", None),
        ("permessage-deflate; server_max_window_bits=010", None),
        ("permessage-deflate; server_max_window_bits=+9", None),
        ("permessage-deflate; server_max_window_bits=-9", None),
        ("permessage-deflate; server_max_window_bits=9.0", None),
        ("permessage-deflate; server_max_window_bits=1_0", None),
        ("permessage-deflate; server_max_window_bits=\u0661\u0660", None),
        ("permessage-deflate; server_max_window_bits=x", None),
        ("permessage-deflate; client_max_window_bits=", None),
        ("permessage-deflate; client_max_window_bits=7", None),
        ("permessage-deflate; client_max_window_bits=16", None),
        ("permessage-deflate; client_max_window_bits=015", None),
        # Values where none belong
        ("permessage-deflate; server_no_context_takeover=1", None),
        ("permessage-deflate; server_no_context_takeover=", None),
        ("permessage-deflate; client_no_context_takeover=true", None),
        # Twice
        ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", None),
        ("permessage-deflate; client_no_context_takeover; client_no_context_takeover", None),
        ("permessage-deflate; server_max_window_bits=10; server_max_window_bits=10", None),
        ("permessage-deflate; client_max_window_bits; client_max_window_bits=10", None),
        # Unknown
        ("permessage-deflate; foo", None),
        ("permessage-deflate; server_max_window_bits=10; foo=bar", None),
        ("permessage-deflate; Server_No_Context_Takeover", None),
        # Others
        ("", None),
        ("x-permessage-deflate-foo", None),
        ("permessage-deflate-foo", None),
        ("x-webkit-deflate-frame", None),
        ("foo; server_max_window_bits=10", None),
        # The first acceptable one
        ("foo, permessage-deflate; server_max_window_bits=9", "permessage-deflate; server_max_window_bits=9"),
        (
            (
                "permessage-deflate; server_max_window_bits=7, permessage-deflate; foo, "
                "permessage-deflate; server_no_context_takeover, permessage-deflate"
            ),
            "permessage-deflate; server_no_context_takeover",
        ),
        ("permessage-deflate; foo, x-permessage-deflate-foo", None),
    ],
)
def test_server_answers(offers: str, answer: str | None) -> None:
    chosen = accept(WIDE, parse(offers))
    assert (None if chosen is None else text(chosen[0])) == answer


@pytest.mark.parametrize(
    ("deflate", "offers", "answer"),
    [
        (Deflate(), "", "; server_max_window_bits=12"),
        (Deflate(), "; client_max_window_bits", "; server_max_window_bits=12; client_max_window_bits=12"),
        (Deflate(), "; client_max_window_bits=11", "; server_max_window_bits=12; client_max_window_bits=11"),
        (Deflate(), "; client_max_window_bits=13", "; server_max_window_bits=12; client_max_window_bits=12"),
        (Deflate(), "; server_max_window_bits=11", "; server_max_window_bits=11"),
        (Deflate(), "; server_max_window_bits=13", "; server_max_window_bits=12"),
        (Deflate(server_max_window_bits=8), "; server_max_window_bits=9", "; server_max_window_bits=9"),
        (Deflate(server_max_window_bits=8), "", "; server_max_window_bits=9"),
        (Deflate(server_max_window_bits=8), "; server_max_window_bits=8", "; server_max_window_bits=8"),
        (Deflate(client_max_window_bits=8), "; client_max_window_bits", NARROW + "; client_max_window_bits=9"),
        (Deflate(client_max_window_bits=8), "; client_max_window_bits=8", NARROW + "; client_max_window_bits=8"),
        # What can not be asked for is done without.
        (Deflate(client_max_window_bits=9), "", "; server_max_window_bits=12"),
        (Deflate(server_no_context_takeover=True), "", "; server_no_context_takeover; server_max_window_bits=12"),
        (Deflate(client_no_context_takeover=True), "", "; client_no_context_takeover; server_max_window_bits=12"),
    ],
)
def test_server_preferences(deflate: Deflate, offers: str, answer: str) -> None:
    chosen = accept(deflate, parse(EXTENSION + offers))
    assert chosen is not None
    assert text(chosen[0]) == EXTENSION + answer


def test_server_parameters() -> None:
    chosen = accept(Deflate(), parse("permessage-deflate; server_no_context_takeover; client_max_window_bits=10"))
    assert chosen is not None
    p = chosen[1].parameters
    assert (p.takeover, p.bits, p.peer_takeover, p.peer_bits) == (False, 12, True, 10)
    # The client may use any window if it could not be asked.
    chosen = accept(Deflate(client_no_context_takeover=True), parse("permessage-deflate"))
    assert chosen is not None
    p = chosen[1].parameters
    assert (p.takeover, p.bits, p.peer_takeover, p.peer_bits) == (True, 12, False, 15)
    again = accept(Deflate(client_no_context_takeover=True), parse("permessage-deflate"))
    assert again is not None
    assert again[1].parameters is p


def test_server_without_compression() -> None:
    assert accept(None, parse("permessage-deflate")) is None


@pytest.mark.parametrize(
    ("deflate", "offers"),
    [
        (Deflate(), "permessage-deflate; client_max_window_bits"),
        (Deflate(client_max_window_bits=10), "permessage-deflate; client_max_window_bits=10"),
        (
            Deflate(server_no_context_takeover=True, client_no_context_takeover=True, server_max_window_bits=9),
            (
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=9; "
                "client_max_window_bits"
            ),
        ),
    ],
)
def test_client_offers(deflate: Deflate, offers: str) -> None:
    assert [text(extension) for extension in offer(deflate)] == [offers]


def test_client_without_compression() -> None:
    assert offer(None) == []
    assert confirm(None, []) is None
    with pytest.raises(NegotiationError, match="'permessage-deflate', which was not offered"):
        confirm(None, parse("permessage-deflate"))


@pytest.mark.parametrize(
    ("deflate", "answer", "expected"),
    [
        # (takeover, bits, peer_takeover, peer_bits)
        (Deflate(), "", (True, 12, True, 15)),
        (Deflate(), "; server_no_context_takeover", (True, 12, False, 15)),
        (Deflate(), "; client_no_context_takeover", (False, 12, True, 15)),
        (Deflate(), "; server_max_window_bits=8", (True, 12, True, 8)),
        (Deflate(), "; client_max_window_bits=8", (True, 8, True, 15)),
        (Deflate(), "; client_max_window_bits=15", (True, 12, True, 15)),
        (Deflate(client_max_window_bits=15), "; client_max_window_bits=15", (True, 15, True, 15)),
        (Deflate(client_max_window_bits=15), "", (True, 15, True, 15)),
        (Deflate(client_max_window_bits=10), "; client_max_window_bits=9", (True, 9, True, 15)),
        # 7.1.2.2: more than offered is no error, the client keeps to its own.
        (Deflate(client_max_window_bits=10), "; client_max_window_bits=11", (True, 10, True, 15)),
        (Deflate(client_no_context_takeover=True), "", (False, 12, True, 15)),
        (Deflate(server_no_context_takeover=True), "; server_no_context_takeover", (True, 12, False, 15)),
        (Deflate(server_max_window_bits=10), "; server_max_window_bits=10", (True, 12, True, 10)),
        (Deflate(server_max_window_bits=10), "; server_max_window_bits=9", (True, 12, True, 9)),
    ],
)
def test_client_confirms(deflate: Deflate, answer: str, expected: tuple[bool, int, bool, int]) -> None:
    confirmed = confirm(deflate, parse(EXTENSION + answer))
    assert confirmed is not None
    p = confirmed.parameters
    assert (p.takeover, p.bits, p.peer_takeover, p.peer_bits) == expected


@pytest.mark.parametrize(
    ("deflate", "answer", "match"),
    [
        (Deflate(), "x-permessage-deflate-foo", "'x-permessage-deflate-foo', which was not offered"),
        (Deflate(), "permessage-deflate, foo", "'foo', which was not offered"),
        (Deflate(), "permessage-deflate, permessage-deflate", "2 times, expected once"),
        (Deflate(), "permessage-deflate; foo", "unknown parameter 'foo'"),
        (Deflate(), "permessage-deflate; server_max_window_bits=7", "server_max_window_bits must be .* '7'"),
        (Deflate(), "permessage-deflate; server_max_window_bits=16", "got '16'"),
        (Deflate(), "permessage-deflate; server_max_window_bits=010", "got '010'"),
        (Deflate(), "permessage-deflate; server_max_window_bits", "got None"),
        (Deflate(), "permessage-deflate; client_max_window_bits", "client_max_window_bits must be .* None"),
        (Deflate(), "permessage-deflate; client_max_window_bits=08", "got '08'"),
        (Deflate(), "permessage-deflate; server_no_context_takeover=1", "takes no value, got '1'"),
        (
            Deflate(),
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "server_no_context_takeover stands twice",
        ),
        (Deflate(server_no_context_takeover=True), "permessage-deflate", "did not grant server_no_context"),
        (Deflate(server_max_window_bits=10), "permessage-deflate", "did not grant .*=10, but None"),
        (Deflate(server_max_window_bits=10), "permessage-deflate; server_max_window_bits=11", "=10, but 11"),
    ],
)
def test_client_refuses(deflate: Deflate, answer: str, match: str) -> None:
    with pytest.raises(NegotiationError, match=match):
        confirm(deflate, parse(answer))


def test_client_takes_no() -> None:
    assert confirm(Deflate(), []) is None


deflates = st.builds(
    Deflate,
    server_max_window_bits=st.none() | st.integers(8, 15),
    client_max_window_bits=st.none() | st.integers(8, 15),
    server_no_context_takeover=st.booleans(),
    client_no_context_takeover=st.booleans(),
    level=st.integers(1, 9),
    mem_level=st.integers(1, 9),
    budget=st.none() | st.builds(DeflateBudget, st.sampled_from([0, 20_000, 10**6])),
    backend=st.sampled_from([None, *NAMES]),
)


@settings(max_examples=300, deadline=None)
@given(client=deflates, server=deflates, data=st.lists(st.binary(max_size=3000), min_size=1, max_size=4))
def test_sides_agree(client: Deflate, server: Deflate, data: list[bytes]) -> None:
    chosen = accept(server, offer(client))
    assert chosen is not None
    at_client = confirm(client, [chosen[0]])
    assert at_client is not None
    at_server = chosen[1]
    for own, peer in ((at_client, at_server), (at_server, at_client)):
        assert own.parameters.bits <= peer.parameters.peer_bits
        assert peer.parameters.peer_takeover or not own.parameters.takeover
        for payload in data * 2:
            assert peer.decompress(own.compress(payload), True, len(payload)) == payload


# The work

HELLO = bytes.fromhex("f248cdc9c90700")


@pytest.mark.parametrize("takeover", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_rfc_messages(name: str, takeover: bool) -> None:
    deflate = make(peer_takeover=takeover, inflate=name)

    def whole(hexes: str) -> bytes:
        return deflate.decompress(bytes.fromhex(hexes), True, 5)

    # RFC 7692, 7.2.3.1 to 7.2.3.6
    assert whole("f2 48 cd c9 c9 07 00") == b"Hello"
    assert deflate.decompress(HELLO[:3], False, 5) + deflate.decompress(HELLO[3:], True, 5) == b"Hello"
    if takeover:
        assert whole("f2 00 11 00 00") == b"Hello"
    assert whole("00 05 00 fa ff 48 65 6c 6c 6f 00") == b"Hello"
    assert whole("f3 48 cd c9 c9 07 00 00") == b"Hello"
    assert whole("f2 48 05 00 00 00 ff ff ca c9 c9 07 00") == b"Hello"
    assert whole("00") == b""
    assert whole("f2 48 cd c9 c9 07 00") == b"Hello"


def test_rfc_context_is_needed() -> None:
    for takeover in (True, False):
        with pytest.raises(InvalidPayload):
            make(peer_takeover=takeover).decompress(bytes.fromhex("f200110000"), True, 100)
    deflate = make(peer_takeover=False)
    deflate.decompress(HELLO, True, 5)
    with pytest.raises(InvalidPayload):
        deflate.decompress(bytes.fromhex("f200110000"), True, 100)


@pytest.mark.parametrize("takeover", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_empty_messages(name: str, takeover: bool) -> None:
    sender, receiver = make(takeover, compress=name), make(peer_takeover=takeover, inflate=name)
    for payload in (b"", b"Hello" * 9, b"", b"", b"Hello" * 9):
        packed = sender.compress(payload)
        assert receiver.decompress(packed, True, 45) == payload
        assert (packed == b"\x00") == (not payload)
    for parts in ([b"", b""], [b"", b"abc", b""], [b"abc", b"", b"abc"], [b"abc", b""]):
        got = b""
        for i, part in enumerate(parts):
            fin = i == len(parts) - 1
            got += receiver.decompress(sender.compress_fragment(part, fin), fin, 6)
        assert got == b"".join(parts)
    assert sender.compress_fragment(memoryview(b""), False) == b""
    assert sender.compress(bytearray()) == b"\x00"
    # No byte at all: not RFC 7692, but clear; what follows is read as if it had not been there.
    assert receiver.decompress(b"", True, 0) == b""
    assert receiver.decompress(b"", False, 0) == b""
    assert receiver.decompress(b"", True, 0) == b""
    assert receiver.decompress(HELLO, True, 5) == b"Hello"


payloads = st.one_of(
    st.binary(max_size=400),
    st.builds(message, st.integers(0, 1000), st.integers(1, 200)),
    st.builds(lambda seed, n: random.Random(seed).randbytes(n), st.integers(0, 1000), st.integers(0, 40_000)),
)


@pytest.mark.parametrize("compress", NAMES)
@pytest.mark.parametrize("inflate", NAMES)
@settings(max_examples=40, deadline=None)
@given(data=st.data(), takeover=st.booleans(), bits=st.integers(8, 15))
def test_round_trip(compress: str, inflate: str, data: st.DataObject, takeover: bool, bits: int) -> None:
    if bits == 8 and compress == "isal":
        compress = "zlib"
    sender = make(takeover, bits=bits, compress=compress)
    receiver = make(peer_takeover=takeover, peer_bits=bits, inflate=inflate)
    for _ in range(data.draw(st.integers(1, 5))):
        payload = data.draw(payloads)
        action = data.draw(st.sampled_from(["whole", "shared", "fragments", "free", "cut"]))
        size = len(payload)
        if action == "fragments":
            got = b""
            cuts = sorted({0, size, *data.draw(st.lists(st.integers(0, size), max_size=4))})
            pieces = [payload[a:b] for a, b in itertools.pairwise(cuts)] or [b""]
            for i, piece in enumerate(pieces):
                fin = i == len(pieces) - 1
                # Each fragment can be read at once.
                part = receiver.decompress(sender.compress_fragment(piece, fin), fin, len(piece))
                assert part == piece
                got += part
            assert got == payload
            continue
        if action == "shared":
            packed = sender.shared_key.compress(payload)
            sender.note_shared()
        else:
            packed = sender.compress(payload)
        if action == "cut":
            got = b""
            step = data.draw(st.integers(1, 50))
            for at in range(0, len(packed), step):
                got += receiver.decompress(packed[at : at + step], False, size - len(got))
            assert got + receiver.decompress(b"", True, size - len(got)) == payload
        else:
            assert receiver.decompress(packed, True, size) == payload
        if action == "free":
            sender.free_idle(0.0)
            sender.free_idle(60.0)
            assert sender.memory == 0


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("takeover", [True, False])
def test_buffer_types(kind: Any, takeover: bool) -> None:
    sender, receiver = make(takeover), make(peer_takeover=takeover)
    payload = message(1)
    for packed in (sender.compress(kind(payload)), sender.compress_fragment(kind(payload), True)):
        assert type(packed) is bytes
        assert receiver.decompress(packed, True, -1) == payload


@pytest.mark.parametrize("takeover", [True, False])
def test_context_takeover(takeover: bool) -> None:
    sender = make(takeover)
    packed = [sender.compress(message(7)) for _ in range(3)]
    assert (len(packed[1]) < len(packed[0]) // 4) == takeover
    assert (packed[1] == packed[0]) != takeover
    # Without it every message can be read by itself: the reference checks that nothing refers to before the start.
    for one in packed if not takeover else packed[:1]:
        assert inflate(one + b"\x00\x00\xff\xff").data == message(7)


def test_takeover_off_uses_one_compressor_for_all() -> None:
    shared = pool(BACKENDS["zlib"], 3, 15, 5)
    many = [make(takeover=False, peer_takeover=False) for _ in range(20)]
    payload = message(3)
    for sender in many:
        packed = sender.compress(payload)
        assert sender.decompress(packed, True, len(payload)) == payload
        assert sender.memory == 0
        assert sender.shared_key is shared
        # Fragments borrow one from beginning to end.
        sender.compress_fragment(payload, False)
        assert sender.memory > 0
        sender.compress_fragment(b"", True)
        assert sender.memory == 0
    assert 1 <= len(shared._free) <= 2


def test_fragments_of_two_connections_do_not_mix() -> None:
    senders = [make(takeover=False) for _ in range(2)]
    receivers = [make(peer_takeover=False) for _ in range(2)]
    for fin in (False, False, True):
        for i, (sender, receiver) in enumerate(zip(senders, receivers, strict=True)):
            assert receiver.decompress(sender.compress_fragment(message(i), fin), fin, -1) == message(i)


def test_pool_in_threads() -> None:
    shared = pool(BACKENDS["zlib"], 1, 12, 5)
    wrong: list[int] = []

    def work(seed: int) -> None:
        for i in range(150):
            payload = message(seed * 1000 + i)
            if zlib.decompressobj(-15).decompress(shared.compress(payload) + b"\x00\x00\xff\xff") != payload:
                wrong.append(seed)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong
    assert len(shared._free) <= 4


def test_pool_keeps_few() -> None:
    # A thousand messages in fragments at one time need a thousand compressors, and leave a handful behind.
    shared = pool(BACKENDS["zlib"], 5, 9, 1)
    many = [make(takeover=False, level=5, bits=9, mem_level=1) for _ in range(1000)]
    for sender in many:
        sender.compress_fragment(b"abc", False)
    assert len({id(sender._compressor) for sender in many}) == 1000
    for sender in many:
        sender.compress_fragment(b"", True)
    assert 1 <= len(shared._free) <= 8
    assert zlib.decompressobj(-15).decompress(shared.compress(b"abc") + b"\x00\x00\xff\xff") == b"abc"


@pytest.mark.parametrize("takeover", [True, False])
def test_a_failed_fragment_leaves_nothing_behind(takeover: bool) -> None:
    sender, receiver = make(takeover), make(peer_takeover=takeover)
    receiver.decompress(sender.compress(message(1)), True, -1)
    sender.compress_fragment(b"lost", False)

    class Failing:
        def __init__(self, compressor: Any) -> None:
            self.compress = compressor.compress

        def flush(self, mode: int) -> bytes:
            raise MemoryError

    sender._compressor = Failing(sender._compressor)
    with pytest.raises(MemoryError):
        sender.compress_fragment(b"never sent", False)
    assert sender.memory == 0
    assert receiver.decompress(sender.compress(message(1)), True, -1) == message(1)


def test_a_failed_compressor_is_dropped() -> None:
    shared = pool(BACKENDS["zlib"], 2, 12, 5)
    with pytest.raises(TypeError):
        shared.compress("text")  # type: ignore[arg-type]
    assert shared._free == []
    assert zlib.decompressobj(-15).decompress(shared.compress(b"abc") + b"\x00\x00\xff\xff") == b"abc"


# Limits


@pytest.mark.parametrize("takeover", [True, False])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1, 2, 100, 257, 258, 259, 16383, 16384, 16385, 32768, 65536, 100_000])
@pytest.mark.parametrize("content", ["zeros", "random"])
def test_limit(name: str, takeover: bool, size: int, content: str) -> None:
    payload = bytes(size) if content == "zeros" else random.Random(size).randbytes(size)
    packed = make().compress(payload)
    for limit in (size, size + 1, -1):
        assert make(peer_takeover=takeover, inflate=name).decompress(packed, True, limit) == payload
    for limit in (0, size // 2, size - 1):
        with pytest.raises(PayloadTooBig):
            make(peer_takeover=takeover, inflate=name).decompress(packed, True, limit)
        # The same in pieces: what is held by then counts.
        receiver = make(peer_takeover=takeover, inflate=name)
        got = 0

        def in_pieces(receiver: PerMessageDeflate = receiver, limit: int = limit) -> None:
            nonlocal got
            for at in range(0, len(packed), 3):
                got += len(receiver.decompress(packed[at : at + 3], False, limit - got))
            receiver.decompress(b"", True, limit - got)

        with pytest.raises(PayloadTooBig):
            in_pieces()
        assert got <= limit


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("limit", [2**31 - 1, 2**31, 2**32, sys.maxsize - 1, sys.maxsize])
def test_largest_limits(name: str, limit: int) -> None:
    # sys.maxsize is how many say "no limit", and one byte more than it is no number for zlib.
    for packed, expected in ((HELLO, b"Hello"), (finished(b"abc") + HELLO, b"abcHello"), (b"\x00", b"")):
        assert make(inflate=name).decompress(packed, True, limit) == expected


@pytest.mark.parametrize("takeover", [True, False])
def test_empty_message_at_limit_0(takeover: bool) -> None:
    assert make(peer_takeover=takeover).decompress(b"\x00", True, 0) == b""


@pytest.mark.parametrize("finals", [False, True])
@pytest.mark.parametrize("name", ["zlib", "zlib_ng", "isal"])
def test_bomb_is_not_inflated(name: str, finals: bool) -> None:
    bomb = zlib.compressobj(9, wbits=-15)
    packed = bomb.compress(bytes(200 << 20)) + bomb.flush(zlib.Z_SYNC_FLUSH)
    if finals:  # behind a final block, where another loop inflates
        packed = bytes.fromhex("f348cdc9c90700") + packed
    receiver = make(inflate=name)
    gc.collect()
    tracemalloc.start()
    try:
        with pytest.raises(PayloadTooBig):
            receiver.decompress(packed, True, 1 << 20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The output doubles its buffer up to the limit; two copies of the 200 KiB of input are the rest.
    assert peak < 4 << 20


# Final blocks and garbage


def finished(payload: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(payload) + compressor.flush()


@pytest.mark.parametrize("takeover", [True, False])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("step", [None, 1, 2, 3, 7])
def test_final_blocks(name: str, takeover: bool, step: int | None) -> None:
    first, second, third = message(1, 300), b"Hello", random.Random(1).randbytes(10_000)
    open_end = make().compress(third)
    cases = [
        (finished(first) + b"\x00", first),
        (finished(first), first),
        (finished(first) + finished(second) + b"\x00", first + second),
        (finished(first) + finished(b"") * 9 + finished(third), first + third),
        (finished(first) + finished(second) + open_end, first + second + third),
        (finished(second) + open_end, second + third),
        (finished(b"") + b"\x00", b""),
        (finished(b""), b""),
        (HELLO, b"Hello"),
    ]
    receiver = make(peer_takeover=takeover, inflate=name)
    for packed, expected in cases:
        for limit in (-1, len(expected)):
            if step is None:
                assert receiver.decompress(packed, True, limit) == expected
            else:
                got = b""
                for at in range(0, len(packed), step):
                    left = limit - len(got) if limit >= 0 else -1
                    got += receiver.decompress(packed[at : at + step], False, left)
                left = limit - len(got) if limit >= 0 else -1
                assert got + receiver.decompress(b"", True, left) == expected
        for limit in {0, len(expected) // 2, len(expected) - 1} if expected else ():
            with pytest.raises(PayloadTooBig):
                make(peer_takeover=takeover, inflate=name).decompress(packed, True, limit)


@pytest.mark.parametrize("takeover", [True, False])
def test_a_final_block_cut_off(takeover: bool) -> None:
    # 03 00 is an empty final block of ten bits; the tail would complete it, and then be too short.
    with pytest.raises(InvalidPayload, match="ends in the middle of a block"):
        make(peer_takeover=takeover).decompress(b"\x03", True, 100)
    with pytest.raises(InvalidPayload, match="ends in the middle of a block"):
        make(peer_takeover=takeover).decompress(finished(b"abc") + b"\x03", True, 100)


@pytest.mark.parametrize("final", [b"", finished(b"abc")])
def test_a_message_cut_off(final: bytes) -> None:
    # With context takeover this shows in the next message at the earliest, or in none.
    packed = make().compress(message(1))
    for end in range(1, len(packed) - 1, 7):
        with pytest.raises(InvalidPayload):
            make(peer_takeover=False).decompress(final + packed[:end], True, -1)


def test_many_final_blocks() -> None:
    limit = _permessage._MAX_STREAMS
    for takeover in (True, False):
        receiver = make(peer_takeover=takeover)
        for _ in range(2):
            assert receiver.decompress(b"\x03\x00" * limit, True, 0) == b""
        assert receiver.decompress(b"\x03\x00" * (limit - 1) + b"\x00", True, 0) == b""
        with pytest.raises(InvalidPayload, match="more than 1024 final blocks"):
            receiver.decompress(b"\x03\x00" * (limit + 2), True, 0)
        # Fragments do not hide them.
        for size in (1, 4):
            receiver = make(peer_takeover=takeover)
            for _ in range(limit // size):
                receiver.decompress(b"\x03\x00" * size, False, 0)
            with pytest.raises(InvalidPayload, match="more than 1024 final blocks"):
                receiver.decompress(b"\x03\x00", True, 0)


@pytest.mark.parametrize("takeover", [True, False])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("junk", [b"\x07", b"\xff\xff\xff\xff", b"\x06\x00", b"\x00\x05\x00\x00\x00abcde", b"\x04\xc0"])
def test_garbage(name: str, takeover: bool, junk: bytes) -> None:
    for packed in (junk, finished(b"abc") + junk):
        with pytest.raises(InvalidPayload) as caught:
            make(peer_takeover=takeover, inflate=name).decompress(packed, True, -1)
        assert caught.value.code == 1007
        assert isinstance(caught.value.__cause__, BACKENDS[name].error)
        assert str(caught.value).startswith("compressed data is invalid: ")


@settings(max_examples=300, deadline=None)
@given(packed=st.binary(max_size=200), takeover=st.booleans(), name=st.sampled_from(NAMES), cut=st.integers(0, 200))
def test_any_bytes(packed: bytes, takeover: bool, name: str, cut: int) -> None:
    receiver = make(peer_takeover=takeover, inflate=name)
    try:
        first = receiver.decompress(packed[:cut], False, 1000)
        rest = receiver.decompress(packed[cut:], True, 1000 - len(first))
    except (InvalidPayload, PayloadTooBig):
        return
    assert len(first + rest) <= 1000
    # What was read is what stands there: up to the tail, or up to a final block that nothing follows. Only with context
    # takeover a message that ends within a block can not be told from others.
    for stream in (packed + b"\x00\x00\xff\xff", packed):
        with contextlib.suppress(ValueError, IndexError):
            reference = inflate(stream)
            if reference.complete:
                assert first + rest == reference.data
                return
    assert takeover or not packed


# What is worth compressing


def test_threshold() -> None:
    sender = make(threshold=256)
    assert [sender.should_compress(size) for size in (0, 255, 256, 10**6)] == [False, False, True, True]


@pytest.mark.parametrize("takeover", [True, False])
def test_incompressible_streak(takeover: bool) -> None:
    sender = make(takeover, threshold=1)
    noise = random.Random(0)

    def plain() -> int:
        """Count the messages that are sent plain before the next attempt."""
        count = 0
        while not sender.should_compress(1000):
            count += 1
        return count

    for _ in range(4):
        assert plain() == 0
        sender.compress(noise.randbytes(1000))
    for pause in (8, 16, 32, 64, 128, 256, 256):
        assert plain() == pause
        sender.compress(noise.randbytes(1000))
    assert plain() == 256
    sender.compress(message(1))
    for _ in range(3):
        assert plain() == 0
        sender.compress(noise.randbytes(1000))
    assert plain() == 0
    sender.compress(message(1))  # three and a good one, over and over, never stop it
    for _ in range(3):
        sender.compress(noise.randbytes(1000))
        assert plain() == 0


def test_what_a_broadcast_finds_counts() -> None:
    # `shared_key` compresses for many; each is told what came of it.
    sender = make(threshold=1)
    noise = random.Random(4).randbytes(1000)
    for _ in range(4):
        assert sender.should_compress(1000)
        sender.judge(1000, len(sender.shared_key.compress(noise)))
    assert [sender.should_compress(1000) for _ in range(9)] == [False] * 8 + [True]
    sender.judge(1000, 900)
    assert sender.should_compress(1000)


def test_a_threshold_of_0_is_for_all_messages() -> None:
    """libwebsockets 4.1's test client spins on a message that is not compressed once deflate is agreed on."""
    sender = make(threshold=0)
    noise = random.Random(5).randbytes(1000)
    for _ in range(50):
        assert sender.should_compress(1000)
        assert sender.should_compress(0)
        sender.judge(1000, len(sender.shared_key.compress(noise)))


def test_small_messages_do_not_count_a_pause_down() -> None:
    sender = make(threshold=100)
    for seed in range(4):
        sender.compress(random.Random(seed).randbytes(50))
    for _ in range(1000):
        assert not sender.should_compress(99)
    assert [sender.should_compress(100) for _ in range(9)] == [False] * 8 + [True]


# Memory


def test_nothing_is_held_before_use() -> None:
    deflate = make()
    assert deflate.memory == 0
    assert sys.getsizeof(deflate) <= 120
    assert not hasattr(deflate, "__dict__")
    assert repr(deflate).endswith(", 0 bytes held>")
    deflate.compress(b"abc")
    zlib_: Backend = BACKENDS["zlib"]
    assert deflate.memory == zlib_.compress_memory(15, 5)
    deflate.decompress(HELLO, True, 5)
    assert deflate.memory == zlib_.compress_memory(15, 5) + zlib_.decompress_memory(15) == deflate.parameters.memory


def test_idle() -> None:
    deflate = make(idle=10)
    receiver = make()
    assert not deflate.free_idle(0)
    assert receiver.decompress(deflate.compress(message(1)), True, -1) == message(1)
    deflate.decompress(HELLO, True, 5)
    assert not deflate.free_idle(100)
    assert not deflate.free_idle(109.9)
    held = deflate.memory
    assert deflate.free_idle(110)
    assert not deflate.free_idle(200)
    # The inflater stays: the peer may refer to what it sent.
    assert deflate.memory == held - BACKENDS["zlib"].compress_memory(15, 5)
    assert deflate.decompress(bytes.fromhex("f200110000"), True, 5) == b"Hello"
    assert receiver.decompress(deflate.compress(message(1)), True, -1) == message(1)
    # Use counts, whole or in fragments.
    assert not deflate.free_idle(300)
    deflate.compress(b"abc")
    assert not deflate.free_idle(311)
    deflate.compress_fragment(b"abc", False)
    assert not deflate.free_idle(322)
    assert deflate.free_idle(332)


def test_idle_in_the_middle_of_a_message() -> None:
    for takeover in (True, False):
        sender, receiver = make(takeover, idle=0), make(peer_takeover=takeover)
        got = b""
        for fin in (False, False, True):
            got += receiver.decompress(sender.compress_fragment(message(1), fin), fin, -1)
            sender.free_idle(1)
            assert sender.free_idle(1) == (not fin or takeover)
        assert got == message(1) * 3


def test_idle_never() -> None:
    deflate = make(idle=None)
    deflate.compress(b"abc")
    assert not deflate.free_idle(0)
    assert not deflate.free_idle(1e9)
    assert deflate.memory > 0


def test_watched() -> None:
    busy: set[Any] = set()
    deflate = make(idle=10)
    deflate.watched = busy
    assert not busy
    deflate.compress(b"abc")
    assert busy == {deflate}
    deflate.close()
    assert not busy
    assert not deflate.holding


def test_closed_while_a_thread_begins_to_compress() -> None:
    # The connection ends just when its first compressor is made: nothing must keep it, or the compressor, alive.
    class Busy(set[Any]):
        def add(self, one: Any) -> None:
            one.close()
            super().add(one)

    busy = Busy()
    deflate = make()
    deflate.watched = busy
    packed = deflate.compress(message(1))
    assert make().decompress(packed, True, -1) == message(1)
    assert not busy
    assert deflate.memory == 0


def test_budget() -> None:
    need = accept(Deflate(), parse("permessage-deflate; client_max_window_bits"))
    assert need is not None
    cost = need[1].parameters.memory
    budget = DeflateBudget(2 * cost)
    deflate = Deflate(budget=budget)

    def connect(offers: str = "permessage-deflate; client_max_window_bits") -> tuple[Extension, PerMessageDeflate]:
        chosen = accept(deflate, parse(offers))
        assert chosen is not None
        return chosen

    connections = [connect() for _ in range(3)]
    assert budget.used == 2 * cost
    assert repr(budget) == f"<DeflateBudget {2 * cost} of {2 * cost} bytes used>"
    full = "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12"
    bare = full.replace(";", "; server_no_context_takeover; client_no_context_takeover;", 1)
    assert [text(c[0]) for c in connections] == [full, full, bare]
    for _, connection in connections:
        connection.decompress(connection.compress(message(1)), True, -1)
    assert [c[1].memory for c in connections] == [cost, cost, 0]
    # What needs nothing gets it.
    nothing = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    assert connect(nothing)[1].parameters.memory == 0
    connections[2][1].close()
    assert budget.used == 2 * cost
    for _ in range(2):
        connections[0][1].close()
        assert budget.used == cost
        assert connections[0][1].memory == 0
    assert text(connect("permessage-deflate; client_max_window_bits")[0]) == full  # and forgotten at once
    gc.collect()
    assert budget.used == cost
    connections.clear()
    gc.collect()
    assert budget.used == 0


def test_budget_of_a_client() -> None:
    # A client can not ask the server any more, but keeps no context of its own. What it must keep counts if it fits.
    need = confirm(Deflate(), parse("permessage-deflate"))
    assert need is not None
    cost = need.parameters.memory
    inflater = need.parameters.inflate.decompress_memory(15)
    for nbytes, takeover, used in ((cost, True, cost), (cost - 1, False, inflater), (inflater - 1, False, 0)):
        budget = DeflateBudget(nbytes)
        deflate = confirm(Deflate(budget=budget), parse("permessage-deflate"))
        assert deflate is not None
        assert (deflate.parameters.takeover, deflate.parameters.peer_takeover) == (takeover, True)
        assert budget.used == used
        deflate.close()
        assert budget.used == 0


def test_budget_is_checked() -> None:
    with pytest.raises(ValueError, match="nbytes must be at least 0, got -1"):
        DeflateBudget(-1)
    budget = DeflateBudget(0)
    assert budget.reserve(0)
    assert not budget.reserve(1)


# Broadcasting


def test_broadcast() -> None:
    classes = {
        (takeover, bits): [(make(takeover, bits=bits), make(peer_takeover=takeover, peer_bits=bits)) for _ in range(5)]
        for takeover in (True, False)
        for bits in (9, 15)
    }
    everybody = [pair for pairs in classes.values() for pair in pairs]
    for turn in range(5):
        compressed: dict[Any, bytes] = {}
        payload = message(turn)
        for sender, receiver in everybody:
            key = sender.shared_key
            if key not in compressed:
                compressed[key] = key.compress(payload)
            sender.note_shared()
            assert receiver.decompress(compressed[key], True, len(payload)) == payload
        assert len(compressed) == 2  # by window; takeover makes no difference
        for i, (sender, receiver) in enumerate(everybody):
            own = message(turn * 100 + i)
            assert receiver.decompress(sender.compress(own), True, len(own)) == own


def test_broadcast_without_note_would_break() -> None:
    # What note_shared is for: distances into a window that the peer does not have.
    sender, receiver = make(), make()
    receiver.decompress(sender.compress(message(1)), True, -1)
    receiver.decompress(sender.shared_key.compress(message(2)), True, -1)
    with contextlib.suppress(InvalidPayload):
        assert receiver.decompress(sender.compress(message(1)), True, -1) != message(1)
