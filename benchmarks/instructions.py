"""Count the instructions of the codec and the channel, and hold them against a stored baseline.

    python -m benchmarks.instructions             # count, and compare with benchmarks/baseline.json
    python -m benchmarks.instructions --update    # count, and store

The clock of a machine that does other work tells a slowdown by a quarter only after many rounds, and that of another
machine not at all; the number of instructions is the same within a percent each time. It is no measure of speed (a
division counts as much as an addition, and memory costs nothing), but of whether a change made the same code do more.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wsfast

from . import instruction_cases
from .instruction_cases import CASES, COUNT, MARKER, MARKS

__all__ = ["UnavailableError", "check_comparable", "count", "load", "table", "too_many"]

ROOT = Path(__file__).resolve().parent.parent
BASELINE = Path(__file__).with_name("baseline.json")
TOLERANCE = 0.25
"""The part of its baseline by which a figure may exceed it."""
_STALE = 0.1  # a gain from which on the baseline should be made anew, or half of it could be lost unseen
_TIMEOUT = 1800  # seconds: on a quiet machine it takes 20


class UnavailableError(Exception):
    """The instructions cannot be counted here, or not be compared; the text says why."""


def made_with() -> dict[str, str]:
    """Return what the counts depend on beside the code.

    Raises:
        UnavailableError: the extension is not built.
    """
    try:
        from wsfast import _codec
    except ImportError as exc:
        raise UnavailableError(f"the Cython codec cannot be imported: {exc}") from None
    optimized = "optimized" if "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "") else "plain"
    compiled_by = re.match(r"\S+ \d+", platform.python_compiler())
    return {
        "python": f"{platform.python_implementation()} {sys.version_info[0]}.{sys.version_info[1]}"
        f" ({compiled_by[0] if compiled_by else platform.python_compiler()}, {optimized})",
        "machine": f"{platform.system()} {platform.machine()}{_vectors()}",
        "compiler": _compiler(Path(_codec.__file__)),
    }


def _vectors() -> str:
    """Tell which of the codec's loops valgrind's processor will choose: it has AVX2 where the real one has."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return ""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return ""
    return " with AVX2" if "avx2" in flags else " without AVX2"


def _compiler(extension: Path) -> str:
    """Read the compiler's name and major version from where it leaves them in what it makes."""
    data = extension.read_bytes()
    found = re.search(rb"clang version (\d+)", data)
    if found:
        return f"clang {found[1].decode()}"
    found = re.search(rb"GCC: \([^)]*\) (\d+)", data)
    return f"gcc {found[1].decode()}" if found else "unknown"


def count() -> dict[str, float]:
    """Run all cases under callgrind and return the instructions of one operation of each.

    Raises:
        UnavailableError: valgrind is not there, or does not run this Python.
        RuntimeError: a case failed.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise UnavailableError("valgrind is not installed")
    # What would make Python do other things than it usually does is left out.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "WSFAST_"))}
    environment |= {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    # valgrind counts each byte that `rep movsb` moves as an instruction: have memcpy use vectors, however long it is.
    environment["GLIBC_TUNABLES"] = f"glibc.cpu.x86_rep_movsb_threshold={1 << 30}"
    environment["PYTHONPATH"] = str(Path(wsfast.__file__).parent.parent)  # the same one as here
    with tempfile.TemporaryDirectory() as directory:
        command = [
            valgrind,
            "--tool=callgrind",
            f"--dump-before={MARKER}",
            f"--callgrind-out-file={directory}/out",
            sys.executable,
            "-m",
            instruction_cases.__name__,
        ]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=_TIMEOUT)
        if done.returncode:
            said = "\n".join(line for line in done.stderr.splitlines() if not line.startswith("=="))
            if "Traceback" in said:
                raise RuntimeError(f"a case failed:\n{said}")
            raise UnavailableError(f"callgrind ended with {done.returncode}: {said[-400:]}")
        lines = done.stdout.splitlines()
        totals = [_total(Path(f"{directory}/out.{i}")) for i in range(1, MARKS * len(lines) + 1)]
        if len(lines) != len(CASES) or Path(f"{directory}/out.{MARKS * len(lines) + 1}").exists():
            raise UnavailableError(f"callgrind saw another number of calls of {MARKER} than were made")
    counts = {}
    for i, line in enumerate(lines):
        operations, _, name = line.partition(" ")
        once, twice = totals[MARKS * i + 1 : MARKS * i + 3]
        counts[name] = round((twice - once) / (COUNT * int(operations)), 1)
    return counts


def _total(part: Path) -> int:
    found = re.search(r"^totals: (\d+)", part.read_text() if part.exists() else "", re.MULTILINE)
    if found is None:
        raise UnavailableError(f"callgrind wrote no {part.name}: it does not know the function {MARKER}")
    return int(found[1])


def load() -> dict[str, Any]:
    """Return the stored baseline: what it was "made with", and "instructions" by case."""
    stored: dict[str, Any] = json.loads(BASELINE.read_text())
    return stored


def check_comparable(stored: Mapping[str, Any]) -> None:
    """Check that the stored figures say something about counts taken here.

    Raises:
        UnavailableError: they do not.
    """
    here = made_with()
    differences = [f"{here[name]}, not {old}" for name, old in stored["made with"].items() if here.get(name) != old]
    if differences:
        raise UnavailableError(f"the stored counts were not made with what is here: {'; '.join(differences)}")


def too_many(figure: float, baseline: float | None) -> bool:
    """Tell whether a figure exceeds its baseline by more than a quarter, or has none."""
    return baseline is None or figure > baseline * (1 + TOLERANCE)


def table(counts: Mapping[str, float], stored: Mapping[str, float]) -> list[str]:
    """Return the lines of a table of 80 columns: figure, baseline, change. A long name has a line of its own."""
    lines = [f"{'instructions':<40}{'here':>11}{'baseline':>11}{'change':>8}"]
    for name, figure in counts.items():
        before = stored.get(name)
        if len(name) > 40:
            lines.append(name)
        line = f"{name if len(name) <= 40 else '':<40}{figure:>11,.1f}"
        if before is None:
            line += f"{'none':>11}"
        else:
            change = figure / before - 1
            line += f"{before:>11,.1f}{change:>+8.1%}"
            line += "  too many" if too_many(figure, before) else "  store it" if change < -_STALE else ""
        lines.append(line)
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__.partition("\n")[0])
    parser.add_argument("--update", action="store_true", help="store what is counted as the baseline")
    options = parser.parse_args()
    stored: dict[str, Any] = load() if BASELINE.exists() else {"made with": {}, "instructions": {}}
    try:
        if not options.update:
            check_comparable(stored)
        counts = count()
    except UnavailableError as exc:
        print(exc, file=sys.stderr)
        return 2
    print("\n".join(table(counts, stored["instructions"])))
    if options.update:
        BASELINE.write_text(json.dumps({"made with": made_with(), "instructions": counts}, indent=2) + "\n")
        return 0
    return int(any(too_many(figure, stored["instructions"].get(name)) for name, figure in counts.items()))


if __name__ == "__main__":
    sys.exit(main())
