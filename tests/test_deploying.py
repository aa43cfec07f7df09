"""The proxies of docs/deploying.md and the tutorial, configured as the pages say but for ports and certificates."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from certificates import Certificates, make_certificates
from engines import free_port
from hostile import serving

import wsfast

DOCS = Path(__file__).parent.parent / "docs"
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("anyio_backend", ["asyncio"]),  # what a proxy passes on is the same on every loop
    pytest.mark.skipif(
        sys.platform != "linux", reason="the client has an address of its own, 127.0.0.2, which Linux has"
    ),
]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def program(name: str) -> str | None:
    return shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")


def block(language: str, page: str) -> str:
    """Return the only block of a page in this language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    return str(found)


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    """Replace what must be there."""
    for old, new in pairs:
        assert old in text, f"{old!r} is not on the page"
        text = text.replace(old, new)
    return text


def nginx(page: str) -> Callable[[Path, int, int, str], list[str]]:
    def configure(home: Path, port: int, backend: int, pem: str) -> list[str]:
        text = re.sub(r"(ssl_certificate(?:_key)?) +\S+;", rf"\1 {pem};", block("nginx", page))
        text = replaced(
            text, ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"), ("127.0.0.1:8765", f"127.0.0.1:{backend}")
        )
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "\n".join(f"{kind}_temp_path {home}/{kind};" for kind in kinds)
        (home / "nginx.conf").write_text(
            f"daemon off; master_process off; pid {home}/pid; error_log stderr;\nevents {{ }}\n"
            f"http {{\naccess_log off;\n{paths}\n{text}}}\n"
        )
        return ["-p", str(home), "-c", str(home / "nginx.conf"), "-e", "stderr"]

    return configure


def haproxy(home: Path, port: int, backend: int, pem: str) -> list[str]:
    text = replaced(
        block("haproxy", "deploying.md"),
        ("bind :443 ssl crt /etc/ssl/chat.pem", f"bind 127.0.0.1:{port} ssl crt {pem}"),
        ("127.0.0.1:8765", f"127.0.0.1:{backend}"),
    )
    (home / "haproxy.cfg").write_text(text)
    return ["-db", "-q", "-f", str(home / "haproxy.cfg")]


def caddy(home: Path, port: int, backend: int, pem: str) -> list[str]:
    text = replaced(
        block("caddy", "deploying.md"),
        ("chat.example.com {", f"https://localhost:{port} {{\n    tls {pem} {pem}"),
        ("127.0.0.1:8765", f"127.0.0.1:{backend}"),
    )
    (home / "Caddyfile").write_text("{\n    admin off\n    auto_https disable_redirects\n}\n" + text)
    return ["run", "--adapter", "caddyfile", "--config", str(home / "Caddyfile")]


def apache(home: Path, port: int, backend: int, pem: str) -> list[str]:
    text = re.sub(r"(SSLCertificate(?:Key)?File) +\S+", rf"\1 {pem}", block("apache", "deploying.md"))
    text = replaced(
        text, ("<VirtualHost *:443>", f"<VirtualHost *:{port}>"), ("127.0.0.1:8765", f"127.0.0.1:{backend}")
    )
    modules = ("mpm_event", "authz_core", "socache_shmcb", "ssl", "proxy", "proxy_http")
    load = "\n".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so" for name in modules)
    (home / "httpd.conf").write_text(
        f"ServerRoot {home}\nPidFile {home}/pid\nErrorLog /dev/stderr\nMutex file:{home}\nServerName localhost\n"
        f"Listen 127.0.0.1:{port} https\n{load}\n{text}"
    )
    return ["-DFOREGROUND", "-f", str(home / "httpd.conf")]


@contextlib.asynccontextmanager
async def running(
    name: str, arguments: list[str], home: Path, port: int, context: ssl.SSLContext
) -> AsyncIterator[None]:
    """Run a proxy, from when it answers until the block ends."""
    environment = {
        "HOME": str(home),
        "XDG_DATA_HOME": str(home),
        "XDG_CONFIG_HOME": str(home),
        "PATH": "/usr/sbin:/usr/bin:/bin",
    }
    with (home / "said").open("wb") as said:
        process = await asyncio.create_subprocess_exec(
            program(name) or name,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env=environment,
        )
        try:
            async with asyncio.timeout(30):
                while True:
                    try:
                        _, writer = await asyncio.open_connection("localhost", port, ssl=context)
                    except OSError:
                        assert process.returncode is None, (home / "said").read_text()
                        await asyncio.sleep(0.02)
                    else:
                        writer.close()
                        break
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


PROXIES: dict[str, tuple[str, Callable[[Path, int, int, str], list[str]]]] = {
    "nginx": ("nginx", nginx("deploying.md")),
    "nginx of the tutorial": ("nginx", nginx("tutorial/4-deploy.md")),
    "haproxy": ("haproxy", haproxy),
    "caddy": ("caddy", caddy),
    "apache": ("apache2", apache),
}


@pytest.mark.parametrize("proxy", PROXIES)
async def test_a_proxy_as_the_page_configures_it(proxy: str, tmp_path: Path, certificates: Certificates) -> None:
    name, configure = PROXIES[proxy]
    if program(name) is None:
        pytest.skip(f"needs {name}")

    def health(ws: wsfast.WebSocket, request: wsfast.Request) -> wsfast.Response | None:
        return ws.respond(200, "OK\n") if request.path == "/healthz" else None

    async def tell(ws: wsfast.WebSocket) -> None:
        assert ws.request is not None
        await ws.send(f"{ws.remote_address[0]} {ws.request.path} {ws.request.headers['Host'].partition(':')[0]}")
        async for message in ws:
            if message == "close":
                await ws.close(4001, "enough")
            else:
                await ws.send(message)

    context = certificates.client_context()
    async with serving(
        {None: tell, "chat.v2": tell},
        process_request=health,
        forwarded=["127.0.0.1"],
        max_size=2**21,
        origins=["https://a.example", None],
    ) as server:
        port = free_port()
        arguments = configure(tmp_path, port, server.sockets[0].getsockname()[1], str(certificates.server))
        options: dict[str, Any] = {"ssl": context, "local_addr": ("127.0.0.2", 0), "max_size": 2**21}
        async with running(name, arguments, tmp_path, port, context), asyncio.timeout(60):
            uri = f"wss://localhost:{port}/rooms/1?name=Ad%61"
            async with wsfast.connect(uri, subprotocols=["chat.v2"], origin="https://a.example", **options) as ws:
                assert await ws.recv() == "127.0.0.2 /rooms/1?name=Ad%61 localhost"
                assert ws.subprotocol == "chat.v2"
                for message in ("text", b"\x00binary", "x" * 2**20, ""):
                    await ws.send(message)
                    assert await ws.recv() == message
                await (await ws.ping())
                await ws.send("close")
                await ws.wait_closed()
                assert (ws.close_code, ws.close_reason) == (4001, "enough")
            with pytest.raises(wsfast.InvalidStatus) as refused:
                await wsfast.connect(uri, origin="https://evil.example", **options)
            assert refused.value.response.status_code == 403
            reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"OK\n" in answer
            writer.close()
