"""``python -m wsfast ws://…``: an interactive client in a terminal, and a filter in scripts.

In a terminal, each line that is typed is sent as a message, and messages are printed above the line that is being
typed, with the time, and JSON that does not fit into a row in lines of its own. A line that begins with a slash is a
command, such as ``/ping`` or ``/close 4000 enough``; ``/help`` lists them. Ctrl-D or Ctrl-C closes the connection.

In a pipe, each line of standard input is sent as a message and each message is written as a line; with ``--binary`` the
input is sent as it comes, in binary messages, and messages are written as they are. At the end of input the connection
is closed once the server has seen everything and has been silent for ``--linger`` seconds. The server shows that it has
seen everything by answering a ping that is sent behind the last message; one that does not answer is waited for
``--close-timeout`` seconds, and stderr says so.

With ``--send``, the messages that it gives take the place of the input, in a terminal too. With ``--reconnect``, a
connection that is lost is followed by another one, which begins with what ``--send`` gives.

The exit status:

* 0: the connection was closed by this side, or by the server with 1000, 1001 or no code.
* 1: it could not be opened.
* 2: the arguments are wrong.
* 3: it was closed with another code.
* 4: it was lost: no Close frame came.
* 5: fewer messages came than ``--answers`` asks for.
* 130: Ctrl-C, in a pipe.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import re
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from wsfast.asyncio.websocket import WebSocket
from wsfast.client.connector import connect
from wsfast.codes import CloseCause
from wsfast.dial.reconnect import backoff, process_exception, was_lost
from wsfast.events import Close
from wsfast.exceptions import ConnectionClosed, WebSocketError

from .options import (
    add_connection_arguments,
    complain,
    connection_options,
    discard_output,
    escape,
    failure,
    fill,
    message_text,
    natural,
    positive,
    whole,
)
from .terminal import Input, Screen, choose_screen, terminal_columns

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["NAME", "add_parser", "run"]

NAME: Final = "connect"
"""The command's name; it can be left out where a URI is given."""

_SHOWN: Final = 512
"""Bytes of a binary message that are shown in a terminal."""
_PRETTY: Final = 100_000
"""Characters of a text message above which it is not looked at whether it is JSON."""
_KEPT: Final = 1000
"""Messages that are kept for ``/save``."""
_KEPT_BYTES: Final = 64 * 1048576
_LINGER: Final = 1.0
_LINGER_FOR_ANSWERS: Final = 30.0
"""Seconds of silence after which a server is taken to have answered all, where that many answers are asked for."""
_TOLD_AFTER: Final = 1.0
"""Seconds at the end after which stderr says what is waited for; a server that did not answer the ping has as many to
close."""

_EPILOG: Final = """exit status:
  0    closed by this side, or by the server with 1000, 1001 or no code
  1    could not connect
  2    wrong arguments
  3    closed with another code
  4    lost: no Close frame came
  5    fewer messages came than --answers asks for
  130  Ctrl-C, in a pipe

examples:
  python -m wsfast wss://example.com/chat
  echo hi | python -m wsfast ws://localhost:8765
  python -m wsfast --send '{"question": 42}' --answers 1 ws://localhost:8765
  python -m wsfast --send '{"subscribe": "ticks"}' --no-close --reconnect \\
      ws://localhost:8765 | jq .
"""


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        NAME,
        aliases=["client"],
        help="talk to a server; the command's name can be left out: python -m wsfast ws://…",
        description=fill(
            "Talk to a server. In a terminal, lines that are typed are sent, and messages are printed above. In a pipe,"
            " lines of the input are sent, and messages are written as lines."
        ),
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_connection_arguments(parser)
    group = parser.add_argument_group("talking")
    group.add_argument(
        *("-x", "--send"),
        type=message_text,
        metavar="TEXT",
        action="append",
        help="send this message, in place of what is typed or piped, which is not read; can be repeated",
    )
    group.add_argument(
        "--binary",
        action="store_true",
        help="send binary messages: typed lines; of a pipe, what comes, as it comes. Write messages without a newline",
    )
    group.add_argument(
        "--ping", type=positive, metavar="SECONDS", help="ping so often, and tell the round trip on stderr"
    )
    group.add_argument(
        "--linger",
        type=natural,
        metavar="SECONDS",
        help="after the end of a piped input, close when nothing was received for so long (default: 1; with --answers,"
        f" {_LINGER_FOR_ANSWERS:g})",
    )
    group.add_argument(
        "--close-timeout",
        type=positive,
        default=10.0,
        metavar="SECONDS",
        help="at the end, drop the connection when the server has not answered for so long (default: 10)",
    )
    group.add_argument(
        "--answers",
        type=whole("a number of messages", 1),
        metavar="N",
        help="in a pipe, close as soon as N messages were received; with fewer, exit with 5",
    )
    group.add_argument(
        "-n", "--no-close", action="store_true", help="after the end of a piped input, stay until the server closes"
    )
    group.add_argument(
        "--reconnect",
        action="store_true",
        help="connect again when the connection is lost, or cannot be opened, unless the server closes with 1000 or no"
        " code; --send is sent again",
    )
    group.add_argument(
        "--json",
        action="store_true",
        help="write each message as a line of JSON, with the time, and binary ones in base64; in a terminal too",
    )
    group.add_argument(
        "-v", "--verbose", action="store_true", help="tell on stderr about opening and closing, in a pipe too"
    )
    group.add_argument("--no-time", action="store_true", help="in a terminal, print messages without the time")
    group.add_argument("--no-json", action="store_true", help="in a terminal, print JSON as it comes")
    group.add_argument(
        "--no-commands", action="store_true", help="in a terminal, send lines that begin with a slash like all others"
    )
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Connect, talk, and close.

    Returns:
        The exit status; see the module.
    """
    interactive = args.send is None and not args.json
    interactive = interactive and sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    try:
        options = connection_options(args)
    except OSError as exc:
        complain(str(exc))
        return 1
    try:
        with asyncio.Runner() as runner:
            return runner.run(_talk(args, options, choose_screen() if interactive else None))
    except BrokenPipeError:
        # Who read our output has gone, as `head` does.
        discard_output()
        return 0


# --- Standard input and output ------------------------------------------------------------------------------------


def _write_message(message: str | bytes, args: argparse.Namespace) -> None:
    if args.json:
        data = _record(datetime.now(), "received", message).encode()
    else:
        data = message.encode() if isinstance(message, str) else message
        if not args.binary:
            data += b"\n"
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _record(at: datetime, kind: str, message: str | bytes) -> str:
    """Return a message as a line of JSON; its kind is "received" or "sent"."""
    what = {"text": message} if isinstance(message, str) else {"base64": base64.b64encode(message).decode()}
    return json.dumps({"time": at.astimezone().isoformat(timespec="milliseconds"), "kind": kind, **what}) + "\n"


def _shown(message: str | bytes, *, columns: int | None = None) -> list[str]:
    """Return the lines by which a message is shown, safe for a terminal.

    Args:
        message: the message.
        columns: JSON that is longer is shown in lines, indented; None to show it as it came.
    """
    if not isinstance(message, str):
        more = "..." if len(message) > _SHOWN else ""
        return [f"({len(message)} bytes) {message[:_SHOWN].hex(' ')}{more}"]
    if columns is not None and message[:1] in ("{", "[") and columns < len(message) <= _PRETTY:
        with contextlib.suppress(ValueError, RecursionError):
            json.loads(message)
            return [escape(line) for line in _indented(message)]
    return [escape(message)]


_JSON: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[]{}[,:]|[^]{}[,:"\s]+')


def _indented(text: str) -> list[str]:
    """Return valid JSON in lines. Numbers, escapes and repeated names stay as they came; `json.dumps` changes them."""
    lines = [""]
    depth = 0
    for token in _JSON.findall(text):
        if token in ("]", "}"):
            depth -= 1
            if lines[-1].strip():
                lines.append("  " * depth)
            else:  # it is empty
                lines.pop()
            lines[-1] += token
        elif token in ("[", "{"):
            depth += 1
            lines[-1] += token
            lines.append("  " * depth)
        elif token == ",":
            lines[-1] += token
            lines.append("  " * depth)
        else:
            lines[-1] += ": " if token == ":" else token
    return lines


# --- The conversation ---------------------------------------------------------------------------------------------


async def _talk(args: argparse.Namespace, options: dict[str, Any], make_screen: Callable[[], Screen] | None) -> int:
    client = _Client(args, make_screen)
    connector = connect(
        args.uri,
        close_timeout=args.close_timeout,
        process_exception=client.judge,
        reconnect_delays=client.delays,
        **options,
    )
    connections = aiter(connector)
    try:
        while True:
            try:
                ws = await (anext(connections) if args.reconnect else connector)
            except (WebSocketError, OSError, ValueError, ImportError) as exc:
                client.tell(failure(args, exc))
                return 1
            status = await client.talk(ws)
            if status is not None:
                return status
    finally:
        client.end()


class _Client:
    """What outlives a connection: the terminal or the pipe, and what was received."""

    def __init__(self, args: argparse.Namespace, make_screen: Callable[[], Screen] | None) -> None:
        self._args = args
        self._make_screen = make_screen
        self._screen: Screen | None = None
        self._conversation: _Conversation | _Pipe | None = None

    def tell(self, text: str) -> None:
        """Tell the user something: in the terminal, or on stderr."""
        if self._screen is None:
            complain(text)
        else:
            self._screen.show(f"* {escape(text)}", 2)

    def end(self) -> None:
        """Leave the terminal as it was."""
        if self._screen is not None:
            self._screen.end()
            self._screen = None

    def judge(self, exc: Exception) -> Exception | None:
        """Tell why no connection could be opened; return None if it is tried again, with ``--reconnect``."""
        fatal = process_exception(exc)
        if fatal is None:
            self.tell(failure(self._args, exc))
        return fatal

    def delays(self) -> Iterator[float]:
        """Make the seconds between two attempts, shorter than those of programs: somebody waits."""
        for delay in backoff(1.0, 1.0, 30.0):
            self.tell(f"connecting again in {delay:.1f} s; Ctrl-C ends this")
            yield delay

    async def talk(self, ws: WebSocket) -> int | None:
        """Talk over a connection until it ends, and close it.

        Returns:
            The exit status, or None to connect again.
        """
        args = self._args
        agreed = "" if ws.subprotocol is None else f", subprotocol {ws.subprotocol}"
        opened = f"connected to {args.uri.partition('://')[2].rpartition('@')[2]}{agreed}"
        pinging = None
        interrupted = False
        closed = True
        again = False
        patience: float = args.close_timeout
        try:
            if self._conversation is None:
                if self._make_screen is None:
                    self._conversation = _Pipe(args)
                else:
                    self._screen = self._make_screen()
                    self._conversation = _Conversation(self._screen, args)
            if self._screen is not None:
                self.tell(f"{opened}; /help, Ctrl-D closes")
            elif args.verbose:
                complain(opened)
            if args.ping is not None:
                pinging = asyncio.ensure_future(_ping(ws, args.ping, self.tell))
            try:
                await self._conversation.run(ws)
            finally:
                again = args.reconnect and was_lost(ws)
                if isinstance(self._conversation, _Pipe) and not self._conversation.answered_ping:
                    patience = _TOLD_AFTER
        except asyncio.CancelledError:
            # asyncio.Runner makes it of Ctrl-C.
            interrupted = self._screen is None
            again = False
            patience = _TOLD_AFTER
        except BrokenPipeError:
            patience = _TOLD_AFTER  # who read our output has gone: nobody waits for anything
            raise
        except ConnectionClosed:
            pass
        finally:
            if pinging is not None:
                pinging.cancel()
            closed = await _close(ws, patience, self.tell)
        status, text = 4, "the server was silent: no close frame received, connection dropped"
        if closed:
            status, text = _verdict(ws)
        if again and (status or ws.close_code == 1001):
            self.tell(text)
            return None
        if self._screen is not None:
            self.end()
            print(f"* {escape(text)}", flush=True)
        elif status or args.verbose:
            complain(text)
        if interrupted:
            return 130
        missing = self._conversation.missing() if isinstance(self._conversation, _Pipe) else None
        if missing is not None:
            complain(missing)
            return status or 5
        return status


async def _close(ws: WebSocket, timeout: float, tell: Callable[[str], None]) -> bool:
    """Close the connection, and drop it when the server has not closed for so many seconds; tell what takes long.

    Returns:
        False if it had to be dropped.
    """
    closing = asyncio.ensure_future(ws.close())
    closed = await _patiently(closing, timeout, tell, "close")
    if not closed and ws.transport is not None:
        ws.transport.abort()
    await closing
    return closed


async def _patiently(answer: asyncio.Future[Any], timeout: float, tell: Callable[[str], None], what: str) -> bool:
    """Wait for what the server is to do, for so many seconds; tell if that takes long, and return whether it came."""
    await asyncio.wait([answer], timeout=min(timeout, _TOLD_AFTER))
    if not answer.done() and timeout > _TOLD_AFTER:
        tell(f"waiting for the server to {what}, for {timeout:g} s at most (--close-timeout); Ctrl-C ends this")
        await asyncio.wait([answer], timeout=timeout - _TOLD_AFTER)
    return answer.done()


def _verdict(ws: WebSocket) -> tuple[int, str]:
    """Return the exit status, and how the connection was closed, in words."""
    code, reason = ws.close_code, ws.close_reason or ""
    if ws.close_cause is CloseCause.LOCAL:
        return 0, "closed"
    if code == 1006:
        return 4, str(ws.close_exc)
    status = 0 if code in (1000, 1001, 1005) else 3
    return status, f"closed by the server with {Close(code or 1005, reason)}"


async def _ping(ws: WebSocket, interval: float, tell: Callable[[str], None]) -> None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            tell(f"round trip {await (await ws.ping()) * 1000:.2f} ms")
            await asyncio.sleep(interval)


_HELP: Final = (
    "/ping                  measure the round trip",
    "/close [CODE [REASON]] close the connection (default: 1000)",
    "/binary HEX            send a binary message, such as /binary 48 69",
    "/file PATH             send a file as one binary message",
    "/stats                 tell how many messages, bytes and pings came and went",
    "/save PATH             write the latest messages to a file, a line of JSON each",
    "/help                  this",
    "//text                 send a line that begins with a slash",
)


class _CommandError(Exception):
    """A command cannot be done; the text is for the user."""


class _Conversation:
    """Lets the user talk until one of the two has enough."""

    _ws: WebSocket

    def __init__(self, screen: Screen, args: argparse.Namespace) -> None:
        self._screen = screen
        self._args = args
        self._kept: deque[tuple[float, str, str | bytes]] = deque(maxlen=_KEPT)
        self._kept_bytes = 0
        self._commands: dict[str, Callable[[str], Awaitable[None]]] = {
            "/ping": self._ping,
            "/close": self._close,
            "/binary": self._binary,
            "/file": self._file,
            "/stats": self._stats,
            "/save": self._save,
            "/help": self._help,
        }

    async def run(self, ws: WebSocket) -> None:
        """Receive and send, until the connection or the input ends."""
        self._ws = ws
        await _until_one_ends(self._receive(), self._send())

    async def _receive(self) -> None:
        async for message in self._ws:
            self._keep("received", message)
            time = "" if self._args.no_time else f"{datetime.now():%H:%M:%S.%f}"[:12] + " "
            lines = _shown(message, columns=None if self._args.no_json else terminal_columns() - len(time) - 2)
            self._screen.show(f"{time}< {lines[0]}", len(time) + 2)
            for line in lines[1:]:
                self._screen.show(" " * (len(time) + 2) + line)

    async def _send(self) -> None:
        while (line := await self._screen.read()) is not None:
            if line.startswith("/") and not self._args.no_commands:
                if not line.startswith("//"):
                    await self._command(line)
                    continue
                line = line[1:]
            await self._say(line.encode() if self._args.binary else line)

    async def _say(self, message: str | bytes) -> None:
        self._keep("sent", message)
        await self._ws.send(message)

    def _keep(self, kind: str, message: str | bytes) -> None:
        if len(self._kept) == _KEPT:
            self._kept_bytes -= len(self._kept.popleft()[2])
        self._kept.append((datetime.now().timestamp(), kind, message))
        self._kept_bytes += len(message)
        while self._kept_bytes > _KEPT_BYTES and len(self._kept) > 1:
            self._kept_bytes -= len(self._kept.popleft()[2])

    async def _command(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        command = self._commands.get(name)
        try:
            if command is None:
                raise _CommandError(f"there is no {name}; /help lists the commands, and //... sends a slash")
            await command(rest.strip())
        except _CommandError as exc:
            self._screen.show(f"! {escape(str(exc))}", 2)

    async def _help(self, _: str) -> None:
        for line in _HELP:
            self._screen.show(f"* {line}", 2)

    async def _ping(self, _: str) -> None:
        self._screen.show(f"* round trip {await (await self._ws.ping()) * 1000:.2f} ms", 2)

    async def _close(self, text: str) -> None:
        code, _, reason = text.partition(" ")
        try:
            await self._ws.close(int(code or 1000), reason)
        except ValueError as exc:
            what = exc if code.isdecimal() or not code else f"expected a code, such as 1000, got {code!r}"
            raise _CommandError(str(what)) from None

    async def _binary(self, text: str) -> None:
        try:
            data = bytes.fromhex(text)
        except ValueError:
            raise _CommandError(f"expected pairs of hexadecimal digits, such as 48 69, got {text[:40]!r}") from None
        await self._say(data)

    async def _file(self, path: str) -> None:
        def read() -> bytes:
            with open(os.path.expanduser(path), "rb") as file:
                return file.read()

        try:
            data = await asyncio.to_thread(read)
        except (OSError, ValueError) as exc:
            raise _CommandError(f"cannot read {path!r}: {getattr(exc, 'strerror', None) or exc}") from None
        await self._say(data)
        self._screen.show(f"* sent {len(data)} bytes", 2)

    async def _stats(self, _: str) -> None:
        for line in _counted(self._ws):
            self._screen.show(f"* {line}", 2)

    async def _save(self, path: str) -> None:
        lines = [_record(datetime.fromtimestamp(at), kind, message) for at, kind, message in self._kept]

        def write() -> None:
            with open(os.path.expanduser(path), "x", encoding="utf-8") as file:  # no file of the user's is lost
                file.writelines(lines)

        try:
            await asyncio.to_thread(write)
        except (OSError, ValueError) as exc:
            raise _CommandError(f"cannot write {path!r}: {getattr(exc, 'strerror', None) or exc}") from None
        self._screen.show(f"* {len(lines)} messages are in {escape(path)}", 2)


def _counted(ws: WebSocket) -> list[str]:
    """Return what came and went over a connection, in words."""
    counts = ws.counters
    lines = []
    for kind in ("received", "sent"):
        numbers = [(counts[f"{what}s_{kind}"], what) for what in ("message", "byte", "ping")]
        lines.append(f"{kind}: " + ", ".join(f"{number:,} {what}{'s' * (number != 1)}" for number, what in numbers))
    if ws.latency:
        lines.append(f"latest round trip: {ws.latency * 1000:.2f} ms")
    return lines


async def _until_one_ends(*coroutines: Any) -> None:
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


class _Pipe:
    """Sends the input and writes what is received, until both are at their end."""

    _ws: WebSocket

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._loop = asyncio.get_running_loop()
        self._lines = Input(self._loop, binary=args.binary) if args.send is None else None
        self._linger: float = args.linger
        if args.linger is None:
            self._linger = _LINGER if args.answers is None else _LINGER_FOR_ANSWERS
        self._heard = self._loop.time()
        self._received = 0
        self.answered_ping = True
        """False if the server did not answer the ping behind the last message."""

    async def run(self, ws: WebSocket) -> None:
        """Send and receive."""
        self._ws = ws
        await _until_one_ends(self._receive(), self._send())

    def missing(self) -> str | None:
        """Say that fewer messages came than were asked for, if that is so."""
        if self._args.answers is None or self._received >= self._args.answers:
            return None
        return f"--answers asks for {self._args.answers}: {self._received} came"

    async def _receive(self) -> None:
        async for message in self._ws:
            _write_message(message, self._args)
            self._heard = self._loop.time()
            self._received += 1
            if self._received == self._args.answers:
                return

    async def _send(self) -> None:
        for text in self._args.send or ():
            await self._ws.send(text.encode() if self._args.binary else text)
        while self._lines is not None and (line := await self._lines.get()) is not None:
            await self._ws.send(line if self._args.binary else line.decode("utf-8", "replace"))
        await (self._ws.wait_closed() if self._args.no_close else self._wait_for_silence())

    async def _wait_for_silence(self) -> None:
        # The pong tells that all before it has reached the server, however slow the way; then it is the server's turn.
        pong = asyncio.ensure_future(await self._ws.ping())
        self.answered_ping = await _patiently(pong, self._args.close_timeout, complain, "answer a ping")
        if self.answered_ping:
            self._heard = self._loop.time()
        while True:
            left = self._heard + self._linger - self._loop.time()
            if left <= 0:
                return
            await asyncio.sleep(left)
