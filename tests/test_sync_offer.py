"""`wsfast.sync.broadcast` waits for nobody, whatever other threads are about to send on the same connection."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from shared import echo
from sync_helpers import PATIENCE, in_thread, running

import wsfast.sync


def test_a_broadcast_does_not_wait_for_who_has_just_begun_to_send_fragments() -> None:
    """It is the first thing that the iterable sees: nothing is sent yet, and its thread has its turn."""
    failures: list[BaseException] = []
    asked, go_on = threading.Event(), threading.Event()

    def pieces() -> Iterator[str]:
        asked.set()
        assert go_on.wait(PATIENCE)
        yield "fragment"

    def offer(ws: wsfast.sync.WebSocket) -> None:
        try:
            wsfast.sync.broadcast([ws], "to all", raise_exceptions=True)
        except ExceptionGroup as exc:
            failures.extend(exc.exceptions)

    with running(echo) as server, wsfast.sync.connect(server.uri) as ws:
        with ws._gate:  # as by a thread that sends, between its turn and the note of it
            sending = in_thread(lambda: ws.send(pieces()))
            offering = in_thread(lambda: offer(ws))
            offering.join(PATIENCE)
            assert not offering.is_alive()
        assert failures == []
        assert asked.wait(PATIENCE)
        offer(ws)
        assert [type(exc) for exc in failures] == [wsfast.ConcurrencyError]
        go_on.set()
        sending.join(PATIENCE)
        assert [ws.recv(PATIENCE), ws.recv(PATIENCE)] == ["to all", "fragment"]
