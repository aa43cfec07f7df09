"""What comes from a bus is not trusted: whatever it is, it is taken in or refused, and nothing else happens."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wsfast.topics.envelope import CONTROL, BadEnvelope, Sealer
from wsfast.topics.numbers import Incoming
from wsfast.topics.presence import Presence

QUICK = settings(max_examples=80, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["a", "t", 1, 2]),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=12,
)
"""What JSON can express, with some that fits."""


@QUICK
@given(st.binary(max_size=60), st.booleans())
def test_any_bytes(data: bytes, ours: bool) -> None:
    sealer = Sealer(max_size=40)
    if ours:
        data = b"\x01" + data[1:]
    for read in (lambda: sealer.open("t", data), lambda: sealer.open_control(data)):
        with contextlib.suppress(BadEnvelope):
            read()


@QUICK
@given(st.integers(0, 80), st.integers(1, 255), st.booleans(), st.sampled_from([None, "k", "\xe9" * 100]))
def test_a_byte_that_was_changed(place: int, change: int, text: bool, key: str | None) -> None:
    """With a key nothing that was changed is taken."""
    sealer = Sealer(key=b"secret")
    data = bytearray(sealer.seal("t", 5, 7, b"payload", text=text, first=True, key=key))
    assert sealer.open("t", bytes(data)).payload == b"payload"
    with pytest.raises(BadEnvelope):
        sealer.open("u", bytes(data))  # of another topic
    data[place % len(data)] ^= change
    with pytest.raises(BadEnvelope):
        sealer.open("t", bytes(data))
    with pytest.raises(BadEnvelope):
        sealer.open("t", bytes(data[:place]))


@QUICK
@given(st.dictionaries(st.sampled_from(["presence", "all", "part", "parts", "changes"]), values), values)
def test_any_presence(content: dict[str, Any], version: Any) -> None:
    content.setdefault("presence", version)
    presence = Presence(1)
    presence.come("a", "mine", None)
    before = presence.present("a")
    with contextlib.suppress(ValueError):
        presence.take_in(2, content)
    presence.forget(2)
    assert presence.present("a") == before  # whatever another process says
    json.dumps(presence.all(), allow_nan=False).encode()


@QUICK
@given(st.lists(values, max_size=4), st.integers(0, 3))
def test_any_tail(entries: list[Any], number: int) -> None:
    incoming = Incoming(9)
    incoming.join("t", 0.0)
    with contextlib.suppress(ValueError):
        incoming.tail(2, number, entries, 5.0)
    for gap in incoming.check(10.0):
        assert gap.topic == "t"


def test_names_that_are_none() -> None:
    """Presence is told of topics and connections by others: what could not be sent on is refused."""
    presence = Presence(1)
    for entry in (["\ud800", "id", None], ["a", "\ud800", None], ["a", "id", "\ud800"], ["a b", "id", None]):
        for content in ({"presence": 1, "changes": [entry]}, {"presence": 1, "all": [entry], "part": 0, "parts": 1}):
            with pytest.raises(ValueError, match="an entry of a presence"):
                presence.take_in(2, content)
    for entry in (["a", "x" * 101, None], ["a", "id", "x" * 1025], ["a" * 201, "id", None]):
        with pytest.raises(ValueError, match="an entry of a presence"):
            presence.take_in(2, {"presence": 1, "changes": [entry]})


def test_control_that_nests_deeply() -> None:
    sealer = Sealer()
    head = sealer.seal_control(1, {})[:-2]
    for body in (b"[" * 100_000, b'{"a":' * 100_000, b'{"presence":' + b"9" * 10_000 + b"}", b'{"at": NaN}'):
        try:
            _, content = sealer.open_control(head + body)
        except BadEnvelope:
            continue
        assert content == {"at": pytest.approx(float("nan"), nan_ok=True)}
    assert CONTROL == "!"
