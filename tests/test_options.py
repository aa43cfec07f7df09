"""Options that are not known are refused at once, and the error names what was meant."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio

import wsfast
import wsfast.bus
import wsfast.sync
import wsfast.testing
import wsfast.trio


@pytest.mark.parametrize("connect", [wsfast.connect, wsfast.sync.connect], ids=["asyncio", "sync"])
@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ssl_foo", None),
        ("ssl_context", "'ssl'"),
        ("server_hostnam", "'server_hostname'"),
        ("proxy_foo", "'proxy'"),
        ("proxy_sl", "'proxy_ssl'"),
        ("ssl_handshake_timeot", "'ssl_handshake_timeout'"),
        ("local_adr", "'local_addr'"),
        ("unixx", "'unix'"),
        ("nonsense_xyz", None),
    ],
)
def test_options_for_the_way(connect: Any, name: str, meant: str | None) -> None:
    for uri in ("ws://h/", "wss://h/"):
        with pytest.raises(TypeError, match=rf"connect\(\) got an unexpected keyword argument '{name}'") as info:
            connect(uri, **{name: 1})
        if meant is not None:
            assert str(info.value).endswith(f": did you mean {meant}?")
        assert "create_connection" not in str(info.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("max_sise", "'max_size'"),
        ("max_queue", "'read_limit'"),
        ("extra_headers", "'response_headers'"),
        ("timeout", "'open_timeout' or 'close_timeout'"),
        ("max_message_size", "'max_size'"),
        ("ping_intervall", "'ping_interval'"),
        ("klass", "'create_connection'"),
        ("loop", None),
    ],
)
def test_options_of_servers(name: str, meant: str | None) -> None:
    async def handler(ws: wsfast.WebSocket) -> None: ...

    makes: dict[str, Any] = {
        "Server()": wsfast.Server,
        "serve()": lambda **options: wsfast.serve(handler, "127.0.0.1", 0, **options),
    }
    for call, make in makes.items():
        with pytest.raises(TypeError) as info:
            make(**{name: 1})
        hint = f": did you mean {meant}?" if meant else ""
        assert str(info.value) == f"{call} got an unexpected keyword argument {name!r}{hint}"


@pytest.mark.anyio
@pytest.mark.parametrize("path", [None, "/nowhere"])
async def test_options_of_listening(path: str | None) -> None:
    async with wsfast.Server() as server:
        for name, meant in (("reuse_prt", "'reuse_port'"), ("max_size", None)):
            unexpected: dict[str, Any] = {name: 1}
            with pytest.raises(TypeError, match=rf"start\(\) got an unexpected keyword argument '{name}'") as info:
                await server.start(path=path, **unexpected)
            assert (meant or "") in str(info.value)
        assert not server.sockets


@pytest.mark.parametrize("value", [5, True, object()], ids=["int", "bool", "object"])
def test_what_is_no_list_is_named(value: Any) -> None:
    """And not told by what iterating over it raises."""
    makes: list[tuple[Any, tuple[str, ...]]] = [
        (wsfast.Server, ("origins", "forwarded", "response_headers")),
        (lambda **options: wsfast.serve(print, "127.0.0.1", 0, **options), ("origins", "subprotocols")),  # type: ignore[arg-type]
        (lambda **options: wsfast.sync.serve(print, "127.0.0.1", 0, **options), ("origins", "subprotocols")),
        (lambda **options: wsfast.connect("ws://h/", **options), ("subprotocols", "additional_headers", "local_addr")),
    ]
    for make, names in makes:
        for name in names:
            with pytest.raises(TypeError, match=name):
                make(**{name: value})
    unfit: dict[str, Any] = {"proxy_protocol": 1, "stop_timeout": True}
    for name, wrong in unfit.items():
        with pytest.raises(TypeError, match=f"{name} must be a .*, got {type(wrong).__name__}"):
            wsfast.Server(**{name: wrong})


def test_options_of_everything_else() -> None:
    """Each is refused at once, by a text that names the nearest."""
    redis = pytest.importorskip("wsfast.bus.redis", reason="needs redis-py")
    nats = pytest.importorskip("wsfast.bus.nats", reason="needs nats-py")
    uvicorn = pytest.importorskip("wsfast.uvicorn", reason="needs uvicorn")
    makes: list[tuple[str, Any, str, str]] = [
        ("Topics()", wsfast.Topics, "autorize", "authorize"),
        ("LocalBus()", wsfast.bus.LocalBus, "max_histroy", "max_history"),
        ("RedisBus()", redis.RedisBus, "prefx", "prefix"),
        ("RedisBus()", redis.RedisBus, "passwrod", "password"),
        ("NatsBus()", nats.NatsBus, "replica", "replicas"),
        ("NatsBus()", nats.NatsBus, "passwrod", "password"),
        ("configure()", uvicorn.configure, "ping_intervall", "ping_interval"),
        ("run()", lambda **options: wsfast.run("app:server", **options), "worker", "workers"),
        ("serve()", lambda **options: wsfast.sync.serve(print, "127.0.0.1", 0, **options), "max_sise", "max_size"),
    ]
    for call, make, name, meant in makes:
        with pytest.raises(TypeError) as info:
            make(**{name: 1})
        assert str(info.value) == f"{call} got an unexpected keyword argument {name!r}: did you mean {meant!r}?"


def test_options_of_websockets_for_a_client() -> None:
    renamed = (("extra_headers", "'additional_headers'"), ("max_queue", "'read_limit'"), ("timeout", "_timeout"))
    for name, meant in renamed:
        unexpected: dict[str, Any] = {name: 1}
        for make in (wsfast.connect, wsfast.connect_stream, wsfast.sync.connect):
            with pytest.raises(TypeError, match=f"{name}.*did you mean .*{meant}"):
                make("ws://h/", **unexpected)


def test_the_types_are_those_of_the_calls() -> None:
    """What checkers are told of options is what there is."""
    from wsfast.client.connector import _Connector
    from wsfast.client.options import ConnectOptions
    from wsfast.dial.route import _OTHERS, PathOptions
    from wsfast.server.options import ServerOptions

    assert set(ServerOptions.__annotations__) == set(inspect.signature(wsfast.Server).parameters) - {"unknown"}
    made = set(inspect.signature(_Connector).parameters) - {"uri", "options"}
    assert set(ConnectOptions.__annotations__) == made | set(PathOptions.__annotations__) - {"path"}
    for call, options in ((wsfast.Server.__init__, ServerOptions), (_Connector.__init__, ConnectOptions)):
        for name, parameter in inspect.signature(call).parameters.items():
            if parameter.kind is parameter.KEYWORD_ONLY:
                told = options.__annotations__[name]
                assert getattr(told, "__forward_arg__", told) == parameter.annotation
    assert set(ConnectOptions.__annotations__) - set(PathOptions.__annotations__) == _OTHERS


def test_a_default_is_the_same_wherever_it_stands() -> None:
    """The clients and servers in threads and on trio have theirs from below, those on asyncio in their signatures."""
    from wsfast.client.connector import _Connector
    from wsfast.dial.settings import ClientSettings
    from wsfast.handshake.http11 import HeadLimits
    from wsfast.serving import BaseServer
    from wsfast.session import Limits

    below = {field.name: field.default for field in dataclasses.fields(Limits)} | HeadLimits._field_defaults
    for shown, shared in ((_Connector, ClientSettings), (wsfast.Server, BaseServer)):
        signature = inspect.signature(shared).parameters
        known = below | {
            name: parameter.default for name, parameter in signature.items() if parameter.kind is parameter.KEYWORD_ONLY
        }
        told = {name: parameter.default for name, parameter in inspect.signature(shown).parameters.items()}
        both = {name for name in told if name in known}
        assert len(both) > 20
        assert {name: told[name] for name in both} == {name: known[name] for name in both}


# --- Numbers that C does not hold, or that the system would take for others ------------------------------------


async def unused(ws: Any) -> None:
    """Serve nobody."""


def start_on_asyncio(**listen: Any) -> None:
    async def main() -> None:
        async with wsfast.Server() as server:
            try:
                await server.start(**{"host": "127.0.0.1", "port": 0, **listen})
            finally:
                assert bool(server.sockets) == (listen == {"backlog": 2**63})

    asyncio.run(main())


def start_in_threads(**listen: Any) -> None:
    wsfast.sync.serve(print, **{"host": "127.0.0.1", "port": 0, **listen}).shutdown()


def start_on_trio(**listen: Any) -> None:
    trio = pytest.importorskip("trio", reason="needs trio")
    import wsfast.trio

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            serve = partial(wsfast.trio.serve, unused, **{"host": "127.0.0.1", "port": 0, **listen})
            server = await nursery.start(serve)
            await server.shutdown()

    try:
        trio.run(main)
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


@pytest.mark.parametrize("start", [start_on_asyncio, start_in_threads, start_on_trio])
def test_where_a_server_listens(start: Callable[..., None]) -> None:
    start(backlog=2**63)  # as much as the system likes
    wrong: dict[str, tuple[object, ...]] = {
        "backlog": (-1, 0.5, "x", None, True),
        "port": (-1, 65536, 99999, 2**63, 10**30, 1.5, True, b"80", "\ud800", "80\n"),
        "host": (7, b"h", ["127.0.0.1", 7], "h\n", "\ud800"),
    }
    for name, values in wrong.items():
        for value in values:
            with pytest.raises((TypeError, ValueError), match=rf"^{name} must be "):
                start(**{name: value})


def test_how_a_client_connects() -> None:
    trio = pytest.importorskip("wsfast.trio", reason="needs trio")
    numbers: tuple[object, ...] = (-1, math.nan, "x", True, [])
    wrong: dict[str, tuple[object, ...]] = {
        "port": (-1, 65536, 2**63, 1.5, "x", True, b"80"),
        "happy_eyeballs_delay": numbers,
        "interleave": (-1, 2**63, 1.5, "x", True),
        **{
            f"{way}ssl_{what}_timeout": (*numbers, 0, math.inf)
            for way in ("", "proxy_")
            for what in ("handshake", "shutdown")
        },
    }
    connects: list[Any] = [wsfast.connect, wsfast.sync.connect, trio.connect]
    for connect in connects:
        for name, values in wrong.items():
            for value in values:
                with pytest.raises((TypeError, ValueError), match=name) as info:
                    connect("wss://h/", **{name: value})
                assert "must be" in str(info.value) or "unexpected keyword" in str(info.value)
    for options in (
        {"port": "80"},
        {"happy_eyeballs_delay": None},
        {"happy_eyeballs_delay": math.inf},
        {"interleave": 0},
    ):
        wsfast.connect("wss://h/", **options)


# --- Other wrong values

WRONG: dict[str, list[Any]] = {
    "bearer_token": [5, b"x"],
    "family": ["x", 2**63, True],
    "flags": ["x", 2**63],
    "local_addr": [5, "x", (1, 2, 3)],
    "logger": ["x", 5],
    "nursery": [5],
    "origin": [5, b"x"],
    "path": [5],
    "process_exception": [5, "x"],
    "process_response": [5],
    "proto": ["x", 2**63],
    "reconnect_delays": [5, "x"],
    "server_header": [5, b"x"],
    "server_hostname": [5],
    "sock": [5, "x"],
    "source_address": [5],
    "stream": [5],
    "address": [5, (1, 2, 3)],
    "user_agent_header": [5, b"x"],
}
_CLIENTS = "bearer_token logger origin process_response server_hostname sock user_agent_header"
_SERVERS = "family flags logger path process_response server_header sock"
_LOOPS = "process_exception reconnect_delays"
CALLS: dict[str, tuple[Any, str]] = {
    "connect": (wsfast.connect, f"{_CLIENTS} {_LOOPS} family flags local_addr proto"),
    "sync.connect": (wsfast.sync.connect, f"{_CLIENTS} address family local_addr source_address"),
    "trio.connect": (wsfast.trio.connect, f"{_CLIENTS} {_LOOPS} nursery stream"),
    "Server": (wsfast.Server, "logger process_response server_header"),
    "serve": (wsfast.serve, _SERVERS),
    "sync.serve": (wsfast.sync.serve, _SERVERS),
    "trio.serve": (wsfast.trio.serve, _SERVERS),
}


async def _handler(ws: Any) -> None:
    """Do nothing."""


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("call", "name"), [(call, name) for call, (_, names) in CALLS.items() for name in names.split()]
)
async def test_a_wrong_value_is_refused_by_the_name_of_its_option(call: str, name: str) -> None:
    """What it would meet is deep in the system, or in a library, whose error names no option."""
    make = CALLS[call][0]
    for value in WRONG[name]:
        options = {} if name in ("sock", "path") else {"host": "127.0.0.1", "port": 0}
        with pytest.raises((TypeError, ValueError), match=rf"\b(local_addr|)?{name}\b.* got ") as caught:
            if call == "trio.serve":
                await on_trio(make, {**options, name: value})
            elif call == "sync.serve":
                make(print, **{**options, name: value})
            elif call == "serve":
                await make(_handler, **{**options, name: value})
            elif call == "Server":
                make(**{name: value})
            else:
                make("ws://127.0.0.1:1/", **{name: value})
        assert "object" not in str(caught.value)


async def on_trio(make: Any, options: dict[str, Any]) -> None:
    """Have trio call it, in a thread."""
    await asyncio.to_thread(trio.run, partial(make, _handler, **options))


# --- What stands beside servers and clients

NETWORK: dict[str, list[Any]] = {
    "latency": ["x", None, True, [], -1, math.nan, math.inf],
    "bandwidth": ["x", True, [], 0, -1, math.nan, math.inf],
    "chunk_size": ["x", True, 1.5, 0, -1],
    "window": ["x", None, True, 1.5, 0, -1, math.nan],
}
NO_WHOLE_NUMBER: list[Any] = ["x", True, 1.5, 0, -1, math.nan]
BESIDE: dict[str, tuple[Any, dict[str, list[Any]]]] = {
    "testing.pair": (wsfast.testing.pair, {**NETWORK, "server_options": ["x", 5, ()], "max_sizee": [5]}),
    "testing.Pipe": (partial(wsfast.testing.Pipe, None), NETWORK),
    "Deflate": (
        wsfast.Deflate,
        {
            "server_no_context_takeover": ["no", 0, None],
            "client_no_context_takeover": ["no", 1, None],
            "backend": [0, b"zlib", "zlob"],
            **{
                name: ["x", True, 1.5, -1, math.nan, 2**63] for name in ("level", "mem_level", "client_max_window_bits")
            },
            "idle": ["x", True, -1, math.nan],
        },
    ),
    "Topics": (
        wsfast.Topics,
        {
            "logger": ["x", 5],
            "max_topics": [*NO_WHOLE_NUMBER, None],
            "max_subscriptions": [*NO_WHOLE_NUMBER, None],
            "max_size": [*NO_WHOLE_NUMBER, None],
        },
    ),
    "DeflateBudget": (wsfast.DeflateBudget, {"nbytes": ["x", None, 1.5, True, -1]}),
    "LocalBus": (wsfast.bus.LocalBus, {"directory": [5, b"x", []], "directry": [5]}),
    "RedisBus": (wsfast.bus.RedisBus, {"url": [5, b"redis://h", None, []]}),
    "NatsBus": (wsfast.bus.NatsBus, {"servers": [5, None, [5], b"x", []]}),
}


@pytest.mark.parametrize("call", BESIDE)
def test_a_wrong_value_beside_servers_and_clients_is_refused_by_its_name(call: str) -> None:
    make, wrong = BESIDE[call]
    for name, values in wrong.items():
        for value in values:
            with pytest.raises((TypeError, ValueError), match=rf"^(.* argument '{name}'|{name} must )"):
                make(**{name: value})
