"""The names, texts and deprecations of `wsfast.websockets` are those of `websockets`."""

from __future__ import annotations

import ast
import importlib
import inspect
import pickle
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import websockets as theirs
import websockets.datastructures
import websockets.exceptions
import websockets.frames
import websockets.http11

import wsfast
from wsfast import websockets as ours
from wsfast.websockets import exceptions
from wsfast.websockets.datastructures import Headers, MultipleValuesError
from wsfast.websockets.exceptions import InvalidHeaderValue, ProtocolError
from wsfast.websockets.frames import CLOSE_CODE_EXPLANATIONS, Close, CloseCode, Frame, Opcode
from wsfast.websockets.http11 import Request, Response

MODULES = [
    "asyncio.client",
    "asyncio.connection",
    "asyncio.router",
    "asyncio.server",
    "client",
    "datastructures",
    "exceptions",
    "extensions.base",
    "extensions.permessage_deflate",
    "frames",
    "headers",
    "http11",
    "imports",
    "protocol",
    "server",
    "sync.client",
    "sync.connection",
    "typing",
    "uri",
    "version",
]


def load(package: str, name: str) -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return importlib.import_module(f"{package}.{name}")


def test_the_version_is_that_of_the_library() -> None:
    assert tuple(map(int, ours.version.version.split(".")[:2])) >= (17, 0)


def test_the_packages_names() -> None:
    assert set(ours.__all__) >= set(theirs.__all__)
    for name in theirs.__all__:
        assert getattr(ours, name).__module__.partition(".")[0] in ("wsfast", "typing", "types", "builtins"), name
    assert set(dir(ours)) >= set(ours.__all__)


@pytest.mark.parametrize("name", MODULES)
def test_the_names_of_a_module(name: str) -> None:
    assert set(load("wsfast.websockets", name).__all__) >= set(load("websockets", name).__all__)


@pytest.mark.parametrize(
    ("name", "thing"),
    [
        ("asyncio.client", "connect"),
        ("asyncio.client", "unix_connect"),
        ("asyncio.server", "serve"),
        ("asyncio.server", "unix_serve"),
        ("asyncio.server", "basic_auth"),
        ("asyncio.server", "broadcast"),
        ("asyncio.server", "ServerConnection"),
        ("asyncio.client", "ClientConnection"),
        ("asyncio.router", "route"),
        ("asyncio.router", "unix_route"),
        ("asyncio.router", "Router"),
        ("sync.client", "connect"),
        ("sync.client", "unix_connect"),
        ("client", "ClientProtocol"),
        ("client", "backoff"),
        ("server", "ServerProtocol"),
        ("protocol", "Protocol"),
        ("http11", "Request"),
        ("http11", "Response"),
        ("frames", "Frame"),
        ("frames", "Close"),
        ("uri", "WebSocketURI"),
    ],
)
def test_signatures(name: str, thing: str) -> None:
    wanted: Mapping[str, inspect.Parameter] = inspect.signature(getattr(load("websockets", name), thing)).parameters
    there = inspect.signature(getattr(load("wsfast.websockets", name), thing)).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in there.values()):
        wanted = {
            key: value for key, value in wanted.items() if key in there or value.default is inspect.Parameter.empty
        }
    assert [key for key in there if key in wanted] == list(wanted)
    for key, parameter in wanted.items():
        kind = inspect.Parameter.empty
        if key not in ("user_agent_header", "server_header", "process_exception", "reconnect_delays", "create_router"):
            assert there[key].default == parameter.default or parameter.default is kind, key
        assert there[key].kind is parameter.kind, key


@pytest.mark.parametrize("side", ["asyncio.client.ClientConnection", "asyncio.server.ServerConnection"])
def test_what_a_connection_has(side: str) -> None:
    module, _, name = side.rpartition(".")
    # What websockets documents; the rest is how it works inside.
    inside = {
        *("acknowledge_pings", "connection_lost", "data_received", "drain", "eof_received", "handshake", "keepalive"),
        *("pause_writing", "process_event", "resume_writing", "send_context", "send_data", "set_connection_exc"),
        *("start_keepalive", "terminate_pending_pings"),
    }
    wanted = {each for each in dir(getattr(load("websockets", module), name)) if not each.startswith("_")}
    assert wanted - inside <= set(dir(getattr(load("wsfast.websockets", module), name)))


def test_what_a_server_has() -> None:
    assert {name for name in dir(theirs.Server) if not name.startswith("_")} <= set(dir(ours.Server))


@pytest.mark.parametrize("name", theirs.exceptions.__all__)
def test_base_classes_of_exceptions(name: str) -> None:
    there, wanted = getattr(exceptions, name), getattr(theirs.exceptions, name)
    for base in wanted.__mro__[1:-1]:
        named = getattr(exceptions, base.__name__, base)
        assert issubclass(there, named), base


def response(status: int, kind: Any, headers: Any) -> Any:
    return kind(status, "OK", headers())


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *[("ConnectionClosed", one) for one in [((1000, ""), (1000, ""), True), ((1000, ""), (1001, "bye"), False)]],
        *[
            ("ConnectionClosed", one)
            for one in [(None, None, None), ((3000, ""), None, None), (None, (4000, "x"), None)]
        ],
        ("ConnectionClosedError", ((1016, ""), None, None)),
        ("InvalidURI", ("|", "not at all")),
        ("InvalidProxy", ("http://:80", "no host")),
        ("InvalidHeader", ("Name",)),
        ("InvalidHeader", ("Name", None)),
        ("InvalidHeader", ("Name", "")),
        ("InvalidHeader", ("Name", "Value")),
        ("InvalidHeaderFormat", ("Sec-WebSocket-Protocol", "exp. token", "a=|", 3)),
        ("InvalidHeaderValue", ("Sec-WebSocket-Version", "42")),
        ("InvalidOrigin", ("http://bad.origin",)),
        ("InvalidOrigin", (None,)),
        ("InvalidUpgrade", ("Upgrade",)),
        ("InvalidUpgrade", ("Connection", "websocket")),
        ("InvalidMethod", ("POST",)),
        ("InvalidProtocol", ("HTTP/1.0",)),
        ("InvalidStatus", (401,)),
        ("InvalidProxyStatus", (407,)),
        ("NegotiationError", ("no subprotocols",)),
        ("DuplicateParameter", ("a",)),
        ("InvalidParameterName", ("|",)),
        ("InvalidParameterValue", ("a", None)),
        ("InvalidParameterValue", ("a", "")),
        ("InvalidParameterValue", ("a", "|")),
        ("ProtocolError", ("invalid opcode: 7",)),
        ("PayloadTooBig", (None, 4)),
        ("PayloadTooBig", (8, 4)),
        ("PayloadTooBig", (8, 4, 2)),
        ("TooManyFragments", (7,)),
        ("SecurityError", ("redirect from WSS to WS",)),
        ("InvalidMessage", ("malformed HTTP message",)),
        ("InvalidState", ("WebSocket connection isn't established yet",)),
        ("ConcurrencyError", ("get() or get_iter() is already running",)),
    ],
)
def test_texts_of_exceptions(name: str, arguments: tuple[Any, ...]) -> None:
    def make(package: Any) -> Exception:
        given: list[Any] = list(arguments)
        if name.startswith("ConnectionClosed"):
            given[:2] = [None if one is None else package.frames.Close(*one) for one in given[:2]]
        if name.endswith("Status"):
            given = [package.http11.Response(given[0], "OK", package.datastructures.Headers())]
        made: Exception = getattr(package.exceptions, name)(*given)
        return made

    exc = make(ours)
    assert str(exc) == str(make(theirs))
    exc.add_note("what the program adds")
    again = pickle.loads(pickle.dumps(exc))
    assert type(again) is type(exc)
    assert str(again) == str(exc)
    assert again.__notes__ == exc.__notes__


def deprecated() -> list[tuple[str, str]]:
    """Return the names whose use websockets warns of, by module."""
    found = []
    for path in sorted(Path(theirs.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "deprecated_aliases" and isinstance(node.value, ast.Dict):
                module = "" if path.stem == "__init__" else f".{path.stem}"
                found += [(module, ast.literal_eval(key)) for key in node.value.keys if key is not None]
    assert len(found) > 15
    return found


@pytest.mark.parametrize(("module", "name"), deprecated())
def test_deprecated_names(module: str, name: str) -> None:
    """In a process of its own: only the first import of `legacy` warns."""
    script = f"""
import warnings
warnings.simplefilter("error")
warnings.filterwarnings("always", category=DeprecationWarning)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from {{}}.websockets{module} import {name}
print(*[str(one.message) for one in caught if "legacy" in str(one.message) or "{name}" in str(one.message)], sep="\\n")
"""
    texts = []
    for package in ("", "wsfast"):
        done = subprocess.run(
            [sys.executable, "-c", script.replace("{}.", f"{package}." if package else "")],
            capture_output=True,
            text=True,
            check=True,
        )
        texts.append(done.stdout)
    assert texts[0] == texts[1]
    assert f"websockets{module}.{name} is deprecated" in texts[1]


def test_headers() -> None:
    headers = Headers([("X-A", "1")], Other="2")
    headers["x-a"] = "3"
    assert headers.get_all("X-a") == ["1", "3"]
    assert headers.get_all("none") == []
    assert list(headers.raw_items()) == [("X-A", "1"), ("Other", "2"), ("x-a", "3")]
    assert list(headers) == ["x-a", "other"]
    assert len(headers) == 2
    assert "OTHER" in headers
    with pytest.raises(MultipleValuesError) as caught:
        headers["X-A"]
    assert str(caught.value) == "'X-A'"
    with pytest.raises(KeyError):
        headers["none"]
    with pytest.raises(InvalidHeaderValue):
        headers["X-A"] = "a\r\nb"
    copy = headers.copy()
    del headers["X-A"]
    assert dict(headers) == {"other": "2"}
    assert copy != headers
    assert Headers(copy) == copy
    assert copy.serialize() == b"X-A: 1\r\nOther: 2\r\nx-a: 3\r\n\r\n"
    headers.clear()
    assert headers == Headers()
    assert repr(Headers(Server="b", Cookie="c")) == "Headers([('Server', 'b'), ('Cookie', '...')])"


def test_close_and_frames() -> None:
    assert CLOSE_CODE_EXPLANATIONS == theirs.frames.CLOSE_CODE_EXPLANATIONS
    for code in (1000, 1001, 1011, 2999, 3000, 4000, 5000):
        for reason in ("", "bye"):
            assert str(Close(code, reason)) == str(theirs.frames.Close(code, reason))
    Close(CloseCode.NORMAL_CLOSURE, "").check()
    for code in (1004, 1005, 1006, 1015, 2000, 5000):
        with pytest.raises(ProtocolError, match="invalid status code"):
            Close(code, "").check()
    assert Close.parse(b"\x03\xe8bye") == Close(1000, "bye") == wsfast.Close(1000, "bye")
    assert Close(1000, "bye").serialize() == b"\x03\xe8bye"
    for opcode, data in [(Opcode.TEXT, b"caf\xc3\xa9"), (Opcode.BINARY, b"\x01\xff"), (Opcode.CLOSE, b"\x03\xe8x")]:
        theirs_opcode = theirs.frames.Opcode(opcode)
        assert str(Frame(opcode, data)) == str(theirs.frames.Frame(theirs_opcode, data))
        assert Frame(opcode, data, fin=False).serialize(mask=False)[0] == opcode if opcode < 8 else True
    with pytest.raises(ProtocolError, match="control frame too long"):
        Frame(Opcode.PING, b"x" * 126).serialize(mask=True)


def test_requests_and_responses() -> None:
    request = Request("/a?b", Headers(Host="c"))
    assert request.serialize() == b"GET /a?b HTTP/1.1\r\nHost: c\r\n\r\n"
    made = Response(200, "OK", Headers(A="b"), b"body")
    assert made.serialize() == b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody"
    for one in (request, made):
        with pytest.warns(DeprecationWarning, match=r"^(Request|Response).exception is deprecated; use "):
            assert one.exception is None


def test_a_program_that_cannot_be_changed(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, websockets, websockets.asyncio.client\n"
        "from websockets.exceptions import ConnectionClosed\n"
        "assert websockets.connect is websockets.asyncio.client.connect\n"
        "print(websockets.connect.__module__, ConnectionClosed.__module__, *sys.argv[1:], __name__)\n"
        "try:\n"
        "    import websockets.none\n"
        "except ModuleNotFoundError:\n"
        "    print('not there')\n"
    )
    for arguments in ([str(program)], ["-m", "program"]):
        done = subprocess.run(
            [sys.executable, "-m", "wsfast.websockets", *arguments, "argument"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=True,
        )
        lines = "wsfast.websockets.asyncio.client wsfast.websockets.exceptions argument __main__\nnot there\n"
        assert done.stdout == lines, done.stderr
    done = subprocess.run([sys.executable, "-m", "wsfast.websockets"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")


def test_install_must_come_first() -> None:
    script = "import websockets\nfrom wsfast.websockets.alias import install\ninstall()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "install() must be called before websockets is imported" in done.stderr


def test_websockets_need_not_be_installed() -> None:
    script = """
import sys
sys.modules["websockets"] = None
import wsfast.websockets as w
for name in w.__all__:
    getattr(w, name)
import wsfast.websockets.sync.client
"""
    subprocess.run([sys.executable, "-c", script], check=True)
