"""Messages in pieces, by themselves."""

from __future__ import annotations

import array
from typing import Any

import pytest

from wsfast import Fragment
from wsfast.assembly import Assembler, Decoded, PieceCheck, check_pieces, converted, is_whole


@pytest.mark.parametrize("pieces", [("a", "", "b✓"), (b"a", b"", b"\xff")], ids=["text", "binary"])
def test_pieces_are_put_together(pieces: tuple[Any, ...]) -> None:
    assembler = Assembler()
    for _ in range(2):
        assert [assembler.add(Fragment(piece, False)) for piece in pieces] == [None] * 3
        assert assembler.holding
        assert assembler.add(Fragment(pieces[1], True)) == pieces[0] + pieces[2]
        assert not assembler.holding


def test_the_rest_of_a_message_is_dropped() -> None:
    assembler = Assembler()
    assembler.add(Fragment("a", False))
    assembler.skip()
    assert assembler.skipping
    assert not assembler.holding
    assert assembler.add(Fragment("b", False)) is None
    assert assembler.add(Fragment("c", True)) is None
    assert not assembler.skipping
    assert assembler.add(Fragment("d", True)) == "d"


def test_what_there_is_can_be_taken() -> None:
    assembler = Assembler()
    assembler.add(Fragment(b"a", False))
    assembler.add(Fragment(b"b", False))
    assert assembler.take() == Fragment(b"ab", False)
    assert not assembler.holding
    assert assembler.add(Fragment(b"c", True)) == b"c"


@pytest.mark.parametrize("message", ["", b"", bytearray(b"x"), memoryview(b"x"), array.array("I", [1])])
def test_whole_messages(message: Any) -> None:
    assert is_whole(message)


@pytest.mark.parametrize("message", [[], ("a",), {"a"}, iter(()), [None]])
def test_messages_in_pieces(message: Any) -> None:
    assert not is_whole(message)


@pytest.mark.parametrize("message", [None, 1, 1.5, {}, {"a": 1}, object()])
def test_what_is_no_message(message: Any) -> None:
    with pytest.raises(TypeError, match=f"iterable of these, got {type(message).__name__}"):
        is_whole(message)


def test_pieces_are_checked() -> None:
    wrongs: list[Any] = [None, 1, ["a"], {}]
    for wrong in wrongs:
        with pytest.raises(TypeError, match=f"str or bytes-like, got {type(wrong).__name__}"):
            PieceCheck()(wrong)
    check = PieceCheck()
    assert check.kind is None
    check(bytearray(b"x"))
    check(b"y")
    assert check.kind is bytes
    with pytest.raises(TypeError, match="all fragments must be bytes, got str"):
        check("z")


def test_pieces_that_are_there_already_are_checked() -> None:
    for pieces in ["a", "b"], ("a", "b"), [], iter(["a", b"b"]):
        check_pieces(pieces)
    for wrong in ["a", b"b"], ("a", None):
        with pytest.raises(TypeError, match="all fragments must be"):
            check_pieces(wrong)


@pytest.mark.parametrize(
    ("message", "decode", "expected"),
    [
        ("ä", None, "ä"),
        ("ä", True, "ä"),
        ("ä", False, b"\xc3\xa4"),
        (b"\xc3\xa4", None, b"\xc3\xa4"),
        (b"\xc3\xa4", True, "ä"),
        (b"\xc3\xa4", False, b"\xc3\xa4"),
    ],
)
def test_a_message_is_converted(message: str | bytes, decode: bool | None, expected: str | bytes) -> None:
    assert converted(message, decode) == expected
    assert Decoded(decode)(message, True) == expected


def test_pieces_that_end_within_a_character_are_converted() -> None:
    decoded = Decoded(True)
    assert [decoded(b"a\xc3", False), decoded(b"\xa4b\xe2\x9c", False), decoded(b"\x93", True)] == ["a", "äb", "✓"]


def test_a_character_that_does_not_end_is_refused() -> None:
    decoded = Decoded(True)
    assert decoded(b"a\xc3", False) == "a"
    with pytest.raises(UnicodeDecodeError, match="unexpected end of data"):
        decoded(b"", True)
