"""What docs/migrating.md says about the names of websockets is true."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import websockets.asyncio.client
import websockets.asyncio.connection
import websockets.asyncio.server
import websockets.exceptions
import websockets.sync.client

import wsfast
import wsfast.sync

PAGE = (Path(__file__).parent.parent / "docs" / "migrating.md").read_text()

OWN_DEFAULT = {"compression", "write_limit", "user_agent_header", "process_exception", "reconnect_delays"}
ABSENT = {"extensions", "max_queue", "create_connection"}
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
    theirs, ours = parameters(websockets.sync.client.connect), parameters(wsfast.sync.connect)
    for name, parameter in theirs.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            continue
        assert (name in ours) is (name not in ABSENT | {"legacy"}), name
        if name in ours and name not in OWN_DEFAULT:
            assert ours[name].default == parameter.default, name
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
