"""WebSocket URIs (RFC 6455, 3)."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsfast.exceptions import InvalidURI
from wsfast.handshake.uri import (
    URI,
    as_ip,
    as_network,
    format_address,
    got,
    is_address,
    mask,
    parse_uri,
    unquoted,
)


@pytest.mark.parametrize(
    ("uri", "parts", "resource_name"),
    [
        ("ws://localhost", URI(False, "localhost", 80, "", ""), "/"),
        ("wss://localhost/", URI(True, "localhost", 443, "/", ""), "/"),
        ("WS://LocalHost:8765/Path?Query=1", URI(False, "localhost", 8765, "/Path", "Query=1"), "/Path?Query=1"),
        ("WsS://a.example.:1/", URI(True, "a.example.", 1, "/", ""), "/"),
        ("ws://h?a=b", URI(False, "h", 80, "", "a=b"), "/?a=b"),
        ("ws://h:65535/", URI(False, "h", 65535, "/", ""), "/"),
        ("ws://h:/", URI(False, "h", 80, "/", ""), "/"),
        ("ws://127.0.0.1:80/", URI(False, "127.0.0.1", 80, "/", ""), "/"),
        ("ws://[::1]:8080/x", URI(False, "::1", 8080, "/x", ""), "/x"),
        ("ws://[FE80::1%25eth0]/", URI(False, "fe80::1%eth0", 80, "/", ""), "/"),
        ("ws://[fe80::1%eth0]/", URI(False, "fe80::1%eth0", 80, "/", ""), "/"),
        ("wss://b\xfccher.example/", URI(True, "xn--bcher-kva.example", 443, "/", ""), "/"),
        ("ws://h/caf\xe9/\u20ac?q=\xe9", URI(False, "h", 80, "/caf%C3%A9/%E2%82%AC", "q=%C3%A9"), None),
        ("ws://h/a%20b%2F?c=%26", URI(False, "h", 80, "/a%20b%2F", "c=%26"), "/a%20b%2F?c=%26"),
        ('ws://h/"<>^`{|}\\', URI(False, "h", 80, "/%22%3C%3E%5E%60%7B%7C%7D%5C", ""), None),
        ("ws://h/:/?[]@!$&'()*+,;=~", URI(False, "h", 80, "/:/", "[]@!$&'()*+,;=~"), None),
        ("ws://user:pass@h/", URI(False, "h", 80, "/", "", "user", "pass"), "/"),
        ("ws://us%40er:p%C3%A9%3A:@h/", URI(False, "h", 80, "/", "", "us@er", "p\xe9::"), "/"),
        ("ws://a@b:c@h/", URI(False, "h", 80, "/", "", "a@b", "c"), "/"),
        ("ws://token@h/", URI(False, "h", 80, "/", "", "token", ""), "/"),
        ("ws://u:p@[::1]:/", URI(False, "::1", 80, "/", "", "u", "p"), "/"),
        (f"ws://{'a' * 63}.example/", URI(False, f"{'a' * 63}.example", 80, "/", ""), "/"),
        ("ws://my_service:1/", URI(False, "my_service", 1, "/", ""), "/"),
    ],
)
def test_good(uri: str, parts: URI, resource_name: str | None) -> None:
    parsed = parse_uri(uri)
    assert parsed == parts
    if resource_name is not None:
        assert parsed.resource_name == resource_name
    assert parsed.resource_name.isascii()


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("", "scheme"),
        ("localhost", "scheme"),
        ("http://h/", "scheme ws or wss, got 'http'"),
        ("//h/", "scheme"),
        ("ws:/h", "host"),
        ("ws://", "host"),
        ("ws:///path", "host"),
        ("ws://:80/", "host"),
        ("ws://h/#f", "fragment"),
        ("ws://h/#", "fragment"),  # also an empty one
        ("ws://h:0/", "port"),
        ("ws://h:65536/", "port"),
        ("ws://h:-1/", "port"),
        ("ws://h:x/", "port"),
        ("ws://h:\u0661/", "port"),
        ("ws://[::1/", "port"),
        ("ws://[::g]/", "port|IPv6"),
        ("ws://[1:2]/", "port|IPv6"),
        ("ws://[v1.a:b]/", "port|IPv6"),
        ("ws://[::1]x/", "port"),
        ("ws://[::1]x:80/", "port"),
        ("ws://x[::1]/", "port"),
        ("ws://u:p@[::1][::1]/", "port"),
        ("ws://a b/", "' '"),
        ("ws://h/a b", "' '"),
        ("ws://h/a\r\nX: y", r"'\\r'"),
        ("ws://h/a\x00", r"'\\x00'"),
        ("\tws://h/", r"'\\t'"),
        ("ws://h/\x7f", r"'\\x7f'"),
        ("ws://h%0d/", "host name"),
        ("ws://a..b/", "host name"),
        ("ws://a,b/", "host name"),
        ("ws://h\u3002\u3002x/", "IDNA"),
        ("ws://" + "\xe9" * 70 + "/", "IDNA"),
        ("ws://" + "a" * 64 + ".example/", "host name"),
        ("ws://h/\ud800", "UTF-8"),
        ("ws://h/?\ud800", "UTF-8"),
        ("ws://us%FFer:p@h/", "user name"),
    ],
)
def test_bad(uri: str, text: str) -> None:
    """RFC 6455, 3; fragments "MUST NOT be used on these URIs"."""
    with pytest.raises(InvalidURI, match=text) as info:
        parse_uri(uri)
    assert isinstance(info.value, ValueError)


@pytest.mark.parametrize("uri", [b"ws://h/", None])
def test_what_is_no_text(uri: object) -> None:
    with pytest.raises(TypeError, match="expected the URI as str, got "):
        parse_uri(uri)  # type: ignore[arg-type]


def test_passwords_do_not_leak() -> None:
    for uri in ("ws://user:secret@h:x/", "ws://user:secret@/", "ws://user:secret@h/#f", "ws://a@user:secret@h/#f"):
        with pytest.raises(InvalidURI) as info:
            parse_uri(uri)
        assert "secret" not in str(info.value)
        assert "secret" not in info.value.uri
    assert "secret" not in repr(parse_uri("ws://user:secret@h/"))
    assert repr(parse_uri("ws://h/")).startswith("URI(secure=False, host='h', port=80")


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("ws://user:secret@h:x/", "ws://***@h:.../"),
        ("WS://user@h/", "WS://***@h/"),
        ("ws://h:99999x/p?token#f", "ws://h:.../p?..."),
        ("wss://h:1/p?token", "wss://h:1/p?..."),
        ("user:secret@h", "***@h"),
        ("ws:user@h/?token", "***@h/?..."),
        ("token://user@h", "***@h"),
        ("http://u:p/w@h:b:c/p?token", "http://***@h:.../p?..."),
        ("ws://h/p", "ws://h/p"),
    ],
)
def test_what_is_shown_of_a_uri(uri: str, shown: str) -> None:
    assert mask(uri) == shown


def test_what_came_is_shown_if_it_is_no_secret() -> None:
    assert got("ws://h:.../", "H") == ", got 'H'"
    assert got("ws://h:.../", "") == ""
    assert got("ws://h:.../", "secret") == ""


def test_the_repr_has_no_secrets() -> None:
    assert repr(parse_uri("ws://user:secret@h/p?token")) == (
        "URI(secure=False, host='h', port=80, path='/p', query='...', username='***', password='***')"
    )
    assert repr(parse_uri("ws://user@h/")) == (
        "URI(secure=False, host='h', port=80, path='/', query='', username='***', password='')"
    )
    assert repr(parse_uri("wss://h/")) == (
        "URI(secure=True, host='h', port=443, path='/', query='', username=None, password=None)"
    )


@pytest.mark.parametrize(
    "scheme",
    [
        *("ws", "wss", "http", "https", "ftp", "socks4", "socks4a", "socks5", "socks5h"),
        *("nats", "tls", "redis", "rediss", "unix"),
    ],
)
def test_schemes_that_wsfast_knows_are_shown(scheme: str) -> None:
    """Any other may be a secret: who writes ``token://`` may mean ``user:token``."""
    assert mask(f"{scheme}://u:p@h") == f"{scheme}://***@h"
    assert mask(f"{scheme}x://u:p@h") == "***@h"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1", ip_address("10.0.0.1")),
        ("::ffff:10.0.0.1", ip_address("10.0.0.1")),
        ("::ffff:10.0.0.1%eth0", ip_address("10.0.0.1")),
        ("2001:db8::1", ip_address("2001:db8::1")),
        ("fe80::1%eth0", ip_address("fe80::1")),
        ("10.0.0.1%eth0", None),
        ("10.0.0", None),
        ("h", None),
        ("", None),
    ],
)
def test_as_ip(text: str, address: IPv4Address | IPv6Address | None) -> None:
    assert as_ip(text) == address


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.1.2.3", "10.1.2.3/32"),
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("::ffff:10.1.2.3", "10.1.2.3/32"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::ffff:0:0/95", "::fffe:0:0/95"),  # has other addresses, too
        ("::/96", "::/96"),
    ],
)
def test_as_network(text: str, network: str) -> None:
    assert as_network(text) == ip_network(network)


@pytest.mark.parametrize("text", ["", "h", "10.0.0.0/33", "::/129", "10.0.0.0/-1"])
def test_what_is_no_network(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        as_network(text)


@pytest.mark.parametrize(("host", "known"), [("127.0.0.1", True), ("::1", True), ("fe80::1%eth0", True), ("h", False)])
def test_is_address(host: str, known: bool) -> None:
    assert is_address(host) is known


@pytest.mark.parametrize(("part", "plain"), [("a%20b", "a b"), ("a%ffb", None), ("\ud800", None)])
def test_unquoted(part: str, plain: str | None) -> None:
    assert unquoted(part) == plain


@pytest.mark.parametrize("uri", ["ws://%ff@h/", "ws://a:%ff@h/"])
def test_credentials_that_are_not_utf_8(uri: str) -> None:
    with pytest.raises(InvalidURI, match="expected a user name and a password in UTF-8"):
        parse_uri(uri)


def test_user_info() -> None:
    assert parse_uri("ws://h/").user_info is None
    assert parse_uri("ws://u:p@h/").user_info == ("u", "p")
    assert parse_uri("ws://u@h/").user_info == ("u", "")


@given(st.text(max_size=40), st.sampled_from(["", "ws://", "wss://h/", "ws://h?", "ws://[", "ws://u:p@"]))
def test_nothing_else_is_raised(text: str, prefix: str) -> None:
    try:
        parsed = parse_uri(prefix + text)
    except InvalidURI:
        return
    assert parsed.resource_name.isascii()
    assert parsed.resource_name.isprintable()
    assert parsed.host.isascii()
    assert 1 <= parsed.port <= 65535


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (("h",), "('h',)"),
        ((1, 2), "(1, 2)"),
        (("127.0.0.1", 80), "127.0.0.1:80"),
        (("::1", 80, 0, 0), "[::1]:80"),
        (("fe80::1%eth\x1b0", 80, 0, 2), "[fe80::1%eth\\x1b0]:80"),
        ("/run/a\nb", "/run/a\\nb"),
        ("", "a Unix socket"),
        (b"\0abstract", "b'\\x00abstract'"),
        (None, "an unknown address"),
    ],
)
def test_addresses_in_logs(address: object, text: str) -> None:
    assert format_address(address) == text
