"""`wsfast.events`: what a decoder returns besides messages."""

from __future__ import annotations

import pickle

import pytest

from wsfast.events import Close, Fragment, Ping, Pong


@pytest.mark.parametrize(
    ("close", "text"),
    [
        (Close(1000), "1000 (NORMAL_CLOSURE)"),
        (Close(1005), "1005 (NO_STATUS_RCVD)"),
        (Close(1001, "bye"), "1001 (GOING_AWAY) 'bye'"),
        (Close(4000), "4000"),
        (Close(4000, "wegen\r\nß"), "4000 'wegen\\r\\nß'"),
    ],
)
def test_close_reads_as_text(close: Close, text: str) -> None:
    """A peer's reason stands in log lines: it is escaped."""
    assert str(close) == text


def test_events_are_values() -> None:
    assert Ping(b"a") == Ping(b"a")
    assert Close(1000) == Close(1000, "")
    assert Fragment("a", False) != Fragment("a", True)
    for event in (Ping(b"a"), Pong(b"b"), Close(1000, "c"), Fragment("d", True)):
        copy = pickle.loads(pickle.dumps(event))
        assert copy == event
        assert type(copy) is type(event)
