"""The line about connecting again tells why, as far down as it is known."""

from __future__ import annotations

import asyncio
import logging

import pytest
from certificates import Certificates
from shared import echo

import wsfast
import wsfast.sync
from wsfast.dial.reconnect import describe


@pytest.mark.anyio
@pytest.mark.parametrize("client", ["asyncio", "threads"])
async def test_a_missing_client_certificate_shows(
    client: str, certs: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """By TLS 1.3 the alert comes after the client's handshake is done, in the place of the response."""
    caplog.set_level(logging.INFO, "wsfast.client")
    server = wsfast.Server()
    server.register_handler(None, echo)
    async with server:
        await server.start("127.0.0.1", 0, ssl=certs.server_context(client_required=True))
        uri = f"wss://localhost:{server.sockets[0].getsockname()[1]}/"
        options = {"ssl": certs.client_context(), "host": "127.0.0.1", "proxy": None}
        delays = {"process_exception": lambda exc: None, "reconnect_delays": lambda: iter((0.0,))}
        with pytest.raises((OSError, wsfast.InvalidMessage)):
            if client == "asyncio":
                async for _ in wsfast.connect(uri, **options, **delays):  # type: ignore[arg-type]
                    raise AssertionError("the server let it in")
            else:

                def go() -> None:
                    for _ in wsfast.sync.reconnect(uri, **options, **delays):  # type: ignore[arg-type]
                        raise AssertionError("the server let it in")

                await asyncio.to_thread(go)
    (line,) = [record.getMessage() for record in caplog.records if "connecting again" in record.getMessage()]
    assert "CERTIFICATE_REQUIRED" in line.upper().replace(" ", "_")


def test_causes_are_told_once() -> None:
    inner = OSError(104, "Connection reset by peer")
    middle = EOFError("the server ended the connection")
    middle.__cause__ = inner
    outer = wsfast.InvalidMessage("expected an HTTP response, got nothing")
    outer.__cause__ = middle
    assert describe(outer) == (
        "InvalidMessage: expected an HTTP response, got nothing (caused by EOFError: the server ended the connection "
        "(caused by ConnectionResetError: [Errno 104] Connection reset by peer))"
    )
    proxy = wsfast.ProxyError("could not connect: [Errno 104] Connection reset by peer")
    proxy.__cause__ = inner
    assert describe(proxy) == "ProxyError: could not connect: [Errno 104] Connection reset by peer"
