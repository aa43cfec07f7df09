"""The grammars of handshake headers (RFC 9110, 5.6; RFC 6455, 9.1)."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsfast.exceptions import InvalidHeader, InvalidHeaderFormat, show
from wsfast.handshake import headers as h
from wsfast.http import check_header

TOKENS = st.text("!#$%&'*+-.^_`|~09azAZ", min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("value", "tokens"),
    [
        ("Upgrade", ["Upgrade"]),
        ("keep-alive, Upgrade", ["keep-alive", "Upgrade"]),  # Firefox
        ("a,b\t ,\tc", ["a", "b", "c"]),
        (",, a , ,b,", ["a", "b"]),  # RFC 9110, 5.6.1.2: empty elements are ignored
        ("!#$%&'*+-.^_`|~09azAZ", ["!#$%&'*+-.^_`|~09azAZ"]),
    ],
)
def test_tokens(value: str, tokens: list[str]) -> None:
    assert h.parse_tokens("Connection", value) == tokens


@pytest.mark.parametrize("value", ["", " ", ",", " , ", "a b", "a;b", '"a"', "a/b", "caf\xe9", "a,\x00"])
def test_no_tokens(value: str) -> None:
    with pytest.raises(InvalidHeaderFormat) as info:
        h.parse_tokens("Connection", value)
    assert (info.value.name, info.value.value) == ("Connection", value)


@pytest.mark.parametrize(
    ("value", "protocols"),
    [("websocket", ["websocket"]), ("h2c, websocket/13", ["h2c", "websocket/13"])],
)
def test_upgrade(value: str, protocols: list[str]) -> None:
    assert h.parse_upgrade(value) == protocols


@pytest.mark.parametrize("value", ["", "a/", "/a", "a/b/c", "a b"])
def test_bad_upgrade(value: str) -> None:
    with pytest.raises(InvalidHeaderFormat):
        h.parse_upgrade(value)


@pytest.mark.parametrize(
    ("value", "offers"),
    [
        ("chat", ["chat"]),
        ("echo, chat", ["echo", "chat"]),
        ("chat,Chat", ["chat", "Chat"]),  # case matters
        (", ".join(f"subprotocol-{n}" for n in range(20)), [f"subprotocol-{n}" for n in range(20)]),
    ],
)
def test_subprotocols(value: str, offers: list[str]) -> None:
    first = h.parse_subprotocols(value)
    assert first == offers
    first.append("changed")
    assert h.parse_subprotocols(value) == offers  # what is remembered is not what was handed out


@pytest.mark.parametrize("value", ["", ",", "a, a", "a b", "a, b, a", "x" * 128 + " y" * 64])
def test_bad_subprotocols(value: str) -> None:
    with pytest.raises(InvalidHeaderFormat, match="Sec-WebSocket-Protocol"):
        h.parse_subprotocols(value)


@pytest.mark.parametrize("value", ["CANARY, CANARY", "CANARY token", "CANARY;", "CANARY=x", "a, CANARY\x1b"])
def test_a_subprotocol_that_may_be_a_token_is_not_shown(value: str) -> None:
    with pytest.raises(InvalidHeaderFormat) as info:
        h.parse_subprotocols(value)
    assert "CANARY" not in str(info.value)


@pytest.mark.parametrize(
    ("value", "extensions"),
    [
        ("foo", [("foo", [])]),
        ("foo, bar; baz=2", [("foo", []), ("bar", [("baz", "2")])]),  # RFC 6455, 9.1
        (
            "permessage-deflate; client_max_window_bits; server_max_window_bits=10",
            [("permessage-deflate", [("client_max_window_bits", None), ("server_max_window_bits", "10")])],
        ),
        ('a; b="10"', [("a", [("b", "10")])]),
        ('a; b="1\\0"; c', [("a", [("b", "10"), ("c", None)])]),  # RFC 9110, 5.6.4: quoted-pair
        ("a\t;\tb = 1 , ,c", [("a", [("b", "1")]), ("c", [])]),
        (",a,", [("a", [])]),
        ("a, a; b, a; b; b", [("a", []), ("a", [("b", None)]), ("a", [("b", None), ("b", None)])]),
        ("a" * 200, [("a" * 200, [])]),
    ],
)
def test_extensions(value: str, extensions: list[h.ExtensionHeader]) -> None:
    first = h.parse_extensions(value)
    assert first == extensions
    first[0][1].append(("changed", None))
    first.clear()
    assert h.parse_extensions(value) == extensions


@pytest.mark.parametrize(
    "value",
    [
        "",
        ",",
        "a b",
        "a;",
        "a; ;b",
        "a; b=",
        "a; b=,c",
        "a; b=c d",
        'a; b="',
        'a; b="c',
        'a; b="c"d',
        'a; b=""',  # RFC 6455, 9.1: a token after unescaping
        'a; b="c d"',
        'a; b="c,d"',
        'a; b="c\\"d"',
        'a; "b"=c',
        "=a",
        ";a",
        "a=b",
        "a; b=\x00",
        "a;" * 200,
    ],
)
def test_bad_extensions(value: str) -> None:
    with pytest.raises(InvalidHeaderFormat, match="Sec-WebSocket-Extensions"):
        h.parse_extensions(value)


@given(
    st.lists(
        st.tuples(TOKENS, st.lists(st.tuples(TOKENS, st.none() | TOKENS), max_size=3)),
        min_size=1,
        max_size=3,
    )
)
def test_extensions_round_trip(extensions: list[h.ExtensionHeader]) -> None:
    assert h.parse_extensions(h.build_extensions(extensions)) == extensions


@given(st.text(st.characters(max_codepoint=255), max_size=40))
def test_parsers_raise_one_thing(value: str) -> None:
    for parse in (h.parse_extensions, h.parse_subprotocols, h.parse_upgrade):
        with contextlib.suppress(InvalidHeaderFormat):
            assert parse(value)


def test_extensions_take_linear_time() -> None:
    # A parser that goes back and forth would take minutes.
    with pytest.raises(InvalidHeaderFormat):
        h.parse_extensions("a" + ' ; b="' * 2000)
    with pytest.raises(InvalidHeaderFormat):
        h.parse_extensions('a; b="' + "\\a" * 4000)


@pytest.mark.parametrize("name", ["", "a b", "a:", "a;", "caf\xe9"])
def test_build_extensions_checks(name: str) -> None:
    bads: list[list[tuple[str, list[tuple[str, str | None]]]]] = [
        [(name, [])],
        [("a", [(name, None)])],
        [("a", [("b", name)])],
    ]
    for bad in bads:
        with pytest.raises(ValueError, match="token"):
            h.build_extensions(bad)


def test_build_subprotocols() -> None:
    assert h.build_subprotocols(["chat", "echo"]) == "chat, echo"
    assert h.build_subprotocols(("chat",)) == "chat"


@pytest.mark.parametrize(
    ("subprotocols", "error", "text"),
    [
        ("chat", TypeError, "list"),
        ([], ValueError, "at least one"),
        (["a", "b", "a", "a", "b"], ValueError, "once, got 3 again"),
        (["a b"], ValueError, "token"),
        (["a\r\nX: y"], ValueError, "token"),
        ([""], ValueError, "token"),
        ([b"chat"], TypeError, "str"),
    ],
)
def test_bad_build_subprotocols(subprotocols: list[str], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        h.build_subprotocols(subprotocols)


@pytest.mark.parametrize(
    ("name", "value"),
    [("X-A", ""), ("x_1", "a b\tc"), ("Server", "wsfast/1.0 (caf\xe9)")],
)
def test_good_header(name: str, value: str) -> None:
    check_header(name, value)


@pytest.mark.parametrize("value", ["a\r\nB: c", "a\nb", "a\rb", "a\x00b", "a\x1fb", "a\x7fb", "\u20ac"])
def test_bad_header_value(value: str) -> None:
    with pytest.raises(ValueError, match="value of header X-A") as info:
        check_header("X-A", "secret" + value)
    assert "secret" not in str(info.value)
    assert str(info.value).isprintable()


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\nb", "a\x00", "\xe9"])
def test_bad_header_name(name: str) -> None:
    with pytest.raises(ValueError, match="header's name") as info:
        check_header(name, "x")
    assert str(info.value).isprintable()


def test_header_types() -> None:
    with pytest.raises(TypeError, match="header's name as str, got bytes"):
        check_header(b"a", "b")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="value of header a as str, got int"):
        check_header("a", 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("host", "port", "secure", "value"),
    [
        ("example.com", 80, False, "example.com"),
        ("example.com", 443, True, "example.com"),
        ("example.com", 443, False, "example.com:443"),
        ("example.com", 80, True, "example.com:80"),
        ("::1", 80, False, "[::1]"),
        ("::1", 8080, False, "[::1]:8080"),
        ("fe80::1%eth0", 443, True, "[fe80::1]"),
        ("127.0.0.1", 1, False, "127.0.0.1:1"),
    ],
)
def test_host(host: str, port: int, secure: bool, value: str) -> None:
    assert h.build_host(host, port, secure) == value


def test_host_with_port() -> None:
    assert h.build_host("::1", 443, True, always_include_port=True) == "[::1]:443"


def test_basic() -> None:
    assert h.build_authorization_basic("Aladdin", "open sesame") == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="  # RFC 7617, 2
    assert h.build_authorization_basic("test", "123\xa3") == "Basic dGVzdDoxMjPCow=="  # RFC 7617, 2.1


@pytest.mark.parametrize(("username", "password"), [("a:b", "c"), ("a\n", "c"), ("a", "c\x00"), ("a", "c\x7f")])
def test_bad_basic(username: str, password: str) -> None:
    with pytest.raises(ValueError, match="expected a user name"):
        h.build_authorization_basic(username, password)


def test_bearer() -> None:
    assert h.build_authorization_bearer("mF_9.B5f-4.1JqM=") == "Bearer mF_9.B5f-4.1JqM="  # RFC 6750, 2.1
    for bad in ("", "a b", "a\r\nb", "a=b", "\xe9"):
        with pytest.raises(ValueError, match="bearer token"):
            h.build_authorization_bearer(bad)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a\r\n\x1b[31m", "'a\\r\\n\\x1b[31m'"),
        (b"\x16\x03", "b'\\x16\\x03'"),
        ("\u202e", "'\\u202e'"),
        ("x" * 64, "'" + "x" * 64 + "'"),
        ("x" * 65, "'" + "x" * 64 + "'... (65 bytes)"),
    ],
)
def test_show(value: str | bytes, shown: str) -> None:
    assert show(value) == shown


def test_a_header_of_another_type_is_told() -> None:
    for name, value in (("X", []), ("X", {}), ([], "y"), ("X", bytearray(b"y"))):
        with pytest.raises(TypeError, match="as str, got"):
            h.header_line(name, value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value",
    [
        "Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        "Basics QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        "Basic QWxhZGRp.bjpvcGVuIHNlc2FtZQ==",
        "Basic QWxhZGRp~bjpvcGVuIHNlc2FtZQ==",
        "Basic QWxhZGRpbjpv-cGVuIHNlc2FtZQ==",
    ],
)
def test_credentials_are_those_of_basic_and_nothing_else(value: str) -> None:
    """Not a token that happens to be the same, nor one with characters between that base64 does not have."""
    with pytest.raises(InvalidHeader):
        h.parse_authorization_basic(value)


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        ("", InvalidHeaderFormat, "expected a scheme and credentials in base64"),
        ("Basic", InvalidHeaderFormat, "expected a scheme and credentials in base64"),
        ("QWxhZGRpbg==", InvalidHeaderFormat, "expected a scheme and credentials in base64"),
        ("Digest QWxhZGRpbg==", InvalidHeader, "expected the scheme Basic, got 'Digest'"),
        ("Basic QWxhZGRpbg", InvalidHeader, "expected credentials in base64 and UTF-8"),
        ("Basic /w==", InvalidHeader, "expected credentials in base64 and UTF-8"),
        ("Basic QWxhZGRpbg==", InvalidHeader, "expected a user name and a password with a colon between them"),
    ],
)
def test_credentials_that_cannot_be_read_are_told_and_not_shown(
    value: str, error: type[InvalidHeader], text: str
) -> None:
    with pytest.raises(InvalidHeader, match=text) as info:
        h.parse_authorization_basic(value)
    assert type(info.value) is error
    assert "QWxhZGRpbg" not in str(info.value)
    assert "Aladdin" not in str(info.value)


def test_credentials_of_basic() -> None:
    assert h.parse_authorization_basic("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==") == ("Aladdin", "open sesame")
    assert h.parse_authorization_basic("bAsIc  OmE6Yg==") == ("", "a:b")
