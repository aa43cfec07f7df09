"""The terminal of the interactive client: lines are typed while messages are printed above, and standard input."""

from __future__ import annotations

import asyncio
import codecs
import os
import signal
import sys
import threading
import unicodedata
from collections.abc import Callable
from typing import Final, Protocol

from .editor import Editor
from .options import dumb_terminal, escape

__all__ = ["Input", "Screen", "choose_screen", "terminal_columns"]

_PROMPT: Final = "> "
_PIECE: Final = 65536


class Screen(Protocol):
    """A terminal in which lines are typed while others are printed."""

    async def read(self) -> str | None:
        """Return the next line that is typed, None at the end."""

    def show(self, line: str, coloured: int = 0) -> None:
        """Print a line, which is safe, above the one that is being typed; so many characters of it in colour."""

    def end(self) -> None:
        """Leave the terminal as it was."""


def choose_screen() -> Callable[[], Screen]:
    """Return the class of the screen that suits this terminal."""
    if dumb_terminal():
        return DumbScreen
    try:
        import termios  # noqa: F401
    except ImportError:  # pragma: no cover - Windows
        return DumbScreen
    return EditingScreen


class DumbScreen:
    """A terminal without control sequences: it edits the line by itself, and what is printed comes in between."""

    def __init__(self) -> None:
        self._lines: Input | None = None

    async def read(self) -> str | None:
        if self._lines is None:
            self._lines = Input(asyncio.get_running_loop(), binary=False)
        line = await self._lines.get()
        return None if line is None else line.decode(sys.stdin.encoding or "utf-8", "replace")

    def show(self, line: str, coloured: int = 0) -> None:
        print(line, flush=True)

    def end(self) -> None:
        pass


class EditingScreen:
    """A terminal whose line is edited here, by `Editor`."""

    def __init__(self) -> None:
        import termios

        self._loop = asyncio.get_running_loop()
        self._editor = Editor()
        self._decoder = codecs.getincrementaldecoder(sys.stdin.encoding or "utf-8")("replace")
        self._finished: asyncio.Queue[str | None] = asyncio.Queue()
        self._row = 0  # of the cursor, counted from the first of the prompt
        self._saved = termios.tcgetattr(0)
        self._ended = False
        self._loop.add_signal_handler(signal.SIGWINCH, self._draw)
        self._loop.add_signal_handler(signal.SIGCONT, self._begin)  # after Ctrl-Z and fg
        self._begin()
        self._loop.add_reader(0, self._readable)

    def _begin(self) -> None:
        import termios

        mode = termios.tcgetattr(0)
        mode[0] &= ~termios.IXON  # Ctrl-S would stop the output
        # Keys come one by one, and are not echoed. Ctrl-C and Ctrl-Z stay signals.
        mode[3] &= ~(termios.ICANON | termios.ECHO | termios.IEXTEN)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(0, termios.TCSADRAIN, mode)
        self._row = 0
        self._write("\x1b[?2004h")  # mark what is pasted
        self._draw()

    def _readable(self) -> None:
        try:
            data = os.read(0, _PIECE)
        except OSError:
            data = b""
        if not data:  # the terminal has gone
            self._loop.remove_reader(0)
            self._finished.put_nowait(None)
            return
        for line in self._editor.feed(self._decoder.decode(data)):
            if line is not None:
                typed = "\n".join(_rows(_PROMPT + escape(line), terminal_columns()))
                self._write(f"{self._cleared()}{typed}\n")
            self._finished.put_nowait(line)
        self._draw()

    async def read(self) -> str | None:
        return await self._finished.get()

    def show(self, line: str, coloured: int = 0) -> None:
        self._write(f"{self._cleared()}{_paint(line, coloured)}\n{self._drawn()}")

    def end(self) -> None:
        if self._ended:
            return
        import termios

        self._ended = True
        self._loop.remove_reader(0)
        for number in (signal.SIGWINCH, signal.SIGCONT):
            self._loop.remove_signal_handler(number)
        self._write(self._cleared() + "\x1b[?2004l")
        termios.tcsetattr(0, termios.TCSADRAIN, self._saved)

    def _cleared(self) -> str:
        """Return what wipes the prompt and what is typed, and goes to where it began."""
        up, self._row = self._row, 0
        return (f"\x1b[{up}A" if up else "") + "\r\x1b[J"

    def _drawn(self) -> str:
        """Return the prompt and what is typed; of more rows than the terminal has, those around the cursor."""
        columns, height = terminal_columns(), _height()
        before = _rows(_PROMPT + escape(self._editor.text[: self._editor.cursor]), columns)
        rows = _rows(_PROMPT + escape(self._editor.text), columns)
        row, column = len(before) - 1, sum(map(_width, before[-1]))
        first = max(0, min(row - height // 2, len(rows) - height))
        rows = rows[first : first + height]
        self._row = row - first
        up = len(rows) - 1 - self._row
        return "\n".join(rows) + (f"\x1b[{up}A" if up else "") + "\r" + (f"\x1b[{column}C" if column else "")

    def _draw(self) -> None:
        self._write(self._cleared() + self._drawn())

    @staticmethod
    def _write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def _paint(line: str, count: int) -> str:
    """Put the first characters of a line into the colour of its kind; https://no-color.org is respected."""
    if not count or os.environ.get("NO_COLOR"):
        return line
    colour = {"<": "32", "*": "36", "!": "31"}.get(line[count - 2 : count - 1], "0")
    return f"\x1b[{colour}m{line[:count]}\x1b[0m{line[count:]}"


def _size() -> os.terminal_size:
    try:
        # Not shutil's: COLUMNS in the environment can be that of another terminal, or of before it was resized.
        return os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        return os.terminal_size((0, 0))


def terminal_columns() -> int:
    """Return the width of the terminal; 80 where it has none."""
    return _size().columns or 80


def _height() -> int:
    return _size().lines or 24


def _width(character: str) -> int:
    return 0 if unicodedata.combining(character) else 1 + (unicodedata.east_asian_width(character) in "WF")


def _rows(line: str, columns: int) -> list[str]:
    """Cut a line into rows of a terminal."""
    rows = [""]
    used = 0
    for character in line:
        width = _width(character)
        if used + width >= columns > 2:
            rows.append("")
            used = 0
        rows[-1] += character
        used += width
    return rows


class Input:
    """Standard input, read by a thread: pipes, files and terminals alike, on every system.

    Args:
        loop: the event loop.
        binary: give the bytes as they come, not lines.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, binary: bool) -> None:
        self._loop = loop
        self._binary = binary
        self._queue: asyncio.Queue[list[bytes] | None] = asyncio.Queue(2)
        self._ready: list[bytes] = []
        self._ended = False
        # A daemon, since nothing interrupts a read of a terminal. It reads the descriptor itself: the lock of
        # `sys.stdin` must not be held when the interpreter ends.
        threading.Thread(target=self._read, name="wsfast-stdin", daemon=True).start()

    async def get(self) -> bytes | None:
        """Return the next line without its end, or the next bytes; None at the end."""
        if not self._ready:
            if self._ended or (lines := await self._queue.get()) is None:
                self._ended = True
                return None
            self._ready = lines[::-1]
        return self._ready.pop()

    def _read(self) -> None:
        rest = b""
        while True:
            try:
                data = os.read(0, _PIECE)
            except OSError:
                data = b""
            if not data:
                if rest:
                    self._put([rest.removesuffix(b"\r")])
                self._put(None)
                return
            if self._binary:
                pieces = [data]
            else:
                *lines, rest = (rest + data).split(b"\n")
                pieces = [line.removesuffix(b"\r") for line in lines]
            if pieces and not self._put(pieces):
                return

    def _put(self, lines: list[bytes] | None) -> bool:
        putting = self._queue.put(lines)
        try:
            # Waits while the network is slower than the input.
            asyncio.run_coroutine_threadsafe(putting, self._loop).result()
        except Exception:
            putting.close()  # or there would be a warning that it was never awaited
            return False  # the loop is closed: nobody asks any more
        return True
