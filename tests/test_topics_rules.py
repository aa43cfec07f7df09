"""The rules of topics: names, patterns, histories, and which rule goes before which."""

from __future__ import annotations

import enum

import pytest

from wsfast.topics import rules
from wsfast.topics.rules import History, Rule, Rules, check_name, is_name

NAMES = ["a", "A-Z_0.9:@/x", "x" * 200]
NO_NAMES = ["", "x" * 201, "a b", "a*", "caf\xe9", "a\n", "\ud800"]


@pytest.mark.parametrize("name", NAMES)
def test_names(name: str) -> None:
    assert is_name(name)
    assert check_name(name) == name


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_is_no_name(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(ValueError, match="a topic's name must have 1 to 200 of"):
        check_name(name)


def test_a_name_is_str() -> None:
    class Topic(enum.StrEnum):
        NEWS = "news"

    assert type(check_name(Topic.NEWS)) is str
    for name in (b"a", None):
        assert not is_name(name)
        with pytest.raises(TypeError, match="a topic's name must be str"):
            check_name(name)


@pytest.mark.parametrize(("size", "ttl"), [(1, 1), (100_000, 31_536_000), (100, 1.5)])
def test_histories(size: int, ttl: float) -> None:
    history = History(size, ttl)
    assert (history.size, history.ttl) == (size, ttl)


@pytest.mark.parametrize(
    ("size", "ttl", "error", "text"),
    [
        (0, 1, ValueError, "size must be from 1 to 100000, got 0"),
        (100_001, 1, ValueError, "size must be from 1 to 100000"),
        (1.0, 1, TypeError, "size must be int, got float"),
        (True, 1, TypeError, "size must be int, got bool"),
        (1, 0.99, ValueError, "ttl must be from 1 to 31536000 seconds, got 0.99"),
        (1, 31_536_000.5, ValueError, "ttl must be from 1 to 31536000"),
        (1, float("nan"), ValueError, "ttl must be from 1 to 31536000"),
        (1, "1", TypeError, "ttl must be a number of seconds, got str"),
        (1, True, TypeError, "ttl must be a number of seconds, got bool"),
    ],
)
def test_histories_that_are_not_valid(size: int, ttl: float, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        History(size, ttl)


def test_a_name_goes_before_a_prefix_and_a_longer_prefix_before_a_shorter_one() -> None:
    known = Rules()
    every, room, room_one, exact = (Rule(history=History(size)) for size in range(1, 5))
    known.add("room.*", room)
    known.add("*", every)
    known.add("room.1", exact)
    known.add("room.1*", room_one)
    assert known.of("room.1") is exact
    assert known.of("room.12") is room_one
    assert known.of("room.2") is room
    assert known.of("room") is every
    assert Rules().of("room") == Rule()


def test_a_rule_holds_for_names_that_were_asked_for_before() -> None:
    known = Rules()
    assert not known.of("a").conflate
    known.add("a", Rule(conflate=True))
    assert known.of("a").conflate


@pytest.mark.parametrize("pattern", ["a", "a*", "*"])
def test_a_pattern_has_one_rule(pattern: str) -> None:
    known = Rules()
    known.add(pattern, Rule())
    with pytest.raises(ValueError, match="has a rule already"):
        known.add(pattern, Rule(conflate=True))
    assert not known.of("a").conflate


@pytest.mark.parametrize("pattern", ["", "a*b", "*a", "a b*", "a**", "x" * 201])
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(ValueError, match="a pattern must be a topic's name, or a prefix with"):
        Rules().add(pattern, Rule())


def test_a_pattern_is_str() -> None:
    with pytest.raises(TypeError, match="a pattern must be str, got bytes"):
        Rules().add(b"a", Rule())  # type: ignore[arg-type]


def test_names_that_were_asked_for_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client may ask for any number of them."""
    monkeypatch.setattr(rules, "_CACHED", 3)
    known = Rules()
    for number in range(10):
        known.of(str(number))
        assert len(known.known) <= 3


def test_a_name_that_is_not_valid_is_not_kept() -> None:
    known = Rules()
    with pytest.raises(ValueError, match="a topic's name"):
        known.of("a b")
    assert not known.known
