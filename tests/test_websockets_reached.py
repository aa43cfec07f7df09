"""What programs reach for in websockets beyond its documented names: the same on `wsfast.websockets`.

Each test does the same with both, and compares what it saw.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import logging
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

import pytest
import trio

pytestmark = pytest.mark.anyio

BOTH = "websockets", "wsfast.websockets"
Library = Callable[[str], Any]
"""Imports a module of one of the two."""


def uri_of(server: Any) -> str:
    return f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def echo(ws: Any) -> None:
    async for message in ws:
        await ws.send(message)


@contextlib.contextmanager
def capturing() -> Iterator[list[str]]:
    """Gather what the loggers of websockets are told."""
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger, handler = logging.getLogger("websockets"), Handler()
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)


async def same(scenario: Callable[[Library], Awaitable[Any]]) -> Any:
    """Run a scenario with both, and return what it saw, which must be the same."""
    seen = []
    for base in BOTH:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            async with asyncio.timeout(20):
                seen.append(await scenario(lambda name, base=base: importlib.import_module(f"{base}.{name}")))  # type: ignore[misc]
    assert seen[1] == seen[0]
    return seen[1]


# --- Classes of a program's own --------------------------------------------------------------------------------------


async def test_the_old_classes_are_made_with_the_arguments_of_serve_and_connect() -> None:
    async def scenario(library: Library) -> Any:
        server, client = library("legacy.server"), library("legacy.client")
        seen: list[Any] = []

        class Served(server.WebSocketServerProtocol):  # type: ignore[misc, name-defined]
            def __init__(self, extra: str, *args: Any, **kwargs: Any) -> None:
                seen.append((extra, len(args), sorted(kwargs)))
                super().__init__(*args, **{**kwargs, "max_size": 2**26})

        class Connected(client.WebSocketClientProtocol):  # type: ignore[misc, name-defined]
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                seen.append((args, sorted(kwargs)))
                super().__init__(*args, **{**kwargs, "max_size": 2**26})

        async with (
            server.serve(echo, "127.0.0.1", 0, create_protocol=functools.partial(Served, "x")) as listening,
            client.connect(uri_of(listening), create_protocol=Connected) as ws,
        ):
            await ws.send("a" * 2_000_000)
            seen.append(len(await ws.recv()))
            seen.append((ws.max_size, ws.extra_headers, ws.available_subprotocols, ws.side, ws.is_client))
        return sorted(seen, key=str)

    await same(scenario)


async def test_a_smaller_max_size_of_an_old_class_counts() -> None:
    async def scenario(library: Library) -> Any:
        server, client, exceptions = library("legacy.server"), library("legacy.client"), library("exceptions")

        class Served(server.WebSocketServerProtocol):  # type: ignore[misc, name-defined]
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **{**kwargs, "max_size": 10})

        async def handler(ws: Any) -> None:
            with pytest.raises(exceptions.ConnectionClosed):
                await ws.recv()

        async with (
            server.serve(handler, "127.0.0.1", 0, create_protocol=Served) as listening,
            client.connect(uri_of(listening)) as ws,
        ):
            await ws.send("a" * 20)
            await ws.wait_closed()
            return ws.close_code

    assert await same(scenario) == 1009


async def test_old_classes_by_themselves() -> None:
    async def scenario(library: Library) -> Any:
        made = [
            library("legacy.client").WebSocketClientProtocol(),
            library("legacy.protocol").WebSocketCommonProtocol(ping_interval=None),
        ]
        return [(ws.open, ws.closed, int(ws.state), ws.close_code, ws.max_size, ws.ping_interval) for ws in made]

    await same(scenario)


async def test_own_times_of_a_class() -> None:
    """The class of a connection may change what `connect` passes to it: here it is the one that pings."""

    async def scenario(library: Library) -> Any:
        server, client = library("asyncio.server"), library("asyncio.client")

        class Own(client.ClientConnection):  # type: ignore[misc, name-defined]
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **{**kwargs, "ping_interval": 0.05, "close_timeout": 3})

        async with (
            server.serve(echo, "127.0.0.1", 0, ping_interval=None) as listening,
            client.connect(uri_of(listening), ping_interval=None, create_connection=Own) as ws,
        ):
            while not ws.latency:
                await asyncio.sleep(0.01)
            return ws.ping_interval, ws.close_timeout

    assert await same(scenario) == (0.05, 3)


async def test_callbacks_of_asyncio_that_classes_override() -> None:
    async def scenario(library: Library) -> Any:
        server, client = library("asyncio.server"), library("asyncio.client")
        seen: list[Any] = []
        ended = asyncio.Event()

        def noting(base: Any, side: str) -> Any:
            class Noting(base):  # type: ignore[misc]
                def connection_made(self, transport: Any) -> None:
                    seen.append((side, transport.get_extra_info("peername")[0]))
                    super().connection_made(transport)

                def connection_lost(self, exc: Exception | None) -> None:
                    super().connection_lost(exc)
                    seen.append((side, exc, self.state.name))
                    if len(seen) == 4:
                        ended.set()

            return Noting

        served, connected = noting(server.ServerConnection, "server"), noting(client.ClientConnection, "client")
        async with server.serve(echo, "127.0.0.1", 0, create_connection=served) as listening:
            async with client.connect(uri_of(listening), create_connection=connected) as ws:
                await ws.send("a")
                assert await ws.recv() == "a"
            await ended.wait()
        return sorted(seen, key=str)

    await same(scenario)


async def test_callbacks_of_asyncio_that_old_classes_override() -> None:
    async def scenario(library: Library) -> Any:
        server, client = library("legacy.server"), library("legacy.client")
        seen: list[Any] = []
        ended = asyncio.Event()

        class Noting(server.WebSocketServerProtocol):  # type: ignore[misc, name-defined]
            def connection_made(self, transport: Any) -> None:
                seen.append(transport.get_extra_info("peername")[0])
                super().connection_made(transport)

            def connection_open(self) -> None:
                super().connection_open()
                seen.append(self.open)

            def connection_lost(self, exc: Exception | None) -> None:
                super().connection_lost(exc)
                seen.append(self.closed)
                ended.set()

        async with server.serve(echo, "127.0.0.1", 0, create_protocol=Noting) as listening:
            async with client.connect(uri_of(listening)) as ws:
                await ws.send("a")
                assert await ws.recv() == "a"
            await ended.wait()
        return seen

    assert await same(scenario) == ["127.0.0.1", True, True]


async def test_a_class_that_checks_passwords() -> None:
    async def scenario(library: Library) -> Any:
        server, client, auth = library("legacy.server"), library("legacy.client"), library("legacy.auth")
        exceptions = library("legacy.exceptions")

        class Own(auth.BasicAuthWebSocketServerProtocol):  # type: ignore[misc, name-defined]
            realm = "of the class"

            async def check_credentials(self, username: str, password: str) -> bool:
                self.asked = username
                return (username, password) == ("u", "p")

        async def handler(ws: Any) -> None:
            await ws.send(f"{ws.username} {getattr(ws, 'asked', None)}")

        async def known(username: str, password: str) -> bool:
            return password == "p"

        made = auth.basic_auth_protocol_factory
        seen: list[Any] = []
        for protocol in (
            Own,
            functools.partial(Own, realm="given"),
            made("r", ("u", "p")),
            made(credentials=[("u", "p"), ("v", "q")]),
            made(check_credentials=known),
            made(credentials=("v", "q"), create_protocol=Own),
        ):
            async with server.serve(handler, "127.0.0.1", 0, create_protocol=protocol) as listening:
                uri = uri_of(listening)
                async with client.connect(uri.replace("//", "//u:p@")) as ws:
                    seen.append(await ws.recv())
                for headers in ({}, {"Authorization": "Digest x"}, {"Authorization": "Basic dTpx"}):
                    with pytest.raises(exceptions.InvalidStatusCode) as caught:
                        await client.connect(uri, extra_headers=headers)
                    answer = caught.value.headers
                    seen.append((caught.value.status_code, answer["WWW-Authenticate"], answer["Content-Length"]))
        for arguments in ({}, {"credentials": ("u", "p"), "check_credentials": known}, {"credentials": 1}):
            with pytest.raises(TypeError):
                made(**arguments)
        return seen

    await same(scenario)


async def test_an_old_answer_has_the_headers_that_the_hook_gives() -> None:
    async def scenario(library: Library) -> Any:
        server, client = library("legacy.server"), library("legacy.client")
        exceptions = library("legacy.exceptions")

        async def page(path: str, headers: Any) -> Any:
            return 200, [("Content-Type", "text/html"), ("X-A", "1"), ("X-A", "2"), ("Connection", "close")], b"<p>"

        async with server.serve(echo, "127.0.0.1", 0, process_request=page) as listening:
            with pytest.raises(exceptions.InvalidStatusCode) as caught:
                await client.connect(uri_of(listening))
            names = ("Content-Type", "X-A", "Connection", "Content-Length", "Date", "Server")
            headers = caught.value.headers
            return {name: len(headers.get_all(name)) for name in names}, headers["Content-Type"]

    assert (await same(scenario))[1] == "text/html"


# --- Attributes -------------------------------------------------------------------------------------------------------


async def test_what_old_connections_tell_of_their_server_and_their_task() -> None:
    async def scenario(library: Library) -> Any:
        server, client = library("legacy.server"), library("legacy.client")
        seen: list[Any] = []

        async def handler(ws: Any) -> None:
            seen.append(ws.ws_server.websockets == {ws})
            seen.append(ws.handler_task is asyncio.current_task())
            await echo(ws)

        starting = server.serve(handler, "127.0.0.1", 0)
        listening = await starting
        seen.append((starting.ws_server is listening, listening.websockets))
        connecting = client.connect(uri_of(listening))
        async with connecting as ws:
            await ws.send("a")
            assert await ws.recv() == "a"
            seen.append(connecting.protocol is ws)
        seen.append((listening.server.is_serving(), len(listening.server.sockets)))
        listening.close()
        await listening.wait_closed()
        return seen

    await same(scenario)


@pytest.mark.parametrize("face", ["asyncio", "legacy"])
async def test_attributes_that_programs_set(face: str) -> None:
    """A name of wsfast's own is no obstacle to a program that keeps something of its own under it."""

    async def scenario(library: Library) -> Any:
        server, client = library(f"{face}.server"), library(f"{face}.client")
        names = {"id", "topics", "counters", "subscribe", "username", "path", "name"}
        fixed = {"remote_address", "close_code"}
        async with (
            server.serve(echo, "127.0.0.1", 0) as listening,
            client.connect(uri_of(listening)) as ws,
        ):
            refused = set()
            for name in names | fixed:
                try:
                    setattr(ws, name, name)
                except AttributeError:
                    refused.add(name)
            await ws.send("still open")
            return refused, [getattr(ws, name) for name in sorted(names)], await ws.recv()

    await same(scenario)


def test_attributes_that_programs_set_in_threads() -> None:
    def scenario(base: str) -> Any:
        server, client = (importlib.import_module(f"{base}.sync.{side}") for side in ("server", "client"))

        def handler(ws: Any) -> None:
            ws.id = ws.topics = ws.counters = "mine"
            for message in ws:
                ws.send(f"{message} {ws.id} {ws.topics} {ws.counters}")

        with server.serve(handler, "127.0.0.1", 0) as listening:
            thread = threading.Thread(target=listening.serve_forever)
            thread.start()
            with client.connect(f"ws://127.0.0.1:{listening.socket.getsockname()[1]}", legacy=True) as ws:
                ws.send("a")
                answer = ws.recv(timeout=10)
            listening.shutdown()
            thread.join()
        return answer

    assert scenario(BOTH[0]) == scenario(BOTH[1]) == "a mine mine mine"


async def test_ensure_open() -> None:
    async def scenario(library: Library) -> Any:
        server, client, exceptions = library("legacy.server"), library("legacy.client"), library("exceptions")
        async with server.serve(echo, "127.0.0.1", 0) as listening:
            ws = await client.connect(uri_of(listening))
            await ws.ensure_open()
            await ws.close(3000, "done")
            with pytest.raises(exceptions.ConnectionClosed) as caught:
                await ws.ensure_open()
        with pytest.raises(exceptions.InvalidState) as early:
            await client.WebSocketClientProtocol().ensure_open()
        ends = str(caught.value), str(ws.connection_closed_exc()), str(early.value)
        closes = [(close.code, close.reason) for close in (ws.close_rcvd, ws.close_sent)]
        return *ends, *closes, ws.close_rcvd_then_sent

    await same(scenario)


@pytest.mark.parametrize("face", ["asyncio", "legacy"])
async def test_futures_of_the_end(face: str) -> None:
    async def scenario(library: Library) -> Any:
        server, client = library(f"{face}.server"), library(f"{face}.client")
        async with server.serve(echo, "127.0.0.1", 0) as listening:
            ws = await client.connect(uri_of(listening))
            told = asyncio.Event()
            ws.connection_lost_waiter.add_done_callback(lambda _: told.set())
            futures = [ws.connection_lost_waiter]
            if face == "legacy":
                futures += [ws.transfer_data_task, ws.close_connection_task]
            before = [future.done() for future in futures]
            await ws.close()
            await told.wait()
            await asyncio.wait(futures)
            ended = await client.connect(uri_of(listening))
            await ended.close()
            return before, ended.connection_lost_waiter.done()

    await same(scenario)


async def test_an_old_connection_that_is_dropped() -> None:
    async def scenario(library: Library) -> Any:
        server, client, exceptions = library("legacy.server"), library("legacy.client"), library("exceptions")
        ended = asyncio.Event()

        async def handler(ws: Any) -> None:
            with pytest.raises(exceptions.ConnectionClosed):
                await ws.recv()
            ended.set()

        async with server.serve(handler, "127.0.0.1", 0) as listening:
            ws = await client.connect(uri_of(listening))
            ws.fail_connection()
            await ws.close_connection()
            await ended.wait()
            return ws.close_code, ws.closed

    assert await same(scenario) == (1006, True)


async def test_how_much_waits_to_be_received() -> None:
    async def scenario(library: Library) -> Any:
        seen: list[Any] = []

        async def handler(ws: Any) -> None:
            for number in range(3):
                await ws.send(str(number))
            await ws.wait_closed()

        for face in ("asyncio", "legacy"):
            server, client = library(f"{face}.server"), library(f"{face}.client")
            async with (
                server.serve(handler, "127.0.0.1", 0) as listening,
                client.connect(uri_of(listening)) as ws,
            ):
                for left in (3, 2, 1, 0):
                    while len(ws.messages if face == "legacy" else ws.recv_messages.frames) != left:
                        await asyncio.sleep(0)
                    seen.append(face == "legacy" or ws.recv_messages.paused)
                    if left:
                        seen.append(await ws.recv())
        return seen

    await same(scenario)


async def test_a_full_queue_is_paused() -> None:
    async def scenario(library: Library) -> Any:
        server, client = library("asyncio.server"), library("asyncio.client")

        async def handler(ws: Any) -> None:
            for _ in range(100):
                await ws.send("x" * 1000)
            await ws.wait_closed()

        async with (
            server.serve(handler, "127.0.0.1", 0, compression=None) as listening,
            client.connect(uri_of(listening), max_queue=4, compression=None) as ws,
        ):
            while not ws.recv_messages.paused:
                await asyncio.sleep(0)
            assert len(ws.recv_messages.frames) >= 4
            assert (ws.recv_messages.high, ws.recv_messages.low) == (4, 1)
            return {len(await ws.recv()) for _ in range(100)}, len(ws.recv_messages.frames)

    assert await same(scenario) == ({1000}, 0)


@pytest.mark.parametrize("face", ["asyncio", "legacy"])
async def test_the_transport_is_there_after_the_end(face: str) -> None:
    async def scenario(library: Library) -> Any:
        server, client = library(f"{face}.server"), library(f"{face}.client")
        seen: list[Any] = []
        ended = asyncio.Event()

        async def handler(ws: Any) -> None:
            await ws.wait_closed()
            seen.append(ws.transport.is_closing())
            seen.append(ws.transport.get_extra_info("peername") == ws.remote_address)
            ended.set()

        async with server.serve(handler, "127.0.0.1", 0) as listening:
            async with client.connect(uri_of(listening)) as ws:
                pass
            await ended.wait()
            seen.append((ws.transport.is_closing(), ws.transport.get_extra_info("peername") == ws.remote_address))
        return seen

    await same(scenario)


async def test_the_old_broadcast_takes_its_arguments_by_position() -> None:
    async def scenario(library: Library) -> Any:
        server, client, protocol = library("legacy.server"), library("legacy.client"), library("legacy.protocol")

        async def handler(ws: Any) -> None:
            protocol.broadcast({ws}, "a", True)
            server.broadcast(websockets=[ws], message="b")
            await ws.wait_closed()

        async with (
            server.serve(handler, "127.0.0.1", 0) as listening,
            client.connect(uri_of(listening)) as ws,
        ):
            return [await ws.recv(), await ws.recv()]

    assert await same(scenario) == ["a", "b"]


async def test_the_old_connect_closes_in_order_when_its_block_raises() -> None:
    async def scenario(library: Library) -> Any:
        server, client = library("legacy.server"), library("legacy.client")
        codes: asyncio.Queue[Any] = asyncio.Queue()

        async def handler(ws: Any) -> None:
            await ws.wait_closed()
            codes.put_nowait(ws.close_code)

        async with server.serve(handler, "127.0.0.1", 0) as listening:
            with pytest.raises(KeyError):
                async with client.connect(uri_of(listening)):
                    raise KeyError
            return await codes.get()

    assert await same(scenario) == 1000


async def test_delays_of_the_old_connect() -> None:
    async def scenario(library: Library) -> Any:
        client = library("legacy.client")

        class Quick(client.connect):  # type: ignore[misc, name-defined]
            BACKOFF_INITIAL = BACKOFF_MIN = BACKOFF_MAX = 0.01
            BACKOFF_FACTOR = 1

        server = library("legacy.server")
        listening = await server.serve(echo, "127.0.0.1", 0)
        uri = uri_of(listening)
        listening.close()
        await listening.wait_closed()
        tried = asyncio.Event()

        class Twice(Quick):
            tries = 0

            async def __aenter__(self) -> Any:
                Twice.tries += 1
                if Twice.tries == 3:
                    tried.set()
                return await super().__aenter__()

        async def run() -> None:
            async for _ in Twice(uri):
                pass

        task = asyncio.create_task(run())
        await tried.wait()
        task.cancel()
        await asyncio.wait([task])
        known = (client.connect.BACKOFF_INITIAL, client.connect.BACKOFF_MIN, client.connect.BACKOFF_MAX)
        return *known, client.connect.BACKOFF_FACTOR, client.connect.MAX_REDIRECTS_ALLOWED

    await same(scenario)


async def test_old_frames() -> None:
    async def scenario(library: Library) -> Any:
        framing = library("legacy.framing")
        frame = framing.Frame(True, library("frames").Opcode.TEXT, b"a")
        frame.check()
        with pytest.raises(TypeError):
            framing.prepare_data(1)
        return (
            tuple(frame),
            str(frame),
            frame.new_frame.serialize(mask=False),
            framing.prepare_data("a"),
            framing.prepare_data(b"a"),
            framing.prepare_ctrl("a"),
            framing.encode_data(bytearray(b"a")),
            framing.parse_close(b"\x03\xe8bye"),
            framing.serialize_close(1000, "bye"),
        )

    await same(scenario)


# --- What is refused --------------------------------------------------------------------------------------------------

CLOSES = [(1005, ""), (1006, ""), (999, ""), (5000, ""), (1000, "x" * 124), (3000, "\u00e9" * 62), (4000, "fine")]
PAYLOADS = ["x" * 126, b"y" * 126, "\u00e9" * 63, 1, {}, ["x"], "x" * 125]


def refusal(exc: Exception) -> tuple[str, str]:
    return type(exc).__name__, str(exc)


async def refused(calls: Iterable[Callable[[], Awaitable[Any]]]) -> list[Any]:
    """Return what each call raises, None if nothing."""
    seen: list[Any] = []
    for call in calls:
        try:
            await call()
            seen.append(None)
        except Exception as exc:
            seen.append(refusal(exc))
    return seen


async def test_pings_pongs_and_closes_that_are_refused() -> None:
    async def scenario(library: Library) -> Any:
        server, client = library("asyncio.server"), library("asyncio.client")
        async with (
            server.serve(echo, "127.0.0.1", 0) as listening,
            client.connect(uri_of(listening)) as ws,
        ):
            calls = [functools.partial(call, data) for call in (ws.ping, ws.pong) for data in PAYLOADS]
            return await refused([*calls, *(functools.partial(ws.close, *close) for close in CLOSES)])

    seen = await same(scenario)
    assert seen[-2:] == [("ProtocolError", "control frame too long"), None]


def test_pings_pongs_and_closes_that_are_refused_in_threads() -> None:
    def scenario(base: str) -> list[Any]:
        server, client = (importlib.import_module(f"{base}.sync.{side}") for side in ("server", "client"))
        seen: list[Any] = []

        def handler(ws: Any) -> None:
            for _ in ws:
                pass

        with server.serve(handler, "127.0.0.1", 0) as listening:
            thread = threading.Thread(target=listening.serve_forever)
            thread.start()
            with client.connect(f"ws://127.0.0.1:{listening.socket.getsockname()[1]}", legacy=True) as ws:
                calls = [functools.partial(call, data) for call in (ws.ping, ws.pong) for data in PAYLOADS]
                for call in [*calls, *(functools.partial(ws.close, *close) for close in CLOSES)]:
                    try:
                        call()
                        seen.append(None)
                    except Exception as exc:
                        seen.append(refusal(exc))
            listening.shutdown()
            thread.join()
        return seen

    assert scenario(BOTH[1]) == scenario(BOTH[0])


def test_pings_and_pongs_that_are_refused_on_trio() -> None:
    def scenario(base: str) -> Any:
        async def handler(ws: Any) -> None:
            async for _ in ws:
                pass

        async def main() -> list[Any]:
            server, client = (importlib.import_module(f"{base}.trio.{side}") for side in ("server", "client"))
            async with trio.open_nursery() as nursery:
                listening = await nursery.start(functools.partial(server.serve, handler, 0, host="127.0.0.1"))
                port = listening.listeners[0].socket.getsockname()[1]
                async with client.connect(f"ws://127.0.0.1:{port}") as ws:
                    calls = [functools.partial(call, data) for call in (ws.ping, ws.pong) for data in PAYLOADS]
                    seen = await refused(calls)
                await listening.aclose()
                return seen

        return trio.run(main)

    assert scenario(BOTH[1]) == scenario(BOTH[0])


async def test_handlers_that_cannot_be_called() -> None:
    async def scenario(library: Library) -> Any:
        server, client = library("asyncio.server"), library("asyncio.client")

        async def with_path(ws: Any, path: str) -> None: ...

        with capturing() as lines:
            async with (
                server.serve(with_path, "127.0.0.1", 0) as listening,
                client.connect(uri_of(listening)) as ws,
            ):
                await ws.wait_closed()
        return ws.close_code, [line for line in lines if "failed" in line]

    assert (await same(scenario))[1] == ["connection handler failed"]


async def test_the_origin_of_a_connection() -> None:
    async def scenario(library: Library) -> Any:
        server, client = library("asyncio.server"), library("asyncio.client")
        seen: asyncio.Queue[Any] = asyncio.Queue()

        async def handler(ws: Any) -> None:
            seen.put_nowait(ws.protocol.origin)

        async with server.serve(handler, "127.0.0.1", 0) as listening:
            for origin in (None, "http://a.invalid"):
                async with client.connect(uri_of(listening), origin=origin):
                    pass
        return await seen.get(), await seen.get()

    assert await same(scenario) == (None, "http://a.invalid")


# --- Names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("asyncio.client", "Headers Response InvalidStatus ProxyError SecurityError CONNECTING"),
        (
            "asyncio.connection",
            "State OPEN Request Response ConnectionClosed Data Subprotocol Frame",
        ),
        ("asyncio.server", "Request Response Origin InvalidHeader parse_authorization_basic"),
        ("sync.client", "Headers Response InvalidStatus parse_uri"),
        ("sync.connection", "State Data ConnectionClosedOK"),
        ("trio.connection", "State Data ConnectionClosedOK"),
        ("legacy.client", "Headers InvalidHeader parse_uri"),
        ("legacy.protocol", "ConnectionClosedError ConnectionClosedOK State Headers Data"),
        ("legacy.server", "Headers State InvalidOrigin AbortHandshake"),
        ("client", "Headers InvalidUpgrade parse_connection"),
        ("server", "Headers InvalidHeaderValue parse_upgrade"),
        ("extensions.base", "Frame"),
    ],
)
async def test_names_that_programs_import_from_where_they_are_used(module: str, names: str) -> None:
    async def scenario(library: Library) -> Any:
        imported = [getattr(library(module), name) for name in names.split()]
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            library(module).nothing  # noqa: B018
        return [getattr(one, "__name__", str(one)) for one in imported]

    await same(scenario)
