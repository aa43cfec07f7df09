"""``python -m wsfast bench URI``: round trip and throughput of an echo server, as this client sees them."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from wsfast.asyncio.websocket import WebSocket
from wsfast.client.connector import connect
from wsfast.codec import IMPLEMENTATION
from wsfast.exceptions import ConnectionClosed, WebSocketError

from .options import add_connection_arguments, complain, connection_options, explain, positive, whole

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_parser", "run"]

_WIDTH: Final = 30
_REDRAW: Final = 0.1
"""Seconds between two looks of the progress bar: to draw it costs some 20 us."""


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "bench",
        help="measure round trip and throughput of an echo server",
        description="Measure an echo server, such as python -m wsfast serve: first the round trip, one message at a"
        " time; then the throughput, with many on their way. Every answer is checked.",
    )
    add_connection_arguments(parser)
    count = whole("a number", 1)
    group = parser.add_argument_group("measuring")
    group.add_argument("--size", type=count, default=128, metavar="BYTES", help="of a message (default: 128)")
    group.add_argument("--text", action="store_true", help="send text messages (default: binary)")
    group.add_argument(
        "--duration", type=positive, default=3.0, metavar="SECONDS", help="of each measurement (default: 3)"
    )
    group.add_argument("--connections", type=count, default=1, metavar="N", help="for the throughput (default: 1)")
    group.add_argument(
        "--window",
        type=count,
        default=64,
        metavar="N",
        help="messages on their way in each connection, for the throughput (default: 64)",
    )
    group.add_argument("--json", action="store_true", help="print the results as one line of JSON")
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Measure, and print the results.

    Returns:
        The exit status: 0, or 1 if the server could not be reached, or is no echo server.
    """
    try:
        options = connection_options(args)
    except OSError as exc:
        complain(str(exc))
        return 1
    try:
        results = asyncio.run(_measure(args, options))
    except ConnectionClosed as exc:
        complain(f"the connection ended: {exc}")
        return 1
    except (WebSocketError, OSError, ValueError, ImportError) as exc:
        complain(f"could not connect: {explain(exc)}")
        return 1
    except _NoEchoError as exc:
        complain(str(exc))
        return 1
    if args.json:
        print(json.dumps(results))
    else:
        _print(args, results)
    return 0


class _NoEchoError(Exception):
    """The server answered something else than what it was sent."""


class _Bar:
    """A progress bar on stderr; nothing where that is no terminal."""

    def __init__(self, title: str, duration: float) -> None:
        self._title = title
        self._duration = duration
        self._start = time.perf_counter()
        self._next = 0.0
        self._on = sys.stderr.isatty()

    def update(self, now: float) -> None:
        """Draw how much of the time has passed, if it is time to draw."""
        if not self._on or now < self._next:
            return
        self._next = now + _REDRAW
        part = min(1.0, (now - self._start) / self._duration)
        done = int(part * _WIDTH)
        sys.stderr.write(f"\r{self._title:<12} [{'#' * done}{'.' * (_WIDTH - done)}] {part:4.0%}")
        sys.stderr.flush()

    def end(self) -> None:
        """Wipe it."""
        if self._on:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


async def _measure(args: argparse.Namespace, options: dict[str, Any]) -> dict[str, Any]:
    raw = os.urandom(args.size)
    message: str | bytes = raw.hex()[: args.size] if args.text else raw
    async with connect(args.uri, **options) as ws:
        times = sorted(await _round_trips(ws, message, args.duration))
    count = len(times)
    bar = _Bar("throughput", args.duration)
    began = time.perf_counter()
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_flood(args, options, message, bar)) for _ in range(args.connections)]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    finally:
        bar.end()
    passed = time.perf_counter() - began
    messages = sum(task.result() for task in tasks)
    return {
        "uri": args.uri.partition("://")[0] + "://" + args.uri.partition("://")[2].rpartition("@")[2],
        "codec": IMPLEMENTATION,
        "size": args.size,
        "round_trip": {
            "count": count,
            "min_us": times[0] * 1e6,
            "median_us": times[count // 2] * 1e6,
            "p99_us": times[min(count - 1, count * 99 // 100)] * 1e6,
            "max_us": times[-1] * 1e6,
        },
        "throughput": {
            "connections": args.connections,
            "window": args.window,
            "messages": messages,
            "seconds": passed,
            "messages_per_second": messages / passed,
            "mb_per_second": messages * args.size / passed / 1e6,
        },
    }


async def _round_trips(ws: WebSocket, message: str | bytes, duration: float) -> list[float]:
    bar = _Bar("round trip", duration)
    times = []
    clock = time.perf_counter
    end = clock() + duration
    try:
        while True:
            began = clock()
            await ws.send(message)
            answer = await ws.recv()
            now = clock()
            _check(answer, message)
            times.append(now - began)
            if now >= end:
                return times
            bar.update(now)
    finally:
        bar.end()


async def _flood(args: argparse.Namespace, options: dict[str, Any], message: str | bytes, bar: _Bar) -> int:
    """Keep a window of messages on their way; return how many came back."""
    clock = time.perf_counter
    received = 0
    # Who waits to send does not receive, and the server then waits as well: the window alone bounds what is unsent.
    async with connect(args.uri, **options, max_buffered=None) as ws:
        end = clock() + args.duration
        for _ in range(args.window):
            ws.send_nowait(message)
        pending = args.window
        while pending:
            _check(await ws.recv(), message)
            received += 1
            now = clock()
            if now < end:
                ws.send_nowait(message)
            else:
                pending -= 1
            bar.update(now)
    return received


def _check(answer: object, message: str | bytes) -> None:
    if answer != message:
        raise _NoEchoError("the server is no echo server: it answered something else than what it was sent")


def _print(args: argparse.Namespace, results: dict[str, Any]) -> None:
    trip, rate = results["round_trip"], results["throughput"]
    kind = "text" if args.text else "binary"
    print(f"{results['uri']}: {kind} messages of {args.size} bytes, {results['codec']} codec")
    print(
        f"round trip   median {trip['median_us']:.0f} us   min {trip['min_us']:.0f} us   p99 {trip['p99_us']:.0f} us"
        f"   max {trip['max_us']:.0f} us   ({trip['count']} messages)"
    )
    print(
        f"throughput   {rate['messages_per_second']:,.0f} messages/s   {rate['mb_per_second']:,.1f} MB/s each way"
        f"   ({rate['connections']} x {rate['window']} on their way)"
    )
