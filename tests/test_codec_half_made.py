"""Objects of the extensions that are half made, made twice, copied, or lent memory that is gone: errors, no crashes.

All extension modules of the package and all their types are found here by themselves, so that a new one is tried too.
Each case has a process of its own, since what fails may end it.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import wsfast

PACKAGE = Path(wsfast.__file__).parent
MODULES = sorted(
    # Of an extension in any form: what is installed has no sources.
    ".".join(("wsfast", *path.relative_to(PACKAGE).parent.parts, path.name.partition(".")[0]))
    for ending in importlib.machinery.EXTENSION_SUFFIXES[:1]
    for path in PACKAGE.rglob(f"*{ending}")
)
TYPES = [
    f"{module}:{name}"
    for module in MODULES
    for name, value in vars(importlib.import_module(module)).items()
    if isinstance(value, type) and value.__module__ == module
]
PUBLIC = {f"{module}:{name}" for module in MODULES for name in importlib.import_module(module).__all__}

PRELUDE = """
import asyncio, copy, gc, importlib, inspect, pickle, ssl, sys
import wsfast
from wsfast import _codec
from wsfast._codec import Decoder, Encoder
from wsfast.asyncio import _channel
from wsfast.asyncio.protocol import ConnectionProtocol
from wsfast.transport import _tls
from wsfast.transport.tls import TLSTransport

LARGE = b"\\x82\\x7f" + (1 << 20).to_bytes(8, "big")

def refused(kinds, call, *arguments, **options):
    try:
        made = call(*arguments, **options)
    except kinds as exc:
        return str(exc)
    sys.exit(f"{call} was not refused: {made!r}")

ARGUMENTS = [
    (), (0,), (1,), (-1,), (2**70,), (b"x",), ("x",), ("\\xe4" * 20000,), (None,), (None, None), ([],), (b"x" * 70000,),
    (None, None, -1, 1, 1, 1), (None, bytearray(4096), None, False, None), (KeyError,), (1, b"x"),
]

def prod(thing):
    '''Call whatever it has with whatever comes to mind; what counts is to live on.'''
    kind = type(thing)
    for _ in range(2):
        for name in sorted(dir(kind)):
            if name in ("__class__", "__new__", "__init_subclass__", "__subclasshook__"):
                continue
            for arguments in ARGUMENTS:
                try:
                    made = getattr(thing, name)(*arguments)
                    if hasattr(made, "send") and hasattr(made, "close"):
                        made.close()
                    memoryview(made)
                except (Exception, asyncio.CancelledError):
                    pass
            if inspect.isdatadescriptor(inspect.getattr_static(kind, name, None)) and not name.startswith("__"):
                for value in (True, 0, None, 2**40):
                    try:
                        setattr(thing, name, value)
                    except Exception:
                        pass
    gc.collect()

def refuse_to_copy(thing):
    refused(TypeError, copy.copy, thing)
    refused(TypeError, copy.deepcopy, thing)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        refused(TypeError, pickle.dumps, thing, protocol)
"""


def run(code: str) -> str:
    """Run code behind the prelude in a process of its own, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", PRELUDE + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PYTHONMALLOC": "debug", **os.environ, "PYTHONPATH": str(PACKAGE.parent)},  # of sanitizers, too
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_types_are_found() -> None:
    assert {"wsfast._codec:Decoder", "wsfast.asyncio._channel:Channel", "wsfast.transport._tls:TLSPipe"} <= set(TYPES)
    assert len(TYPES) > len(PUBLIC & set(TYPES)) > 0


@pytest.mark.parametrize("name", [name for name in TYPES if name not in PUBLIC])
def test_what_only_the_extension_makes(name: str) -> None:
    module, _, kind = name.partition(":")
    run(f"""
        kind = getattr(importlib.import_module({module!r}), {kind!r})
        for arguments in ARGUMENTS:
            assert refused(TypeError, kind, *arguments).startswith("cannot create '"), arguments
            refused(TypeError, kind.__new__, kind, *arguments)
        refused(TypeError, object.__new__, kind)
        refused(TypeError, type, "Derived", (kind,), {{}})
    """)


@pytest.mark.parametrize("name", [name for name in TYPES if name in PUBLIC])
def test_what_is_derived_from_or_made(name: str) -> None:
    """By `__new__` alone, or by a class whose `__init__` calls no other."""
    module, _, kind = name.partition(":")
    run(f"""
        kind = getattr(importlib.import_module({module!r}), {kind!r})
        try:
            class Derived(kind):
                def __init__(self, *arguments): pass
        except TypeError:
            Derived = kind  # final
        for one in (kind, Derived):
            for arguments in ARGUMENTS:
                try:
                    half = one.__new__(one, *arguments)
                except Exception:
                    continue
                refuse_to_copy(half)
                prod(half)
    """)


def test_objects_of_an_open_connection() -> None:
    """What a user can lay hands on by the garbage collector, in the middle of its work."""
    found = run("""
        import wsfast.testing

        kinds = [
            value
            for module in (_channel, _codec, _tls) for value in vars(module).values()
            if isinstance(value, type) and value.__module__ == module.__name__
        ]

        async def main():
            async with wsfast.testing.pair() as (client, server):
                waiting = asyncio.ensure_future(client.recv())
                steps = aiter(server)
                step = anext(steps)
                sending = client.send(["a", "b"])
                things = [client, server, steps, step, sending, waiting.get_coro()]
                await asyncio.sleep(0)
                decoder = Decoder(masked=False)
                decoder.feed(LARGE)
                things.append(decoder.get_buffer().obj)
                things += [thing for thing in gc.get_objects() if isinstance(thing, tuple(kinds))]
                for thing in things:
                    if isinstance(thing, tuple(kinds)):
                        refuse_to_copy(thing)
                for thing in things:
                    if isinstance(thing, tuple(kinds)) and type(thing) in kinds:
                        print(type(thing).__name__)
                        prod(thing)
                waiting.cancel()

        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda *_: None)
        try:
            loop.run_until_complete(asyncio.wait_for(main(), 30))
        except (Exception, asyncio.CancelledError):
            pass  # the connection is ruined
        sys.stdout.flush()
        sys.stderr.close()
    """)
    assert {"Decoder", "Iteration", "Receive", "Turn", "_Lease"} <= set(found.split())


CASES = {
    "made twice: a decoder whose buffer was lent": """
        decoder = Decoder(masked=False)
        decoder.get_buffer()
        refused(RuntimeError, decoder.__init__, masked=False, buffer=bytearray(1024))
        lent = decoder.get_buffer()
        lent[:7] = b"\\x81\\x05hello"
        assert decoder.buffer_updated(7) == ["hello"]
    """,
    "made twice: a decoder by its own inflate": """
        def inflate(data, fin, limit):
            refused(RuntimeError, decoder.__init__, masked=True, max_size=1, max_fragments=1, max_events=1)
            return data * 2
        decoder = Decoder(masked=False, inflate=inflate)
        assert decoder.feed(b"\\xc1\\x03abc\\x81\\x03xyz") == ["abcabc", "xyz"]
    """,
    "made twice: an encoder with frames": """
        encoder = Encoder(mask=True)
        encoder.message("x" * 1000)
        refused(RuntimeError, encoder.__init__)
        assert encoder.take()[1] & 0x80
    """,
    "made once more, after the first time failed": """
        decoder = Decoder.__new__(Decoder)
        refused(ValueError, decoder.__init__, masked=False, max_size=0)
        refused(RuntimeError, decoder.feed, b"")
        decoder.__init__(masked=False)
        assert decoder.feed(b"\\x81\\x00") == [""]
    """,
    "not made: a decoder and an encoder": """
        decoder, encoder = Decoder.__new__(Decoder), Encoder.__new__(Encoder)
        for call in (lambda: decoder.feed(b"\\x81\\x00"), decoder.get_buffer, lambda: decoder.buffer_updated(0)):
            assert "__init__() was not called" in refused(RuntimeError, call)
        for call in (lambda: encoder.message(""), lambda: encoder.frame(1), lambda: encoder.encoded(b"x")):
            assert "__init__() was not called" in refused(RuntimeError, call)
        assert encoder.take() == b"" and len(encoder) == decoder.held == 0 and not decoder.pending
    """,
    "released: the buffer of a decoder, lent and not": """
        for lend in (False, True):
            memory = memoryview(bytearray(4096))
            decoder = Decoder(masked=False, buffer=memory)
            if lend:
                decoder.get_buffer()
            memory.release()
            gc.collect()
            if lend:
                refused(ValueError, decoder.buffer_updated, 4096)
            refused(ValueError, decoder.get_buffer)
            assert decoder.feed(b"\\x81\\x00") == [""]
    """,
    "released: the memory of a message": """
        decoder = Decoder(masked=False)
        decoder.feed(LARGE + bytes(100_000))
        decoder.get_buffer().release()
        decoder.buffer_updated(1000)
        view = decoder.get_buffer()
        del decoder
        gc.collect()
        view[:] = bytes(len(view))
    """,
    "released: the buffer of TLS": """
        class Pipe(_tls.TLSPipe):
            def shake_hands(self): sys.exit("it was read")
        pipe = Pipe()
        refused(TypeError, pipe.begin, object(), memoryview(bytearray(9)), ssl.create_default_context(), False, "a")
        pipe.begin(object(), _tls.ReceiveBuffer(1 << 20), ssl.create_default_context(), False, "localhost")
        pipe.get_buffer(-1).release()
        refused(BufferError, pipe.get_buffer(-1).obj.clear)
        gc.collect()
        for nbytes in (-1, (1 << 20) + 1):
            refused(ValueError, pipe.buffer_updated, nbytes)
    """,
    "released: by inflate, while it is read": """
        memory = memoryview(bytearray(4096))
        def inflate(data, fin, limit):
            refused(BufferError, memory.release)
            return data
        decoder = Decoder(masked=False, inflate=inflate, buffer=memory)
        decoder.get_buffer()[:10] = b"\\xc1\\x03abc\\x81\\x03xyz"
        assert decoder.buffer_updated(10) == ["abc", "xyz"]
    """,
    "not open: a protocol": """
        for make in (lambda: ConnectionProtocol.__new__(ConnectionProtocol),):
            protocol = make()
            refused(Exception, protocol.get_buffer, 1)
            refused(Exception, protocol.buffer_updated, 1)
            prod(protocol)
    """,
    "not open: a WebSocket": """
        for ws in (wsfast.WebSocket(), wsfast.WebSocket.__new__(wsfast.WebSocket)):
            refuse_to_copy(ws)
            for call in (ws.recv, ws.__anext__, lambda: anext(aiter(ws)), lambda: ws.send_nowait("x")):
                try:
                    waiting = call()
                    refused(wsfast.InvalidState, waiting.send, None)
                except wsfast.InvalidState:
                    pass
            prod(ws)
    """,
    "not begun: a transport of TLS": """
        transport = TLSTransport.__new__(TLSTransport)
        refused(Exception, transport.get_buffer, -1)
        refused(Exception, transport.buffer_updated, 1)
        prod(transport)
    """,
    "out of range: levels of vector code, and lengths": """
        for level in (-1, 0, 1, 2, 3, 2**31 - 1, -2**31):
            assert _codec._choose(level) <= max(level, 0)
            assert Decoder(masked=False).feed(b"\\x81\\x7e\\x00\\x80" + b"\\xc3\\xa9" * 64) == ["\\xe9" * 64]
        refused(OverflowError, _codec._choose, 10**30)
        decoder = Decoder(masked=False)
        decoder.get_buffer()
        refused(ValueError, decoder.buffer_updated, 10**30)
    """,
    "kept: a view of a message that was delivered": """
        decoder = Decoder(masked=False)
        decoder.feed(LARGE)
        kept, messages = [], []
        while not messages:
            view = decoder.get_buffer()
            view[:] = b"a" * len(view)
            kept.append(view)
            messages = decoder.buffer_updated(len(view))
        del decoder, messages
        gc.collect()
        for view in kept:
            view[:] = b"b" * len(view)
    """,
}


@pytest.mark.parametrize("case", CASES)
def test_case(case: str) -> None:
    run(CASES[case])


@pytest.mark.parametrize("kind", ["Decoder", "Encoder"])
def test_the_twins_agree(codec: Any, kind: str) -> None:
    """That neither is made twice, or copied."""
    import copy
    import pickle

    options = {"masked": False} if kind == "Decoder" else {}
    made = getattr(codec, kind)(**options)
    with pytest.raises(RuntimeError, match=rf"^{kind}.__init__\(\) was called twice$"):
        made.__init__(**options)
    for call in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=r"^cannot pickle '.*'"):
            call(made)
