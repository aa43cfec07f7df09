"""The other twins have the same shape: names, signatures, first lines of docstrings, and what they say before `open`.

What they do is held equal by the tests of connections, which run on both. `test_codec_parity.py` compares the codecs.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest

import wsfast
from wsfast._built import EXTENSIONS

pytestmark = pytest.mark.skipif(not EXTENSIONS, reason="wsfast was installed without extensions")

PACKAGE = Path(__file__).parent.parent / "src/wsfast"  # an installation has no .pyx
TWINS = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.pyx")
    if path.stem != "_codec"
)
KINDS = [
    (twin, name)
    for twin in TWINS
    for name, value in vars(importlib.import_module(f"wsfast.{twin}_py")).items()
    if name in importlib.import_module(f"wsfast.{twin}_py").__all__ and isinstance(value, type)
]


def both(twin: str) -> tuple[Any, Any]:
    return importlib.import_module(f"wsfast.{twin}_py"), importlib.import_module(f"wsfast.{twin}")


def public(kind: type) -> set[str]:
    """Names without an underscore, and those that syntax calls, which are of use."""
    special = {"__aiter__", "__anext__", "__await__", "__len__", "__iter__", "__contains__", "__call__"}
    return {name for name in dir(kind) if not name.startswith("_") or name in special}


def first_line(thing: Any) -> str | None:
    text = inspect.getdoc(thing)
    return text.splitlines()[0] if text else None


def arguments(function: Any) -> list[tuple[str, Any, Any]]:
    """Return names, kinds and defaults; C needs no names where it is called by place only."""
    return [(each.name, each.kind, each.default) for each in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize("twin", TWINS)
def test_the_modules_have_the_same_names(twin: str) -> None:
    python, cython = both(twin)
    # The base class of what lends memory is for C, and no name of the module there.
    assert set(python.__all__) - {"Receiver"} == set(cython.__all__) - {"Receiver"}
    for name in python.__all__:
        ours, theirs = getattr(python, name), getattr(cython, name)
        if not callable(ours):
            assert ours == theirs, name
        elif not isinstance(ours, type):
            assert arguments(ours) == arguments(theirs), name


@pytest.mark.parametrize(("twin", "name"), KINDS)
def test_the_classes_have_the_same_names(twin: str, name: str) -> None:
    python, cython = (getattr(module, name) for module in both(twin))
    assert public(python) == public(cython)


@pytest.mark.parametrize(("twin", "name"), KINDS)
def test_methods_have_the_same_signatures_and_first_lines(twin: str, name: str) -> None:
    python, cython = (getattr(module, name) for module in both(twin))
    differences: list[tuple[str, object, object]] = []
    for member in sorted(public(python) & public(cython)):
        ours, theirs = inspect.getattr_static(python, member), inspect.getattr_static(cython, member)
        if not (inspect.isfunction(ours) and callable(getattr(cython, member))):
            continue
        if not member.startswith("__") and arguments(getattr(python, member)) != arguments(getattr(cython, member)):
            differences.append((member, str(inspect.signature(ours)), str(inspect.signature(theirs))))
        if first_line(ours) and first_line(theirs) and first_line(ours) != first_line(theirs):
            differences.append((member, first_line(ours), first_line(theirs)))
    assert not differences


def test_defaults_before_open() -> None:
    """What a connection says while its handshake is still under way."""
    loop = asyncio.new_event_loop()
    try:
        seen = []
        for module in both("asyncio._channel"):
            kind = type("Protocol", (module.Channel,), {})
            channel = kind()
            channel.begin(module.Turn(loop, memoryview(bytearray(4096))), "opening")
            said = {}
            for member in sorted(public(module.Channel)):
                if callable(inspect.getattr_static(module.Channel, member, None)):
                    continue
                try:
                    said[member] = getattr(channel, member)
                except AttributeError:
                    said[member] = "not there"
            said.pop("turn")
            seen.append(said)
            ws = type("WebSocket", (module.Endpoint,), {})()
            for method, argument in (("_receive", None), ("send_nowait", "x")):
                with pytest.raises(wsfast.InvalidState, match=r"^the opening handshake is not finished$"):
                    getattr(ws, method)(argument)
        assert seen[0] == seen[1]
    finally:
        loop.close()
