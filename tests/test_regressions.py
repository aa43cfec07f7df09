"""What fuzzing found: each input that failed once."""

from __future__ import annotations

import pytest

from wsfast.connection import Connection, Side
from wsfast.exceptions import InvalidURI
from wsfast.uri import parse_uri


@pytest.mark.parametrize("uri", ["ws://us\udcff:pw@a.example/", "ws://user:p\udcff@a.example/"])
def test_uri_with_a_lone_surrogate_in_its_credentials(uri: str) -> None:
    with pytest.raises(InvalidURI, match="a user name and a password in UTF-8") as caught:
        parse_uri(uri)
    assert "pw" not in str(caught.value)
    assert "\udcff" not in str(caught.value)


@pytest.mark.parametrize("rest", ["x", "", "\u20ac"])
def test_str_fragment_after_half_a_character(rest: str) -> None:
    # It would have sent text that is not UTF-8.
    connection = Connection(Side.SERVER)
    connection.send_fragment(b"a\xe2\x82", False, text=True)
    sent = connection.encoder.take()
    with pytest.raises(UnicodeDecodeError):
        connection.send_fragment(rest, True)
    assert sent == b"\x01\x03a\xe2\x82"
    assert connection.encoder.take() == b""
    # The message can still be finished.
    connection.send_fragment(b"\xac", True)
    assert connection.encoder.take() == b"\x80\x01\xac"
