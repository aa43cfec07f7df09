"""Tasks that are resumed by a message: nobody can tell how. Exceptions, contexts, debug mode, nested loops.

With the extensions, on wsfast's own transport or a stock loop's, and a stock event loop, a task that waits in `recv` is
resumed from the transport's callback; else by the loop. What is tested here holds either way.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hostile import head

import wsfast
import wsfast.testing
from wsfast.asgi import BridgeProtocol, Host
from wsfast.session import Limits

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}
ENDS = [SystemExit(5), KeyboardInterrupt()]

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module", autouse=True)
def collected_here() -> Iterator[None]:
    """Loops that were ended leave sockets open: no other file's test is to be told of these."""
    yield
    gc.collect()


async def exchange(handler: Any) -> None:
    """Serve a handler or a listener, and send it messages from a client."""
    server = wsfast.Server(stop_timeout=1)
    if isinstance(handler, type):
        server.register_listener(None, handler)
    else:
        server.register_handler(None, handler)
    async with server:
        await server.start("127.0.0.1", 0)
        async with wsfast.connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/") as ws:
            await ws.send("1")
            await ws.send("2")
            await asyncio.sleep(20)


# --- SystemExit and KeyboardInterrupt end the loop --------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("end", ENDS, ids=["SystemExit", "KeyboardInterrupt"])
@pytest.mark.parametrize("where", ["recv", "iteration", "second message", "after a send", "listener"])
def test_it_ends_the_loop(where: str, end: BaseException, loop: str) -> None:
    async def handler(ws: wsfast.WebSocket) -> None:
        if where == "iteration":
            async for _ in ws:
                raise end
        await ws.recv()
        if where == "second message":
            await ws.recv()
        if where == "after a send":
            await ws.send("answer")
        raise end

    class Listener(wsfast.Listener):
        def on_message(self, message: str | bytes) -> None:
            raise end

    made = LOOPS[loop]()
    try:
        with pytest.raises(type(end)):
            made.run_until_complete(exchange(Listener if where == "listener" else handler))
    finally:
        made.close()


HOOKS = [
    *("process_request", "async process_request", "process_response", "async process_response"),
    *("select_subprotocol", "check_credentials", "async check_credentials"),
    *("factory", "on_open", "on_message", "on_close", "on_writable", "task of a handler", "stream handler"),
    *("authorize", "encode", "on_presence", "iterable", "async iterable"),
    "client: process_exception",
]


async def meet(hook: str, raising: Callable[..., Any]) -> None:
    """Serve, and connect, so that a hook is called."""

    async def raising_later(*args: Any) -> None:
        await asyncio.sleep(0)
        raising()

    class Listener(wsfast.Listener):
        def on_message(self, message: str | bytes) -> None:
            self.ws.send_nowait(b"x" * 16_000_000)
            if hook == "on_close":
                self.ws.close_nowait()

    if hook.startswith("on_") and hook != "on_presence":
        setattr(Listener, hook, raising)

    async def handler(ws: wsfast.WebSocket) -> None:
        if hook == "task of a handler":
            async with asyncio.TaskGroup() as group:
                group.create_task(raising_later())
        elif hook == "iterable":
            await ws.send(raising() for _ in "x")
        elif hook == "async iterable":
            await ws.send(raising() async for _ in ws)
        ws.subscribe("topic", info="x" if hook == "on_presence" else None)
        ws.publish("topic", "x")
        async for _ in ws:
            pass

    hooks: dict[str, Any] = {hook: raising} if hook in ("authorize", "encode", "on_presence") else {}
    topics = wsfast.Topics(**hooks)
    topics.configure("topic", presence=hook == "on_presence")
    name = hook.removeprefix("async ")
    called: Any = raising if name == hook else raising_later
    options: dict[str, Any] = {"topics": topics, "max_buffered": None}
    if name in ("process_request", "process_response", "select_subprotocol"):
        options[name] = called
    elif name == "check_credentials":
        options["process_request"] = wsfast.server.basic_auth("realm", check_credentials=called)
    server = wsfast.Server(**options)
    if hook == "factory":
        server.register_listener("name", raising)
    elif hook == "stream handler":
        server.register_stream_handler("name", raising_later)
    elif hook in ("on_open", "on_message", "on_close", "on_writable"):
        server.register_listener("name", Listener)
    else:
        server.register_handler("name", handler)
    await server.start("127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    uri = f"ws://name:word@127.0.0.1:{port}/"
    if hook == "client: process_exception":
        server.close()
        async for _ in wsfast.connect(uri, process_exception=raising):
            pass
    async with wsfast.connect(uri, subprotocols=["name"], max_size=None) as ws:
        await ws.send("x")
        async for _ in ws:
            pass
        await asyncio.sleep(20)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("end", ENDS, ids=["SystemExit", "KeyboardInterrupt"])
@pytest.mark.parametrize("hook", HOOKS)
def test_no_hook_keeps_the_program_from_ending(
    hook: str, end: BaseException, loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It ends the loop, and no log takes it for an error of the program."""

    def raising(*args: Any) -> Any:
        raise end

    async def main() -> None:
        async with asyncio.timeout(20):
            await meet(hook, raising)

    with pytest.raises(type(end)), asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main())
    gc.collect()
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


class Own(BaseException):
    """Neither an `Exception` nor one that ends the program."""


IN_TASKS = ["handler", "stream handler", "iterable", "client: on_open"]
FAULTY = ["process_request", "async process_request", "process_response", "factory", *IN_TASKS]
FAULTY += ["on_open", "on_message", "on_close", "on_writable"]


@pytest.mark.parametrize("loop", LOOPS)
def test_what_does_not_end_the_program_is_a_fault_of_who_raised_it(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it is: the connection ends at once, and the log has one line with a traceback."""

    async def fails(where: str, kind: type[BaseException]) -> str:
        def raising(*args: Any) -> Any:
            raise kind("mine")

        async def raising_later(*args: Any) -> Any:
            await asyncio.sleep(0)
            raising()

        async def handler(ws: wsfast.WebSocket) -> None:
            await ws.recv()
            await (ws.send(raising() for _ in "x") if where == "iterable" else raising_later())

        class Listener(wsfast.Listener):
            def on_message(self, message: str | bytes) -> None:
                self.ws.send_nowait(b"x" * 16_000_000)
                if where == "on_close":
                    self.ws.close_nowait()

        name = where.removeprefix("async ")
        hooks: dict[str, Any] = {}
        if name.startswith("process_"):
            hooks[name] = raising if name == where else raising_later
        server = wsfast.Server(stop_timeout=5, max_buffered=None, **hooks)
        if where == "stream handler":
            server.register_stream_handler(None, raising_later)
        elif where == "factory":
            server.register_listener(None, raising)
        elif where.startswith("on_"):
            setattr(Listener, where, raising)
            server.register_listener(None, Listener)
        else:
            server.register_handler(None, handler)
        async with server:
            await server.start("127.0.0.1", 0)
            uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            if where == "client: on_open":
                client = type("Client", (wsfast.Listener,), {"on_open": raising})
                with pytest.raises(RuntimeError if kind is GeneratorExit else kind):
                    await wsfast.connect_listener(client, uri)
                return "told"
            try:
                async with wsfast.connect(uri, max_size=None) as ws:
                    await ws.send("x")
                    async for _ in ws:
                        pass
            except (wsfast.ConnectionClosedError, wsfast.InvalidStatus) as exc:
                return str(exc)
            return "closed"

    async def main() -> None:
        for kind in (Own, GeneratorExit, asyncio.CancelledError):
            for where in FAULTY:
                if kind is asyncio.CancelledError and where in IN_TASKS:
                    continue  # that cancels the task
                caplog.clear()
                async with asyncio.timeout(8):
                    outcome = await fails(where, kind)
                case = f"{where} raises {kind.__name__}: {outcome}"
                logged = [record for record in caplog.records if record.levelno >= logging.ERROR]
                if where == "client: on_open":
                    assert not logged, case
                    continue
                assert [bool(record.exc_info) for record in logged] == [True], (case, caplog.text)
                assert logged[0].name == "wsfast.server", case
                assert {"process_request": "500", "process_response": "500", "on_close": "closed"}.get(
                    where.removeprefix("async "), "1011"
                ) in outcome, case

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main())


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("end", ENDS, ids=["SystemExit", "KeyboardInterrupt"])
def test_it_keeps_back_nothing_that_others_send(end: BaseException, loop: str) -> None:
    """What is written at the end of a turn, behind one whose transport ended the loop, is when that runs again."""
    running = LOOPS[loop]()

    def write(data: bytes) -> None:
        raise end

    async def enter() -> list[Any]:
        return [await wsfast.testing.pair().__aenter__() for _ in range(4)]

    pairs = running.run_until_complete(enter())
    pairs[1].client.transport.write = write
    running.call_soon(lambda: [one.client.send_nowait("x") for one in pairs])
    with pytest.raises(type(end)):
        running.run_until_complete(asyncio.sleep(20))
    for n in (0, 2, 3):
        assert running.run_until_complete(asyncio.wait_for(pairs[n].server.recv(), 20)) == "x"
    running.close()


@pytest.mark.parametrize("loop", LOOPS)
def test_who_waits_for_the_end_is_told_though_a_listener_ends_the_program(loop: str) -> None:
    """Else what stops the program in order would wait for ever."""
    running = LOOPS[loop]()

    class Ending(wsfast.Listener):
        def on_close(self, code: int, reason: str) -> None:
            raise SystemExit(5)

    async def enter() -> tuple[Any, Any]:
        server = wsfast.Server()
        server.register_listener(None, Ending)
        both = await wsfast.testing.pair(server).__aenter__()
        return both, asyncio.ensure_future(both.server.wait_closed())

    both, waiting = running.run_until_complete(enter())
    both.client.close_nowait()
    with pytest.raises(SystemExit):
        running.run_until_complete(asyncio.sleep(20))
    running.run_until_complete(asyncio.wait_for(waiting, 20))
    assert both.server.state is wsfast.State.CLOSED
    running.close()


@pytest.mark.parametrize("loop", LOOPS)
def test_a_task_that_ends_the_program_as_its_connection_is_lost(loop: str) -> None:
    """The server has counted the connection by then, and who waits for its end is told."""
    running = LOOPS[loop]()

    async def handler(ws: wsfast.WebSocket) -> None:
        waiting.append(asyncio.ensure_future(ws.wait_closed()))
        try:
            await ws.recv()
        except wsfast.ConnectionClosed:
            sys.exit(5)

    async def main() -> None:
        await server.start("127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(head())
        while not waiting:
            await asyncio.sleep(0.001)
        writer.transport.abort()
        await asyncio.sleep(20)

    server = wsfast.Server(stop_timeout=20)
    server.register_handler(None, handler)
    waiting: list[asyncio.Future[None]] = []
    with pytest.raises(SystemExit):
        running.run_until_complete(main())
    assert server.counters["causes"] == {"connection lost": 1}
    running.call_soon(server.close)

    async def stop() -> None:
        async with asyncio.timeout(10):
            await asyncio.gather(server.wait_closed(), *waiting)

    running.run_until_complete(stop())
    running.close()


@pytest.mark.parametrize("loop", LOOPS)
def test_a_program_exits_with_its_status(loop: str) -> None:
    program = """
import asyncio, sys, wsfast
async def handler(ws):
    await ws.recv()
    sys.exit(5)
async def main():
    async with wsfast.serve(handler, "127.0.0.1", 0) as server:
        async with wsfast.connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/") as ws:
            await ws.send("go")
            await asyncio.sleep(20)
if sys.argv[1] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""
    path = os.pathsep.join([str(Path(wsfast.__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-W", "ignore", "-c", program, loop]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, timeout=15, check=False)
    assert done.returncode == 5


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_on_the_loops_own_transport(tls: bool, loop: str, certs: Any) -> None:
    """An application has its context and is the current task; KeyboardInterrupt ends the loop, which can go on."""
    reported: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        task = asyncio.current_task()
        await receive()
        await send({"type": "websocket.accept"})
        USER.set(scope["path"])
        while (event := await receive())["type"] == "websocket.receive":
            assert asyncio.current_task() is task
            if event["text"] == "end":
                raise KeyboardInterrupt
            await send({"type": "websocket.send", "text": USER.get()})

    made = LOOPS[loop]()
    made.set_exception_handler(lambda _, context: reported.append(context))
    host = Host(app, Limits(), made, logging.getLogger("wsfast.test"))

    async def main(*messages: str) -> None:
        contexts = (certs.server_context(), certs.client_context()) if tls else (None, None)
        server = await made.create_server(lambda: BridgeProtocol(host), "127.0.0.1", 0, ssl=contexts[0])
        uri = f"ws{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with (
            wsfast.connect(uri + "/one", ssl=contexts[1]) as one,
            wsfast.connect(uri + "/two", ssl=contexts[1]) as two,
        ):
            for message in messages:  # with the third read, it is wsfast's own transport, if there is no TLS
                for name, ws in (("/one", one), ("/two", two)):
                    await ws.send(message)
                    assert await asyncio.wait_for(ws.recv(), 20) == name
        server.close()

    try:
        for messages in (["end"], ["?", "end"]):
            with pytest.raises(KeyboardInterrupt):
                made.run_until_complete(main(*messages))
        made.run_until_complete(main("?", "?", "?"))
    finally:
        made.close()
    # But for the tasks of `main`, which the loop's end has left behind.
    assert not [context for context in reported if "transport" in context or "protocol" in context]


# --- Contexts, the current task, debug mode ---------------------------------------------------------------

USER: contextvars.ContextVar[str] = contextvars.ContextVar("USER", default="nobody")


@pytest.mark.parametrize("loop", LOOPS)
def test_each_handler_has_its_context_and_is_the_current_task(loop: str) -> None:
    seen: list[tuple[str, bool]] = []

    async def handler(ws: wsfast.WebSocket) -> None:
        task = asyncio.current_task()
        async for message in ws:
            if USER.get() == "nobody":
                USER.set(str(message))
            seen.append((USER.get(), asyncio.current_task() is task))
            await ws.send(USER.get())

    async def main() -> None:
        async with wsfast.serve(handler, "127.0.0.1", 0) as server:
            uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            async with wsfast.connect(uri) as one, wsfast.connect(uri) as two:
                for n in range(5):
                    for name, ws in (("one", one), ("two", two)):
                        await ws.send(name if n == 0 else "?")
                        assert await ws.recv() == name

    made = LOOPS[loop]()
    made.run_until_complete(main())
    made.close()
    assert {user for user, _ in seen} == {"one", "two"}
    assert all(current for _, current in seen)


def test_in_debug_mode_a_slow_handler_is_told_by_the_name_of_its_task(caplog: pytest.LogCaptureFixture) -> None:
    import time

    async def handler(ws: wsfast.WebSocket) -> None:
        await ws.recv()
        time.sleep(0.2)  # noqa: ASYNC251
        await ws.send("done")

    async def main() -> None:
        async with (
            wsfast.serve(handler, "127.0.0.1", 0) as server,
            wsfast.connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/") as ws,
        ):
            await ws.send("go")
            assert await ws.recv() == "done"

    loop = asyncio.SelectorEventLoop()
    with caplog.at_level(logging.WARNING, "asyncio"):
        loop.set_debug(True)
        loop.run_until_complete(main())
        loop.close()
    slow = [record.getMessage() for record in caplog.records if "took 0." in record.getMessage()]
    assert any("handler()" in line for line in slow), slow


# --- Loops within loops -----------------------------------------------------------------------------------

NESTED = """
import asyncio, ssl, sys
import nest_asyncio
nest_asyncio.apply()
import wsfast

contexts = None
if len(sys.argv) > 1:
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(sys.argv[1])
    contexts = server_context, ssl.create_default_context(cafile=sys.argv[2])
wrong = []

async def handler(ws):
    n = 0
    async for message in ws:
        number, body = message.split(b":", 1)
        if int(number) != n or len(set(body)) != 1:
            wrong.append((number, n))
        n += 1
        if n % 7 == 0:
            # In the middle of a task: the others go on, and so does this connection.
            asyncio.get_event_loop().run_until_complete(asyncio.sleep(0.001))
        if n % 11 == 0:
            number, body = asyncio.get_event_loop().run_until_complete(ws.recv()).split(b":", 1)
            if int(number) != n:
                wrong.append((number, n))
            n += 1
    got.append(n)

got = []

async def client(uri, letter):
    async with wsfast.connect(uri, ssl=contexts and contexts[1]) as ws:
        for k in range(120):
            await ws.send(b"%d:" % k + letter * (900 + 61 * k))
            if k % 20 == 0:
                await asyncio.sleep(0)
        await asyncio.sleep(0.3)

async def main():
    async with wsfast.serve(handler, "127.0.0.1", 0, ssl=contexts and contexts[0]) as server:
        uri = f"{'wss' if contexts else 'ws'}://localhost:{server.sockets[0].getsockname()[1]}/"
        await asyncio.wait_for(asyncio.gather(*(client(uri, bytes([97 + i])) for i in range(5))), 40)

asyncio.run(main())
assert not wrong, wrong[:5]
assert sorted(got) == [120] * 5, got
print("well")
"""


NESTED_LISTENER = """
import asyncio, ssl, sys
import nest_asyncio
nest_asyncio.apply()
import wsfast

server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server_context.load_cert_chain(sys.argv[1])
client_context = ssl.create_default_context(cafile=sys.argv[2])

class Echo(wsfast.Listener):
    def on_open(self):
        self.begun = []
    def on_message(self, message):
        n = int(message.partition(":")[0])
        self.begun.append(n)
        self.ws.send_nowait(f"{n}")
        if n % 7 == 0:
            asyncio.get_event_loop().run_until_complete(self.next(len(self.begun)))
    async def next(self, count):
        # The next message, or its own answers to be taken: both come while this one is handled.
        async with asyncio.timeout(20):
            while len(self.begun) == count and count < 100:
                await asyncio.sleep(0.001)
    def on_close(self, code, reason):
        assert self.begun == list(range(100)), self.begun

async def main(tls, compression):
    server = wsfast.Server(compression=compression)
    server.register_listener(None, Echo)
    async with server:
        await server.start("127.0.0.1", 0, ssl=server_context if tls else None)
        uri = f"ws{'s' if tls else ''}://localhost:{server.sockets[0].getsockname()[1]}/"
        async with wsfast.connect(uri, ssl=client_context if tls else None, compression=compression) as ws:
            for n in range(100):
                await ws.send(f"{n}:" + "x" * (n % 5 * 4000))
                if n % 10 == 9:
                    await asyncio.sleep(0.002)
            got = [int(await ws.recv()) for _ in range(100)]
            assert sorted(got) == list(range(100)), got

for tls in (False, True):
    for compression in (None, wsfast.Deflate()):
        asyncio.run(main(tls, compression))
print("well")
"""


@pytest.mark.skipif(
    sys.version_info >= (3, 14),
    reason="nest_asyncio 1.6 has no current task there, so that asyncio.timeout fails in it",
)
def test_a_listener_that_runs_the_loop_within_itself(certs: Any) -> None:
    """Messages come in order, those that came with the one that is handled too; what it sends goes out meanwhile."""
    path = os.pathsep.join([str(Path(wsfast.__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", NESTED_LISTENER, str(certs.server), str(certs.authority)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "well\n", "")


@pytest.mark.skipif(
    sys.version_info >= (3, 14),
    reason="nest_asyncio 1.6 has no current task there, so that asyncio.timeout fails in it",
)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_handler_that_runs_the_loop_within_itself(tls: bool, certs: Any) -> None:
    """nest_asyncio, as notebooks have it: what works with websockets works here."""
    files = [str(certs.server), str(certs.authority)] if tls else []
    path = os.pathsep.join([str(Path(wsfast.__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", NESTED, *files],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "well\n", "")
