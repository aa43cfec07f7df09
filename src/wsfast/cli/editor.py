"""A line that is typed and edited, with a history: which key does what, without a terminal.

The keys are those of Emacs, which shells have too: Ctrl-A and Ctrl-E go to the ends, Ctrl-W, Ctrl-U and Ctrl-K cut,
Ctrl-Y puts back. The up and down arrows go through those earlier lines that begin with what is typed. What is pasted is
one line, its line breaks included.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["Editor"]

_HISTORY: Final = 1000

# An escape sequence: of a cursor or function key (ECMA-48, 5.4, and SS3 of VT100), or of a key with Alt.
_SEQUENCE: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O[ -~]|[^\[O\x1b])", re.DOTALL)
_UNFINISHED: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|O)?\Z")
_PASTE: Final = "\x1b[200~"
_PASTED: Final = "\x1b[201~"

_KEYS: Final = {
    "\x01": "home",
    "\x02": "left",
    "\x04": "delete_or_end",
    "\x05": "end",
    "\x06": "right",
    "\x08": "backspace",
    "\x0b": "cut_rest",
    "\x0e": "next",
    "\x10": "previous",
    "\x15": "cut_start",
    "\x17": "cut_word",
    "\x19": "put_back",
    "\x7f": "backspace",
    "\x1bb": "word_left",
    "\x1bd": "cut_next_word",
    "\x1bf": "word_right",
    "\x1b\x7f": "cut_word",
    # The final byte says which key it is, whatever it is pressed with (CSI 1;5D is Ctrl-Left), unless that is "~".
    "A": "previous",
    "B": "next",
    "C": "right",
    "D": "left",
    "F": "end",
    "H": "home",
    "1~": "home",
    "3~": "delete",
    "4~": "end",
    "7~": "home",
    "8~": "end",
}
_BY_WORDS: Final = {"C": "word_right", "D": "word_left"}


class Editor:
    """The line that is being typed.

    Attributes:
        text: it, as far as it is known.
        cursor: how many of its characters are in front of the cursor.
    """

    def __init__(self) -> None:
        self.text: str = ""
        self.cursor: int = 0
        self._rest = ""  # the beginning of an escape sequence, or of a paste
        self._cut = ""
        self._history: list[str] = []
        self._at = 0  # which line of the history is shown; its length for the new one
        self._typed: str | None = None  # the new one, from when earlier ones are looked at

    def feed(self, data: str) -> list[str | None]:
        """Take what was typed; return the lines that are finished, and None for Ctrl-D on an empty one."""
        found: list[str | None] = []
        data = self._rest + data
        self._rest = ""
        at = 0
        while at < len(data):
            if data.startswith(_PASTE, at):
                end = data.find(_PASTED, at)
                if end < 0:
                    self._rest = data[at:]
                    break
                self._insert(re.sub(r"\r\n?", "\n", data[at + len(_PASTE) : end]))
                at = end + len(_PASTED)
                continue
            if data[at] == "\x1b":
                if _UNFINISHED.match(data, at):
                    self._rest = data[at:]
                    break
                sequence = _SEQUENCE.match(data, at)
                if sequence is None:  # another begins within, or what comes is no key: forget it
                    at += 1
                    continue
                at = sequence.end()
                self._press(self._meaning(sequence[0]))
                continue
            key = data[at]
            at += 1
            if key in "\r\n":
                found.append(self._finish())
            elif key == "\x04" and not self.text:
                found.append(None)
            elif key in _KEYS and (key < " " or key == "\x7f"):
                self._press(_KEYS[key])
            elif key >= " " or key == "\t":
                self._insert(key)
        return found

    @staticmethod
    def _meaning(sequence: str) -> str | None:
        if sequence[1] not in "[O":
            return _KEYS.get(sequence)
        parameters, final = sequence[2:-1], sequence[-1]
        if final == "~":
            return _KEYS.get(parameters.partition(";")[0] + "~")
        if final in _BY_WORDS and ";" in parameters:
            return _BY_WORDS[final]
        return _KEYS.get(final)

    def _press(self, meaning: str | None) -> None:
        text, cursor = self.text, self.cursor
        match meaning:
            case "left":
                self.cursor = max(0, cursor - 1)
            case "right":
                self.cursor = min(len(text), cursor + 1)
            case "home":
                self.cursor = 0
            case "end":
                self.cursor = len(text)
            case "word_left":
                self.cursor = self._word_start()
            case "word_right":
                self.cursor = self._word_end()
            case "backspace":
                self._replace(max(0, cursor - 1), cursor)
            case "delete" | "delete_or_end":
                self._replace(cursor, cursor + 1)
            case "cut_rest":
                self._cut_out(cursor, len(text))
            case "cut_start":
                self._cut_out(0, cursor)
            case "cut_word":
                self._cut_out(self._word_start(), cursor)
            case "cut_next_word":
                self._cut_out(cursor, self._word_end())
            case "put_back":
                self._insert(self._cut)
            case "previous":
                self._show(range(self._at - 1, -1, -1))
            case "next":
                self._show(range(self._at + 1, len(self._history) + 1))

    def _insert(self, text: str) -> None:
        self._replace(self.cursor, self.cursor, text)

    def _replace(self, start: int, end: int, text: str = "") -> None:
        self.text = self.text[:start] + text + self.text[end:]
        self.cursor = start + len(text)
        # An earlier line that is changed is the new one.
        self._at, self._typed = len(self._history), None

    def _cut_out(self, start: int, end: int) -> None:
        if start < end:
            self._cut = self.text[start:end]
            self._replace(start, end)

    def _word_start(self) -> int:
        found = re.search(r"\w*\W*\Z", self.text[: self.cursor])
        return found.start() if found else 0

    def _word_end(self) -> int:
        found = re.match(r"\W*\w*", self.text[self.cursor :])
        return self.cursor + (found.end() if found else 0)

    def _show(self, places: range) -> None:
        """Show the first line of these places that begins with what was typed."""
        if self._typed is None:
            self._typed = self.text
        for place in places:
            line = self._typed if place == len(self._history) else self._history[place]
            if line.startswith(self._typed):
                self._at, self.text, self.cursor = place, line, len(line)
                return

    def _finish(self) -> str:
        line = self.text
        if line and line not in self._history[-1:]:
            self._history.append(line)
            del self._history[:-_HISTORY]
        self.text, self.cursor = "", 0
        self._at, self._typed = len(self._history), None
        return line
