"""What the Autobahn|Testsuite has: its cases, its groups, and which results are good."""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

FUZZER = Path(__file__).with_name("fuzzer27.py")
# Groups 9, 12 and 13: large messages, and compression.
SLOW_GROUPS = {"9", "12", "13"}
COMPRESSION_GROUPS = {"12", "13"}
# Cases without a right answer; the suite says INFORMATIONAL to everybody.
INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}


@dataclass(frozen=True)
class Suite:
    """The cases in order, and the titles of the groups."""

    cases: list[str]
    titles: dict[str, str]

    @classmethod
    def load(cls, python27: Path) -> Suite:
        """Ask the installed suite itself."""
        told = subprocess.run([python27, FUZZER, "cases"], check=True, capture_output=True, stdin=subprocess.DEVNULL)
        line = next(line for line in told.stdout.splitlines() if line.startswith(b"@"))
        return cls(**json.loads(line[1:]))

    def select(self, patterns: Sequence[str], quick: bool) -> list[str]:
        """Return the cases that match any of the patterns, all if there is none.

        Args:
            patterns: ids, as "6.4.1", their beginnings, as "6.4", or globs, as "6.4.*".
            quick: leave out groups 9, 12 and 13.

        Raises:
            ValueError: a pattern matches no case, or no case is left.
        """
        for pattern in patterns:
            if not any(_matches(case, pattern) for case in self.cases):
                raise ValueError(f"no case matches {pattern!r}")
        chosen = [case for case in self.cases if not patterns or any(_matches(case, p) for p in patterns)]
        chosen = [case for case in chosen if not (quick and group_of(case) in SLOW_GROUPS)]
        if not chosen:
            raise ValueError("no case is left")
        return chosen


def _matches(case: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(case, pattern) or case.startswith(pattern + ".")


def group_of(case: str) -> str:
    return case.partition(".")[0]


def sort_key(case: str) -> list[int]:
    return [int(part) for part in case.split(".")]


@dataclass
class Result:
    """How one case came out."""

    case: str
    behavior: str
    close: str
    expected: str = ""
    got: str = ""

    @classmethod
    def missing(cls, case: str) -> Result:
        return cls(case, "MISSING", "MISSING", got="no result")

    @classmethod
    def told(cls, fields: dict[str, object]) -> Result:
        """Make one from what fuzzer27.py told."""
        case, behavior, close = (str(fields[key]) for key in ("case", "behavior", "behaviorClose"))
        result = cls(case, behavior, close)
        if "result" in fields:
            expected = [f"{_plain(fields['description'])} -> {_plain(fields['expectation'])}"]
            got = [str(fields["result"])]
            if behavior != "OK":
                expected.append(f"events {_shortened(fields['expected'])}")
                got.append(f"events {_shortened(fields['received'])}")
            if close != "OK":
                expected.append(f"close code in {fields['close_expected']}")
                got.append(f"{fields['resultClose']}, close code {fields['remoteCloseCode']}")
            result.expected, result.got = "; ".join(expected), "; ".join(got)
        return result

    @property
    def informational(self) -> bool:
        return self.case in INFORMATIONAL and self.behavior == self.close == "INFORMATIONAL"

    @property
    def good(self) -> bool:
        return self.behavior == self.close == "OK" or self.informational

    @property
    def verdict(self) -> str:
        """The worse half in one word: the behavior, or how the connection was closed when that is what went wrong."""
        return self.behavior if self.behavior != "OK" else "OK" if self.close == "OK" else f"CLOSE {self.close}"


def _plain(html: object) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", str(html))).strip()


def _shortened(events: object, limit: int = 400) -> str:
    text = json.dumps(events, ensure_ascii=True)
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


@dataclass
class Outcome:
    """All results of one side with one codec and one loop."""

    label: str
    results: dict[str, Result] = field(default_factory=dict)
    # What went wrong beside the cases: a crash, a traceback, a stall.
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def bad(self) -> list[Result]:
        return [self.results[case] for case in sorted(self.results, key=sort_key) if not self.results[case].good]

    @property
    def passed(self) -> bool:
        return not self.bad and not self.problems
