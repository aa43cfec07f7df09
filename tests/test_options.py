"""Options that are not known are refused at once, and the error names what was meant."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest

import wsfast
import wsfast.bus
import wsfast.sync


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
