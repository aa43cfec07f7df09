"""wss:// on the client's side."""
# ruff: noqa: SIM117 (a block in a block tells what ends first)

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from certificates import Certificates
from client_helpers import nothing_left, url_of
from shared import echo, port_of

import wsfast
from wsfast.dial.route import as_context

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def serving(context: ssl.SSLContext, **options: Any) -> AsyncIterator[wsfast.Server]:
    async with wsfast.serve(echo, "127.0.0.1", 0, ssl=context, **options) as server, nothing_left(port_of(server)):
        yield server


def wss(server: wsfast.Server, host: str = "localhost") -> str:
    return url_of(server, scheme="wss", host=host)


async def test_wss(certs: Certificates) -> None:
    async with serving(certs.server_context()) as server:
        for host in ("localhost", "127.0.0.1", "localhost."):
            # Not every resolver knows localhost with its root.
            address: dict[str, Any] = {"host": "127.0.0.1"} if host.endswith(".") else {}
            async with wsfast.connect(wss(server, host), ssl=certs.client_context(), **address) as ws:
                for message in ("secret", b"x" * 500_000):
                    await ws.send(message)
                    assert await ws.recv() == message
                assert ws.transport is not None
                assert ws.transport.get_extra_info("ssl_object").server_hostname == host.rstrip(".")
            assert ws.close_code == 1000


async def test_certificates_are_verified_by_default(certs: Certificates) -> None:
    async with serving(certs.server_context()) as server:
        for trust in (None, True):
            with pytest.raises(ssl.SSLCertVerificationError, match=r"(?i)verify failed"):
                await wsfast.connect(wss(server), ssl=trust)


async def test_default_context_is_strict() -> None:
    context = as_context(None, "ssl")
    assert context is as_context(True, "ssl")
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


async def test_names_are_verified(certs: Certificates) -> None:
    async with serving(certs.server_context()) as server:
        context = certs.client_context()
        with pytest.raises(ssl.SSLCertVerificationError, match=r"(?i)hostname"):
            await wsfast.connect(wss(server), ssl=context, server_hostname="other.example")
        with pytest.raises(ssl.SSLCertVerificationError):
            await wsfast.connect(wss(server, "other.example"), ssl=context, host="127.0.0.1", port=port_of(server))
        async with wsfast.connect(
            wss(server, "other.example"),
            ssl=context,
            host="127.0.0.1",
            port=port_of(server),
            server_hostname="localhost",
        ) as ws:
            await ws.send("x")
            assert await ws.recv() == "x"


async def test_context_that_does_not_verify(certs: Certificates) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with serving(certs.server_context()) as server:
        async with wsfast.connect(wss(server), ssl=context) as ws:
            await ws.send("x")
            assert await ws.recv() == "x"


async def test_certificate_of_the_client(certs: Certificates) -> None:
    async with serving(certs.server_context(client_required=True)) as server:
        async with wsfast.connect(wss(server), ssl=certs.client_context(certificate=True)) as ws:
            await ws.send("it is me")
            assert await ws.recv() == "it is me"
        # In TLS 1.3 the refusal comes when the client takes the handshake for finished.
        with pytest.raises((OSError, wsfast.InvalidMessage)):
            await wsfast.connect(wss(server), ssl=certs.client_context())


async def test_server_without_tls(certs: Certificates) -> None:
    async with wsfast.serve(echo, "127.0.0.1", 0, open_timeout=1) as server, nothing_left(port_of(server)):
        with pytest.raises(OSError, match=r"(?i)ssl|version|record"):
            await wsfast.connect(wss(server), ssl=certs.client_context())


async def test_server_with_tls_asked_without(certs: Certificates) -> None:
    async with serving(certs.server_context()) as server:
        with pytest.raises(wsfast.InvalidMessage):
            await wsfast.connect(url_of(server), open_timeout=5)


async def test_unix_socket_with_tls(certs: Certificates, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    server = wsfast.Server()
    server.register_handler(None, echo)
    await server.start(path=path, ssl=certs.server_context())
    async with server, wsfast.unix_connect(path, ssl=certs.client_context()) as ws:
        assert ws.request is not None
        assert ws.request.headers["Host"] == "localhost"
        await ws.send("x")
        assert await ws.recv() == "x"


async def test_options_of_asyncio_pass_through(certs: Certificates) -> None:
    async with serving(certs.server_context()) as server:
        async with wsfast.connect(
            wss(server), ssl=certs.client_context(), ssl_handshake_timeout=5, ssl_shutdown_timeout=5
        ) as ws:
            await ws.send("x")
            assert await ws.recv() == "x"
        with pytest.raises(TypeError):
            await wsfast.connect(wss(server), ssl=certs.client_context(), no_such_option=1)  # type: ignore[call-arg]
