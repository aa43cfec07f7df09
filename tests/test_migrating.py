"""What docs/migrating.md says about the names of websockets is true."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import picows
import picows.websockets
import pytest
import websockets.asyncio.client
import websockets.asyncio.connection
import websockets.asyncio.router
import websockets.asyncio.server
import websockets.cli
import websockets.exceptions
import websockets.sync.client
import websockets.sync.server
import websockets.trio.client
import websockets.trio.server
from aiohttp import web

import wsfast
import wsfast.server
import wsfast.sync
import wsfast.sync.client

PAGE = (Path(__file__).parent.parent / "docs" / "migrating.md").read_text()

OWN_DEFAULT = {"compression", "write_limit", "user_agent_header", "process_exception", "reconnect_delays"}
ABSENT = {"max_queue"}
DROP_IN, NATIVE = PAGE.split("## From websockets, by wsfast's names")
SERVER = PAGE.split("### Servers")[1].split("### Without an event loop")[0]
SYNC = PAGE.split("### Without an event loop")[1].split("## From aiohttp")[0]


def parameters(thing: object) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(thing).parameters)  # type: ignore[arg-type]


def test_parameters_of_connect() -> None:
    theirs, ours = parameters(websockets.asyncio.client.connect), parameters(wsfast.connect)
    for name, parameter in theirs.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            continue
        assert (name in ours) is (name not in ABSENT), name
        if name not in ABSENT | OWN_DEFAULT:
            assert ours[name].default == parameter.default, name
        assert f"`{name}" in PAGE, name


def test_parameters_of_serve() -> None:
    theirs = parameters(websockets.asyncio.server.serve)
    ours = parameters(wsfast.serve) | parameters(wsfast.Server)
    for name, parameter in theirs.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD or name in ("handler", "host", "port"):
            continue
        assert (name in ours) is (name not in ABSENT), name
        if name in ours and name not in OWN_DEFAULT | {"server_header"}:
            assert ours[name].default == parameter.default, name
        assert f"`{name}" in SERVER, name
    assert f'`server_header="{ours["server_header"].default}"`' in SERVER


def test_parameters_of_the_client_without_an_event_loop() -> None:
    theirs, defaults = parameters(websockets.sync.client.connect), parameters(wsfast.connect)
    ours = {"uri", *wsfast.sync.client.ConnectOptions.__annotations__}
    for name, parameter in theirs.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            continue
        assert (name in ours) is (name not in ABSENT | {"legacy"}), name
        if name in ours & set(defaults) and name not in OWN_DEFAULT:
            assert defaults[name].default == parameter.default, name
        assert f"`{name}" in PAGE, name
    assert "`legacy`" in SYNC


def test_names_of_a_server() -> None:
    theirs = {name for name in dir(websockets.asyncio.server.Server) if not name.startswith("_")}
    for name in theirs:
        assert f"`{name}" in SERVER, name
        assert hasattr(wsfast.Server, name), name
    assert set(parameters(websockets.asyncio.server.Server.close)) <= set(parameters(wsfast.Server.close))


def test_what_websockets_has_for_servers_only() -> None:
    for name in websockets.asyncio.server.__all__:
        assert f"`{name}" in SERVER or name in ("broadcast", "serve", "unix_serve", "ServerConnection", "Server"), name
    for name in ("id", "username", "logger"):
        assert hasattr(wsfast.WebSocket, name)
    assert not hasattr(wsfast.WebSocket, "protocol")
    assert "`ws.protocol`" in SERVER


@pytest.mark.parametrize(
    "name",
    [
        *(
            "recv",
            "recv_streaming",
            "send",
            "ping",
            "pong",
            "close",
            "wait_closed",
            "latency",
            "subprotocol",
            "request",
        ),
        *("response", "close_code", "close_reason", "state", "local_address", "remote_address"),
    ],
)
def test_names_of_a_connection(name: str) -> None:
    assert hasattr(wsfast.WebSocket, name)
    assert f"`{name}" in PAGE
    theirs = getattr(websockets.asyncio.connection.Connection, name, None)
    if inspect.iscoroutinefunction(theirs):
        ours = getattr(wsfast.WebSocket, name)
        try:
            names = set(parameters(ours))
        except ValueError:
            return  # of an extension type
        assert set(parameters(theirs)) <= names | {"message", "data"}


def test_broadcast() -> None:
    assert set(parameters(websockets.asyncio.connection.broadcast)) <= set(parameters(wsfast.broadcast)) | {
        "connections"
    }


def test_no_exception_is_missing() -> None:
    table = PAGE.split("### Exceptions")[1].split("### Servers")[0]
    for name in websockets.exceptions.__all__:
        assert f"`{name}`" in table, name


def test_exceptions() -> None:
    table = PAGE.split("### Exceptions")[1].split("### Servers")[0]
    rows = re.findall(r"^\| (`.*?) \| (.*?) \|$", table, re.MULTILINE)
    assert len(rows) > 8
    for theirs, ours in rows:
        for name in re.findall(r"`(\w+)`", theirs):
            assert name == "OSError" or hasattr(websockets, name) or hasattr(websockets.exceptions, name), name
        kept = re.findall(r"`([A-Z]\w+)`", theirs if ours.startswith("the same") else ours)
        assert kept
        for name in kept:
            assert hasattr(wsfast, name), name


def _arguments(*things: Any) -> set[str]:
    return {
        name
        for thing in things
        for name, parameter in inspect.signature(thing).parameters.items()
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) and name != "self"
    }


def _public(*things: Any) -> set[str]:
    return {name for thing in things for name in dir(thing) if not name.startswith("_")}


def _options(module: ModuleType) -> set[str]:
    return set(re.findall(r'"(--[a-z-]+)"', inspect.getsource(module)))


_CONNECTIONS = (websockets.asyncio.client.ClientConnection, websockets.asyncio.server.ServerConnection)
_SYNC = (websockets.sync.client.connect, websockets.sync.client.unix_connect, websockets.sync.client.reconnect)
_LISTENER = (picows.WSListener, picows.WSTransport, picows.WSFrame)
NAMES = {
    "connect": (_arguments(websockets.asyncio.client.connect), _arguments(wsfast.connect)),
    "serve": (
        _arguments(websockets.asyncio.server.serve),
        _arguments(wsfast.serve, wsfast.Server, wsfast.Server.start),
    ),
    "route": (_arguments(websockets.asyncio.router.route), _arguments(wsfast.server.route)),
    "basic_auth": (_arguments(websockets.asyncio.server.basic_auth), _arguments(wsfast.server.basic_auth)),
    "connections": (_public(*_CONNECTIONS), _public(wsfast.WebSocket)),
    "servers": (_public(websockets.asyncio.server.Server), _public(wsfast.Server)),
    "sync.connect": (_arguments(*_SYNC), _arguments(wsfast.sync.connect, wsfast.sync.unix_connect)),
    "sync connections": (_public(websockets.sync.client.ClientConnection), _public(wsfast.sync.WebSocket)),
    "sync servers": (_arguments(websockets.sync.server.serve) | _public(websockets.sync.server.Server), set[str]()),
    "trio": (_arguments(websockets.trio.client.connect, websockets.trio.server.serve), set[str]()),
    "the command line": (_options(websockets.cli), set[str]()),
    "the package": (set(websockets.__all__), {*wsfast.__all__, *wsfast.server.__all__}),
    "aiohttp's client": (
        _arguments(aiohttp.ClientSession.ws_connect) | _public(aiohttp.ClientWebSocketResponse),
        set[str](),
    ),
    "aiohttp's server": (
        _arguments(web.WebSocketResponse.__init__) | (_public(web.WebSocketResponse) - _public(web.StreamResponse)),
        set[str](),
    ),
    "picows": (_arguments(picows.ws_connect, picows.ws_create_server) | _public(*_LISTENER), set[str]()),
    "picows.websockets": (set(picows.websockets.__all__), set(wsfast.__all__)),
}


@pytest.mark.parametrize("what", NAMES)
def test_each_name_is_the_same_or_on_the_page(what: str) -> None:
    wanted, there = NAMES[what]
    assert wanted
    quoted = " ".join(re.findall(r"`[^`\n]+`", PAGE))
    missing = {name for name in wanted - there if not re.search(rf"(?<![\w-]){name}(?!\w)", quoted)}
    assert not missing


def test_each_name_of_the_drop_in_is_there() -> None:
    for name in re.findall(r"`(wsfast\.[a-zA-Z_.]+)(?:\(\))?`", PAGE):
        thing: Any = wsfast
        importlib.import_module("wsfast.websockets.alias")
        importlib.import_module("wsfast.handshake")
        for part in name.split(".")[1:]:
            thing = getattr(thing, part)


def _modules() -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        found = [module.name for module in pkgutil.walk_packages(websockets.__path__, "websockets.")]
    return [name for name in found if not name.endswith((".__main__", ".speedups"))]


def _load(name: str) -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return importlib.import_module(name)


@pytest.mark.parametrize("name", _modules())
def test_every_name_of_websockets_is_in_the_drop_in_or_told(name: str) -> None:
    """Of each module: what is public or defined there; of each class: its public methods and attributes."""
    theirs = _load(name)
    try:
        ours = _load(f"wsfast.{name}")
    except ModuleNotFoundError:
        assert f"`{name}`" in DROP_IN
        return
    told = set(re.findall(r"`(?:[\w.]+\.)?(\w+)`", DROP_IN))
    for thing, value in vars(theirs).items():
        if thing.startswith("_") or len(thing) == 1 or inspect.ismodule(value):
            continue
        if thing not in getattr(theirs, "__all__", ()) and getattr(value, "__module__", None) != name:
            continue
        if not hasattr(ours, thing):
            assert thing in told, thing
        elif inspect.isclass(value):
            missing = {each for each in dir(value) if not each.startswith("_")} - set(dir(getattr(ours, thing)))
            missing.discard("subprotocol")  # each connection has one of its own
            assert missing <= told, (thing, missing - told)
