"""A plugin of pytest, for uvicorn's own tests: they get wsfast's class where they ask for uvicorn's.

What the suite reads of an implementation's insides, `Adapted` has too. Cases that expect something else than wsfast
does are named in `DIFFERENT`, each with its reason, and must fail.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
import uvicorn.protocols.websockets.websockets_sansio_impl as stock

from wsfast.connection import State
from wsfast.uvicorn import Protocol

DIFFERENT = {
    "test_duplicate_handshake": "an application that raises closes with 1011, not with 1006",
    "test_asgi_return_value": "an application that returns a value closes with 1011, not with 1006",
    "test_close_transport_on_asgi_return": "an application that returns closes with 1000, not with 1006",
    "test_close_resumes_reads_paused_on_an_unconsumed_message": (
        "reading is paused at read_limit, not at one message: the peer's pongs and its close are seen"
    ),
    "test_close_gives_up_when_the_peer_never_replies": "close_timeout is kept by a coarse timer, and is not 0",
    "test_shutdown_while_the_close_reply_is_pending": "a stop waits up to 2 s for the peer's Close frame",
    "test_frame_after_close_handshake_is_ignored": "the frame is ignored; then the test asks a transport that has gone",
}
"""Tests that expect what wsfast does otherwise. `tests/test_uvicorn.py` has a test of what it does."""

UNSTEADY = {
    "test_send_binary_data_to_server_bigger_than_default_on_websockets": (
        "wsfast reads on after its Close frame, so that the client can finish; asyncio's abort() of a transport that "
        "has closed after its buffer was written raises AttributeError in the client"
    ),
}
"""Tests that fail for a reason outside wsfast, and not always."""

NOT_ON_UVLOOP = {
    "test_server_keepalive_ping_timeout": "it replaces a method of the client's transport, which uvloop does not let it"
}
"""Tests that fail on uvloop for a reason outside wsfast."""


class Adapted(Protocol):
    """wsfast's class with the attributes by which the suite looks into an implementation."""

    close_timeout = 10.0

    @property
    def close_timer(self) -> object | None:
        """Something while the peer's Close frame is awaited."""
        opened = self.opening is None and self.transport is not None
        return self if opened and self.connection.state is State.CLOSING else None

    @property
    def ping_sent_at(self) -> float:
        """Not 0 once a ping was sent."""
        return float(self.session.pings_sent)

    @property
    def ping_timer(self) -> object | None:
        """None if there is no keepalive."""
        return self.host.limits.ping_interval


class Completed:
    """The methods of an asyncio transport that the suite's own lacks, since uvicorn's classes do without them."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return False

    def is_reading(self) -> bool:
        return not self.reading_paused  # type: ignore[attr-defined]

    def abort(self) -> None:
        self.close()  # type: ignore[attr-defined]


def pytest_configure(config: pytest.Config) -> None:
    stock.WebSocketsSansIOProtocol = Adapted  # type: ignore[misc,assignment]
    if os.environ["WSFAST_SUITE_LOOP"] == "uvloop":
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())


def pytest_collection_modifyitems(config: pytest.Config, items: list[Any]) -> None:
    kept = [item for item in items if "wsproto" not in str(item.callspec.params.get("ws_protocol_cls"))]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept
    for item in items:
        transport = item.module.MockWriteTransport
        for name, method in vars(Completed).items():
            if not name.startswith("__"):
                setattr(transport, name, method)
        name = item.originalname
        if name in DIFFERENT:
            item.add_marker(pytest.mark.xfail(reason=DIFFERENT[name], strict=True))
        elif name in NOT_ON_UVLOOP and os.environ["WSFAST_SUITE_LOOP"] == "uvloop":
            item.add_marker(pytest.mark.xfail(reason=NOT_ON_UVLOOP[name], strict=True))
        elif name in UNSTEADY and "sent=defaults+1" in item.name:
            item.add_marker(pytest.mark.xfail(reason=UNSTEADY[name], strict=False))
