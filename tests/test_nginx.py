"""Keepalive for real: nginx drops connections that were silent for `proxy_read_timeout`, and pings prevent that."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hostile import serving

import wsfast

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("anyio_backend", ["asyncio"]),  # when a ping is due, the session says, for every loop
    pytest.mark.skipif(NGINX is None, reason="needs nginx: apt install nginx-light"),
]

CONFIGURATION = """
daemon off;
master_process off;
pid {directory}/pid;
error_log stderr;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{backend};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_set_header Host $host;
            proxy_read_timeout 3s;
            proxy_buffering off;
        }}
    }}
}}
"""


@contextlib.asynccontextmanager
async def nginx(backend: int, directory: Path) -> AsyncIterator[int]:
    """Run nginx before a server until the block ends; give the port it listens on."""
    assert NGINX is not None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    directory = directory / str(port)
    directory.mkdir()
    file = directory / "nginx.conf"
    file.write_text(CONFIGURATION.format(directory=directory, port=port, backend=backend))
    process = await asyncio.create_subprocess_exec(
        *(NGINX, "-p", str(directory), "-c", str(file), "-e", "stderr"), stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(10):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except ConnectionRefusedError:
                    if process.returncode is not None:
                        raise AssertionError((await process.stderr.read()).decode()) from None
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    break
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.communicate()


async def test_pings_of_either_side_keep_a_connection_open(tmp_path: Path) -> None:
    """At every `ping_interval` of silence, though `ping_timeout` is longer than nginx waits.

    Three connections are silent at the same time: one that nobody pings, which nginx drops after 3 seconds, and one
    that is pinged by the client and by the server each.
    """

    async def wait(ws: wsfast.WebSocket) -> None:
        await ws.wait_closed()

    often: dict[str, Any] = {"ping_interval": 1.0, "ping_timeout": 30.0}
    async with (
        serving(wait, ping_interval=None) as silent,
        serving(wait, **often) as pinging,
        nginx(silent.sockets[0].getsockname()[1], tmp_path) as port,
        nginx(pinging.sockets[0].getsockname()[1], tmp_path) as other,
        wsfast.connect(f"ws://127.0.0.1:{port}/", ping_interval=None) as unpinged,
        wsfast.connect(f"ws://127.0.0.1:{port}/", **often) as client,
        wsfast.connect(f"ws://127.0.0.1:{other}/", ping_interval=None) as served,
    ):
        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(10):
            await unpinged.wait_closed()
        waited = asyncio.get_running_loop().time() - began
        assert 2.5 < waited < 6, waited
        assert unpinged.close_code == 1006
        # The others have been silent for as long; without the second ping, at 2 s, they would end at 4 s.
        await asyncio.sleep(4.7 - waited)
        for ws in (client, served):
            assert ws.state is wsfast.State.OPEN
            async with asyncio.timeout(2):
                await (await ws.ping())
