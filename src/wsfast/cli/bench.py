"""``python -m wsfast bench URI``: round trip, throughput and latency under load of a server, as this client sees them.

An echo server is measured in two steps: the round trip, one message at a time; then many on their way. Without
``--rate`` each connection sends the next message when one has come back, which shows what the server can do at most.
With ``--rate`` messages are sent when their time has come, whether answers are late or not, and a latency counts from
when the message should have gone out: so a server that stalls for a second shows it in all messages of that second
(the other way would omit them, which is known as coordinated omission). With ``--subscribe`` the server need not
echo: what it sends is counted. With ``--any-answer`` it answers each message with one of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import random
import re
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final, TextIO

from wsfast.asyncio.websocket import WebSocket
from wsfast.client.connector import connect
from wsfast.codec import IMPLEMENTATION
from wsfast.exceptions import ConnectionClosed, WebSocketError

from .options import (
    add_connection_arguments,
    complain,
    connection_options,
    dumb_terminal,
    escape,
    explain,
    failure,
    file_path,
    fill,
    message_text,
    natural,
    positive,
    whole,
)

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_parser", "run"]

_LARGEST: Final = 1 << 30
"""Bytes of a message, at most: it is in memory a few times."""
_WIDTH: Final = 30
_REDRAW: Final = 0.1
"""Seconds between two looks of the progress bar: to draw it costs some 20 us."""
_PERCENTILES: Final = (50.0, 90.0, 95.0, 99.0, 99.9, 99.99)
_LATENCIES: Final = ("min", "mean", *(f"p{percent:g}" for percent in _PERCENTILES), "max")
"""The figures of latency that ``--require`` knows."""
_GRID: Final = (
    ("under load", ("min", "p50", "p99")),
    ("", ("mean", "p90", "p99.9")),
    ("", ("max", "p95", "p99.99")),
)
"""Where the figures of latency stand."""
_REASONS: Final = 5
"""Reasons for failed connections that are told one by one; ``--json`` tells all."""
_LOOK: Final = 0.2
"""Seconds between two looks, at most, at whether the end has come early."""
_BEHIND: Final = 0.001
"""Seconds that a sender is at rest at least between two looks at the clock."""

_EPILOG: Final = """examples:
  python -m wsfast bench ws://localhost:8765/
  python -m wsfast bench --connections 100 --rate 20000 ws://localhost:8765/
  python -m wsfast bench --size 64:9,16384:1 --json ws://localhost:8765/ > old
  python -m wsfast bench --size 64:9,16384:1 --compare old ws://localhost:8765/
  python -m wsfast bench --message '{"op": "get"}' --any-answer \\
      --require 'p99<5ms' ws://localhost:8765/
  python -m wsfast bench --subscribe '{"subscribe": "ticks"}' \\
      --connections 1000 --ramp 10 ws://localhost:8765/
"""


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "bench",
        help="measure round trip, throughput and latency under load of a server",
        description=fill(
            "Measure an echo server, such as python -m wsfast serve: first the round trip, one message at a time; then"
            " with many on their way. Every answer is checked. With --any-answer, measure a server that answers each"
            " message with another; with --subscribe, count what a server sends."
        ),
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_connection_arguments(parser)
    count = whole("a number", 1)
    group = parser.add_argument_group("measuring")
    group.add_argument(
        "--size",
        type=_sizes,
        default=None,
        metavar="BYTES",
        help="of a message; or a mix, as in 64:90,4096:10 for nine small ones of ten (default: 128)",
    )
    group.add_argument("--text", action="store_true", help="send text messages (default: binary)")
    group.add_argument(
        "--message",
        type=message_text,
        metavar="TEXT",
        action="append",
        help="send this text, in place of --size bytes that are random; @PATH for the lines of a file. Can be repeated;"
        " of several, each is chosen at random",
    )
    group.add_argument(
        "--any-answer",
        action="store_true",
        help="the server does not echo, but answers each message with one, in their order",
    )
    group.add_argument(
        "--duration", type=positive, default=3.0, metavar="SECONDS", help="of each measurement (default: 3)"
    )
    group.add_argument("--connections", type=count, default=1, metavar="N", help="for the load (default: 1)")
    group.add_argument(
        "--ramp", type=natural, default=0.0, metavar="SECONDS", help="open the connections over so long (default: 0)"
    )
    group.add_argument(
        "--window",
        type=count,
        default=64,
        metavar="N",
        help="messages on their way in each connection, without --rate (default: 64)",
    )
    group.add_argument(
        "--rate", type=positive, metavar="N", help="send so many messages a second, over all connections"
    )
    group.add_argument(
        "--subscribe",
        type=message_text,
        metavar="TEXT",
        help="the server does not echo: send TEXT once on each connection ('' for nothing), and count what comes",
    )
    group.add_argument(
        "--require",
        type=_requirement,
        metavar="'p99<5ms'",
        action="append",
        help=f"exit with 1 unless this holds under load; {', '.join(_LATENCIES)} in us, ms or s, rate in messages a"
        " second; can be repeated",
    )
    group.add_argument("--json", action="store_true", help="print the results as one line of JSON")
    group.add_argument(
        "--compare", type=file_path, metavar="FILE", help="print the change to an earlier run, which --json printed"
    )
    parser.set_defaults(run=run, parser=parser)


def _sizes(text: str) -> tuple[tuple[int, float], ...]:
    """Parse a size, or sizes with their weights."""
    found = []
    for part in text.split(","):
        size, colon, weight = part.partition(":")
        try:
            pair = int(size), float(weight) if colon else 1.0
        except ValueError:
            pair = 0, 0.0
        if not 1 <= pair[0] <= _LARGEST or not 0 < pair[1] < math.inf:
            raise argparse.ArgumentTypeError(
                f"expected a number of bytes up to {_LARGEST}, or a mix such as 64:90,4096:10, got {text!r}"
            )
        found.append(pair)
    return tuple(found)


def _requirement(text: str) -> tuple[str, str, bool, float]:
    """Parse what must hold: its text, the figure's name, whether it must be above, and the bound in us or as it is."""
    found = re.fullmatch(r"\s*([a-z0-9.]+)\s*([<>])=?\s*([0-9.]+)\s*(us|µs|ms|s|)\s*", text)
    if found is not None:
        name, sign, number, unit = found.groups()
        with contextlib.suppress(ValueError):
            if name == "rate" and not unit:
                return text, name, sign == ">", float(number)
            if name in _LATENCIES and unit:
                return text, name, sign == ">", float(number) * {"s": 1e6, "ms": 1e3}.get(unit, 1.0)
    raise argparse.ArgumentTypeError(
        f"expected a figure, < or >, and a bound, such as 'p99<5ms' or 'rate>10000', got {text!r}; the figures are"
        f" {', '.join(_LATENCIES)} in us, ms or s, and rate"
    )


def _not_met(required: list[tuple[str, str, bool, float]], results: dict[str, Any]) -> list[str]:
    """Return what does not hold, in words."""
    told = []
    for text, name, above, bound in required:
        if name == "rate":
            figure = results["throughput"]["messages_per_second"]
            shown = f"{figure:,.0f} a second"
        elif "latency" in results:
            figure = results["latency"][f"{name}_us"]
            shown = _duration(figure / 1e6)
        else:  # interrupted before the first answer
            figure, shown = math.nan, "nothing was measured"
        if not (figure > bound if above else figure < bound):
            told.append(f"required {text}: {shown}")
    return told


def _texts(given: list[str]) -> list[str]:
    """Return the messages that were given, and the lines of the files that were.

    Raises:
        OSError: a file cannot be read, or has no text in it; the text names it.
    """
    texts: list[str] = []
    for text in given:
        if not text.startswith("@"):
            texts.append(text)
            continue
        try:
            with open(text[1:], encoding="utf-8") as file:
                lines = [line for line in file.read().split("\n") if line]
        except OSError as exc:
            raise OSError(f"cannot read {text[1:]}: {exc.strerror or exc}") from None
        except UnicodeDecodeError:
            raise OSError(f"cannot read {text[1:]}: it is not UTF-8") from None
        if not lines:
            raise OSError(f"{text[1:]} has no line to send in it")
        texts += lines
    return texts


def run(args: argparse.Namespace) -> int:
    """Measure, and print the results.

    Returns:
        The exit status: 0, or 1 if the server could not be reached, is no echo server, left something unanswered, a
        connection failed, or what is required does not hold.
    """
    if args.subscribe is not None:
        if args.rate is not None:
            args.parser.error("--rate goes without --subscribe: the server decides how much it sends")
        if args.message is not None or args.any_answer:
            args.parser.error("--message and --any-answer go without --subscribe, which sends one text and counts")
        if any(name != "rate" for _, name, _, _ in args.require or ()):
            args.parser.error("with --subscribe there are no answers, so no latency: --require 'rate>...' is left")
    if args.message is not None and (args.size is not None or args.text):
        args.parser.error("--message goes without --size and --text")
    try:
        options = connection_options(args)
        messages = _Messages(
            args.size or ((128, 1.0),), text=args.text, given=_texts(args.message) if args.message else None
        )
        earlier = None if args.compare is None else _earlier(args.compare)
    except OSError as exc:
        complain(str(exc))
        return 1
    try:
        results = asyncio.run(_measure(args, options, messages))
    except ConnectionClosed as exc:
        complain(f"the connection ended: {exc}")
        return 1
    except (WebSocketError, OSError, ValueError, ImportError) as exc:
        complain(failure(args, exc))
        return 1
    except _NoEchoError as exc:
        complain(str(exc))
        return 1
    if args.json:
        print(json.dumps(results))
    else:
        _print(args, results)
    if earlier is not None:
        _print_change(earlier, results, sys.stderr if args.json else sys.stdout)
    broken = _not_met(args.require or [], results)
    for told in broken:
        complain(told)
    return 1 if "failed" in results or "unanswered" in results or broken else 0


def _earlier(path: str) -> dict[str, Any]:
    """Read the results of an earlier run.

    Raises:
        OSError: the file cannot be read, or has something else in it; the text names it.
    """
    try:
        with open(path, encoding="utf-8") as file:
            found = json.loads(file.read())
    except OSError as exc:
        raise OSError(f"cannot read {path}: {exc.strerror or exc}") from None
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("throughput"), dict):
        raise OSError(f"{path} has no results of a run with --json in it")
    return found


class _NoEchoError(Exception):
    """The server answered something else than what it was sent."""


class _Histogram:
    """Counts durations by their size, each to 1 %, in constant memory."""

    _STEP: Final = math.log(1.01)

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.least = math.inf
        self.greatest = 0.0
        self._buckets: dict[int, int] = {}

    def add(self, seconds: float) -> None:
        """Count a duration."""
        self.count += 1
        self.total += seconds
        self.least = min(self.least, seconds)
        self.greatest = max(self.greatest, seconds)
        bucket = int(math.log(max(seconds, 1e-7) / 1e-7) / self._STEP)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    def percentiles(self, *wanted: float) -> list[float]:
        """Return the durations, in seconds, below which so many of a hundred are."""
        found = []
        buckets = sorted(self._buckets.items())
        for percent in wanted:
            left = max(1, math.ceil(self.count * percent / 100))
            value = 0.0
            for bucket, count in buckets:
                left -= count
                if left <= 0:
                    value = 1e-7 * math.exp((bucket + 0.5) * self._STEP)
                    break
            found.append(min(value, self.greatest))
        return found

    def bars(self, rows: int = 8) -> list[tuple[float, int]]:
        """Return the counts in rows of equal factors, each with its upper bound in seconds."""
        low, high = self.percentiles(0.1, 99.99)
        if not self.count or high <= low * 1.05:
            return []
        factor = (high / low) ** (1 / rows)
        bounds = [low * factor ** (i + 1) for i in range(rows)]
        counts = [0] * rows
        for bucket, count in self._buckets.items():
            value = 1e-7 * math.exp((bucket + 0.5) * self._STEP)
            counts[next((i for i, bound in enumerate(bounds) if value <= bound), rows - 1)] += count
        return list(zip(bounds, counts, strict=True))


class _Bar:
    """A progress bar on stderr, and the histogram as far as it is known; nothing where that is no terminal."""

    def __init__(self, title: str, duration: float, histogram: _Histogram | None = None) -> None:
        self._title = title
        self._duration = duration
        self._start = time.perf_counter()
        self._next = 0.0
        self._on = sys.stderr.isatty() and not dumb_terminal()
        self._histogram = histogram
        self.count = 0

    def update(self, now: float) -> None:
        """Draw how much of the time has passed, if it is time to draw."""
        if not self._on or now < self._next:
            return
        self._next = now + _REDRAW
        passed = now - self._start
        part = min(1.0, passed / self._duration)
        done = int(part * _WIDTH)
        known = ""
        if self.count and passed > 0:
            known = f" {self.count / passed:,.0f}/s"
            if self._histogram is not None and self._histogram.count:
                half, most = self._histogram.percentiles(50, 99)
                known += f" p50 {_duration(half)} p99 {_duration(most)}"
        rows = [] if self._histogram is None else _drawn(self._histogram.bars())
        lines = [f"{self._title:<12} [{'#' * done}{'.' * (_WIDTH - done)}] {part:4.0%}{known}", *rows]
        # A line that the terminal breaks in two would be one more to go up. What does not fit is left out.
        columns, height = _terminal()
        rows = rows[: height - 2]
        screen = "\n".join(line[: columns - 1] for line in lines[: len(rows) + 1])
        up = f"\x1b[{len(rows)}A" if rows else ""
        sys.stderr.write(f"\r\x1b[J{screen}{up}\r")
        sys.stderr.flush()

    def end(self) -> None:
        """Wipe it."""
        if self._on:
            sys.stderr.write("\r\x1b[J")
            sys.stderr.flush()


def _terminal() -> tuple[int, int]:
    """Return the columns and lines of the terminal that standard error is."""
    try:
        size = os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError):
        size = os.terminal_size((0, 0))
    return size.columns or 80, max(3, size.lines or 24)


# --- Measuring ----------------------------------------------------------------------------------------------------


async def _measure(args: argparse.Namespace, options: dict[str, Any], messages: _Messages) -> dict[str, Any]:
    results: dict[str, Any] = {
        "uri": args.uri.partition("://")[0] + "://" + args.uri.partition("://")[2].rpartition("@")[2],
        "codec": IMPLEMENTATION,
        "size": round(messages.mean, 1) if messages.mixed else int(messages.mean),
    }
    if args.subscribe is None:
        async with connect(args.uri, **options) as ws:
            try:
                async with asyncio.timeout(args.duration + args.timeout):
                    times = sorted(await _round_trips(ws, messages, args.duration, any_answer=args.any_answer))
            except TimeoutError:
                raise _NoEchoError(
                    f"the server did not answer a message within {args.timeout:g} s; --subscribe counts what it sends"
                ) from None
        count = len(times)
        results["round_trip"] = {
            "count": count,
            "min_us": times[0] * 1e6,
            "median_us": times[count // 2] * 1e6,
            "p99_us": times[min(count - 1, count * 99 // 100)] * 1e6,
            "max_us": times[-1] * 1e6,
        }
    load = _Load(args, options, messages)
    await load.run()
    results["throughput"] = {
        "connections": load.opened,
        "window": args.window,
        "messages": load.received,
        "seconds": load.seconds,
        "messages_per_second": load.received / load.seconds,
        "mb_per_second": load.received_bytes / load.seconds / 1e6,
    }
    if args.rate is not None:
        results["throughput"]["rate"] = args.rate
    if load.failed:
        results["failed"] = dict(load.failed.most_common())
    if load.unanswered:
        results["unanswered"] = load.unanswered
    if load.opening.count:
        half, most = load.opening.percentiles(50, 99)
        results["opening"] = {"median_us": half * 1e6, "p99_us": most * 1e6, "max_us": load.opening.greatest * 1e6}
    if load.latencies.count:
        found = load.latencies.percentiles(*_PERCENTILES)
        results["latency"] = {
            "min_us": load.latencies.least * 1e6,
            "mean_us": load.latencies.total / load.latencies.count * 1e6,
            **{f"p{percent:g}_us": value * 1e6 for percent, value in zip(_PERCENTILES, found, strict=True)},
            "max_us": load.latencies.greatest * 1e6,
            "histogram": [[bound * 1e6, count] for bound, count in load.latencies.bars()],
        }
    return results


class _Messages:
    """What is sent: random bytes, of one size or of several, or the texts that are given, each at random."""

    def __init__(self, sizes: tuple[tuple[int, float], ...], *, text: bool, given: list[str] | None = None) -> None:
        self._made: list[str | bytes] = []
        if given is not None:
            self._made += given
            sizes = tuple((len(message.encode()), 1.0) for message in given)
        else:
            for size, _ in sizes:
                raw = os.urandom(size)
                self._made.append(raw.hex()[:size] if text else raw)
        self._weights = [weight for _, weight in sizes]
        self.mean = sum(size * weight for size, weight in sizes) / sum(self._weights)
        self.mixed = len(sizes) > 1

    def next(self) -> str | bytes:
        """Return a message."""
        if len(self._made) == 1:
            return self._made[0]
        return random.choices(self._made, self._weights)[0]


async def _round_trips(ws: WebSocket, messages: _Messages, duration: float, *, any_answer: bool) -> list[float]:
    bar = _Bar("round trip", duration)
    times = []
    clock = time.perf_counter
    end = clock() + duration
    try:
        while True:
            message = messages.next()
            began = clock()
            await ws.send(message)
            answer = await ws.recv()
            now = clock()
            if not any_answer:
                _check(answer, message)
            times.append(now - began)
            if now >= end:
                return times
            bar.update(now)
    finally:
        bar.end()


class _Load:
    """Many messages on their way, over some connections.

    It is measured from when all connections are open. It goes on when one fails, or is lost: `failed` counts these by
    what went wrong. What has no answer when the time is up has ``--timeout`` more, and is then `unanswered`. Ctrl-C
    ends it early, with what is known by then.
    """

    def __init__(self, args: argparse.Namespace, options: dict[str, Any], messages: _Messages) -> None:
        self._args = args
        self._options = options
        self._messages = messages
        self.received = 0
        self.received_bytes = 0
        self.seconds = 0.0
        self.opened = 0
        self.failed: Counter[str] = Counter()
        self._failure: Exception | None = None
        self._unopened: int = args.connections
        self._measured_from = self._end = math.inf
        self._latest = 0.0
        self._over = asyncio.Event()
        self._limits: set[asyncio.Timeout] = set()
        self.unanswered = 0
        self.latencies = _Histogram()
        self.opening = _Histogram()
        self._check = _accept if args.any_answer else _check
        self._bar = _Bar("throughput", args.duration + args.ramp, self.latencies)

    async def run(self) -> None:
        """Open the connections, measure, and close them.

        Raises:
            _NoEchoError: the server answered something else.
            OSError, WebSocketError, ...: no connection could be opened.
        """
        clock = time.perf_counter
        # All messages count that a server sends by itself.
        self._measured_from = math.inf if self._args.subscribe is None else clock()
        loop = asyncio.get_running_loop()
        with contextlib.suppress(NotImplementedError, RuntimeError):  # on Windows, in a thread
            loop.add_signal_handler(signal.SIGINT, self._interrupted)
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self._args.connections):
                    group.create_task(self._connection(number))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        finally:
            with contextlib.suppress(NotImplementedError, RuntimeError):
                loop.remove_signal_handler(signal.SIGINT)
            self._bar.end()
        if not self.opened and self._failure is not None:
            raise self._failure
        # Where all connections were lost, nothing was measured from then on.
        self.seconds = max(1e-9, max(min(self._end, clock()), self._latest) - self._measured_from)

    def _begin(self, duration: float) -> None:
        """Measure from now on, unless that has begun, and for so long."""
        now = time.perf_counter()
        self._measured_from = min(self._measured_from, now)
        self._end = now + duration
        for limit in self._limits:
            limit.reschedule(asyncio.get_running_loop().time() + duration + self._args.timeout)

    def _interrupted(self) -> None:
        if time.perf_counter() >= self._end:
            raise KeyboardInterrupt  # the second one
        self._over.set()
        self._begin(0.0)

    async def _connection(self, number: int) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._args.ramp * number / self._args.connections):
                await self._over.wait()
        if self._over.is_set():
            return
        began = time.perf_counter()
        opening = True
        try:
            # Who waits to send does not receive, and the server then waits as well: nothing here may wait to send.
            async with connect(self._args.uri, **self._options, max_buffered=None) as ws:
                self.opening.add(time.perf_counter() - began)
                self.opened += 1
                opening = False
                self._opened_or_not()
                if self._args.subscribe is not None:
                    await self._count(ws)
                elif self._args.rate is not None:
                    await self._at_a_rate(ws, number)
                else:
                    await self._in_a_window(ws)
        except (WebSocketError, OSError, ValueError, ImportError) as exc:
            if self._failure is None:
                self._failure = exc
            self.failed[explain(exc)] += 1
            if opening:
                self._opened_or_not()

    def _opened_or_not(self) -> None:
        self._unopened -= 1
        if not self._unopened and self._end == math.inf:
            self._begin(self._args.duration)

    def _note(self, message: str | bytes, since: float | None, now: float) -> None:
        self._latest = now
        if now >= self._measured_from:
            self.received += 1
            self.received_bytes += len(message)
            if since is not None:
                self.latencies.add(now - since)
        self._bar.count = self.received
        self._bar.update(now)

    def _give_up(self, on_their_way: deque[tuple[float, str | bytes]]) -> None:
        """Count what has no answer: it took as long as it was waited for, at least."""
        now = time.perf_counter()
        self.unanswered += len(on_their_way)
        for since, _ in on_their_way:
            self.latencies.add(now - since)
        on_their_way.clear()

    @contextlib.asynccontextmanager
    async def _limited(self) -> AsyncIterator[None]:
        """Limit the time for all of a connection's messages: to the end of the load, and ``--timeout`` more."""
        known = self._end < math.inf
        async with asyncio.timeout(self._end + self._args.timeout - time.perf_counter() if known else None) as limit:
            self._limits.add(limit)  # for `_begin`, which sets the end, and for Ctrl-C, which moves it
            try:
                yield
            finally:
                self._limits.discard(limit)

    async def _in_a_window(self, ws: WebSocket) -> None:
        clock = time.perf_counter
        on_their_way: deque[tuple[float, str | bytes]] = deque()

        def send() -> None:
            message = self._messages.next()
            on_their_way.append((clock(), message))
            ws.send_nowait(message)

        try:
            async with self._limited():
                for _ in range(self._args.window):
                    send()
                while on_their_way:
                    answer = await ws.recv()
                    now = clock()
                    sent, message = on_their_way.popleft()
                    self._check(answer, message)
                    self._note(answer, sent, now)
                    if now < self._end:
                        send()
        except TimeoutError:
            pass
        finally:
            self._give_up(on_their_way)

    async def _at_a_rate(self, ws: WebSocket, number: int) -> None:
        clock = time.perf_counter
        on_their_way: deque[tuple[float, str | bytes]] = deque()
        interval = self._args.connections / self._args.rate
        sending = True

        async def receive() -> None:
            while sending or on_their_way:
                answer = await ws.recv()
                now = clock()
                due, message = on_their_way.popleft()
                self._check(answer, message)
                self._note(answer, due, now)

        receiving = asyncio.ensure_future(receive())
        try:
            # The connections take turns, so that not all send at the same moment.
            due = clock() + interval * number / self._args.connections
            while due < self._end and not receiving.done():
                now = clock()
                while due <= now and due < self._end:
                    message = self._messages.next()
                    on_their_way.append((due, message))  # from when it should have gone out
                    ws.send_nowait(message)
                    due += interval
                await asyncio.sleep(max(_BEHIND, min(_LOOK, due - clock())))
            sending = False
            if on_their_way or receiving.done():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._args.timeout):
                        await receiving
        finally:
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)
            self._give_up(on_their_way)

    async def _count(self, ws: WebSocket) -> None:
        if self._args.subscribe:
            await ws.send(self._args.subscribe)
        while (left := self._end - time.perf_counter()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(_LOOK, left)):
                    while True:
                        self._note(await ws.recv(), None, time.perf_counter())


def _check(answer: object, message: str | bytes) -> None:
    if answer != message:
        raise _NoEchoError(
            "the server is no echo server: it answered something else than what it was sent; --any-answer takes that"
            " for the answer, --subscribe counts what the server sends"
        )


def _accept(answer: object, message: str | bytes) -> None:
    """Take whatever came for the answer."""


# --- Telling -------------------------------------------------------------------------------------------------------


def _duration(seconds: float) -> str:
    """Return a duration in three digits."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _connections(count: int) -> str:
    return f"{count:,} connection{'' if count == 1 else 's'}"


def _print(args: argparse.Namespace, results: dict[str, Any]) -> None:
    trip, rate, latency = results.get("round_trip"), results["throughput"], results.get("latency")
    kind = "text" if args.text or args.message else "binary"
    if trip is None:
        verb = "listens" if rate["connections"] == 1 else "listen"
        print(f"{results['uri']}: {_connections(rate['connections'])} that {verb}, {results['codec']} codec")
    else:
        mean = " on average" if isinstance(results["size"], float) else ""
        print(f"{results['uri']}: {kind} messages of {results['size']} bytes{mean}, {results['codec']} codec")
        figures = "   ".join(
            f"{name} {_duration(trip[f'{name}_us'] / 1e6)}" for name in ("median", "min", "p99", "max")
        )
        print(f"round trip   {figures}\n             {trip['count']:,} messages, one at a time")
    how = f"{_connections(rate['connections'])}, {rate['window']} messages of each on their way"
    if trip is None:
        how = f"{rate['messages']:,} messages came"
    elif "rate" in rate:
        how = f"of {rate['rate']:,.0f} that were asked for, over {_connections(rate['connections'])}"
    way = "received" if args.any_answer or trip is None else "each way"
    megabytes = f"{rate['mb_per_second']:,.1f} MB/s {way}"
    print(f"throughput   {rate['messages_per_second']:,.0f} messages/s   {megabytes}\n             {how}")
    opening = results.get("opening")
    if opening is not None and rate["connections"] > 1:
        print(
            f"opening      median {_duration(opening['median_us'] / 1e6)}   p99 {_duration(opening['p99_us'] / 1e6)}"
            f"   max {_duration(opening['max_us'] / 1e6)}   ({rate['connections']} connections)"
        )
    failed = list(results.get("failed", {}).items())
    for why, count in failed[:_REASONS]:
        print(f"failed       {_connections(count)}: {escape(why)}")
    if len(failed) > _REASONS:
        print(f"failed       {_connections(sum(count for _, count in failed[_REASONS:]))} for other reasons")
    if "unanswered" in results:
        when = f"after {args.timeout:g} s more"
        if failed:
            when = f"when their connection was lost, or {when}"
        print(f"unanswered   {results['unanswered']:,} messages, {when}")
    if latency is None:
        return
    for title, names in _GRID:
        cells = (f"{name:<6} {_duration(latency[f'{name}_us'] / 1e6):>7}" for name in names)
        print(f"{title:<13}" + "   ".join(cells))
    for line in _drawn([(bound / 1e6, count) for bound, count in latency["histogram"]]):
        print(line)


def _drawn(bars: list[tuple[float, int]]) -> list[str]:
    """Return the lines of a histogram."""
    most = max((count for _, count in bars), default=0)
    return [f"  <= {_duration(bound):>8}  {'#' * math.ceil(40 * count / most):<40}  {count:,}" for bound, count in bars]


def _print_change(earlier: dict[str, Any], results: dict[str, Any], file: TextIO) -> None:
    """Print each figure beside that of an earlier run, and first what was measured in another way."""
    print("\nbeside the earlier run:", file=file)
    for part, key, name in [
        (None, "uri", "URI"),
        (None, "codec", "codec"),
        (None, "size", "size"),
        ("throughput", "connections", "connections"),
        ("throughput", "window", "window"),
        ("throughput", "rate", "rate"),
    ]:
        before, now = (escape(str((each if part is None else each[part]).get(key))) for each in (earlier, results))
        if before != now:
            print(f"  {name:<20} {before} -> {now}", file=file)
    for part, key, name in [
        ("round_trip", "median_us", "round trip, median"),
        ("throughput", "messages_per_second", "messages/s"),
        ("latency", "p50_us", "under load, p50"),
        ("latency", "p99_us", "under load, p99"),
        ("latency", "p99.9_us", "under load, p99.9"),
    ]:
        before, now = (each.get(part, {}).get(key) for each in (earlier, results))
        if isinstance(before, (int, float)) and isinstance(now, (int, float)) and before > 0:
            shown = [f"{x:,.0f}" if key.endswith("second") else _duration(x / 1e6) for x in (before, now)]
            print(f"  {name:<20} {shown[0]:>10} -> {shown[1]:>10}   {now / before - 1:+.1%}", file=file)
