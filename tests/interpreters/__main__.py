"""Commands for every interpreter at hand; see README.md."""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from . import cross, suite, wheels
from .debian import build_free_threaded, fetch, fetch_i386, test_i386
from .emulated import PROCESSORS, run_emulated
from .found import ROOT, choose, find, others
from .pyodide import test_pyodide


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.interpreters", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the interpreters that are here")
    one = commands.add_parser("test", help="build a wheel for each interpreter, install it, and run the tests")
    one.add_argument(
        "--quick", action="store_true", help="the tests of the codec, of threads and of usual connections only"
    )
    one.add_argument("--few", action="store_true", help="install only what the tests of the codec need")
    one.add_argument(
        "--others", action="store_true", help="the CPythons installed here but this one's version; none is all right"
    )
    one.add_argument("--jobs", type=int, default=2, help="how many processes run tests (default: 2)")
    one.add_argument("--at-once", type=int, default=1, help="how many interpreters are tested at once (default: 1)")
    one.add_argument("--keep", type=Path, help="leave the environments there; the next run uses them again")
    one.add_argument(
        "names", nargs="*", help="such as 3.13, 3.13t, pypy3.11, i386, pyodide, aarch64 (default: all here)"
    )
    one.add_argument("--pytest", nargs=argparse.REMAINDER, default=[], help="arguments of pytest; the last option")
    one = commands.add_parser("wheels", help="the sdist and all wheels that can be built here, checked and tried")
    one.add_argument("--out", type=Path, default=ROOT / "dist", help="an empty or new folder (default: dist)")
    one.add_argument("names", nargs="*", help="as above")
    one = commands.add_parser("cross", help="compile, but do not link, for other processors and systems")
    one.add_argument("names", nargs="*", help="one interpreter, whose headers are used (default: the newest here)")
    one.add_argument(
        "--strict", action="store_true", help="for this machine: gcc and clang, -std=c11 -pedantic -Werror"
    )
    one.add_argument("--target", action="append", default=[], help="such as s390x-linux-gnu; may be repeated")
    one.add_argument("--look", action="store_true", help="without optimising, which is faster")
    one = commands.add_parser("debian", help="get interpreters from Debian into the cache; asks for root where needed")
    one.add_argument("names", nargs="+", help="such as 3.14, pypy3.11, 3.14t (built from source), i386")
    one.add_argument(
        "--source", type=Path, help="a checkout of CPython, or an archive of it, for 3.14t (default: Debian's)"
    )
    one.add_argument(
        "--thread-sanitizer", action="store_true", help="build 3.14t with it, for tests.sanitize --threads"
    )
    args = parser.parse_args()
    if args.command == "test" and args.others and args.names:
        parser.error("expected names or --others, got both")
    elsewhere = {"i386": test_i386, "pyodide": test_pyodide}
    elsewhere |= {name: partial(run_emulated, name) for name in PROCESSORS}
    if args.command == "list":
        print(*find(), sep="\n")
    elif args.command == "test":
        results = [elsewhere[name](args.pytest) for name in args.names if name in elsewhere]
        named = [name for name in args.names if name not in elsewhere]
        if named or not results:
            chosen = others() if args.others else choose(named)
            print("to be tested:", ", ".join(each.name for each in chosen) or "none", flush=True)
            keep = args.keep and args.keep.resolve()
            test = partial(
                suite.run_tests, arguments=args.pytest, quick=args.quick, few=args.few, jobs=args.jobs, keep=keep
            )
            with ThreadPoolExecutor(args.at_once) as pool:
                results += pool.map(test, chosen)
        sys.exit(not all(results))
    elif args.command == "wheels":
        wheels.main(choose(args.names), args.out.resolve())
    elif args.command == "cross":
        cross.main(choose(args.names)[-1], args.target, strict=args.strict, look=args.look)
    else:
        for name in args.names:
            if name == "i386":
                print(fetch_i386())
            elif name.endswith("t"):
                print(build_free_threaded(name, args.source, sanitized=args.thread_sanitizer))
            else:
                print(fetch(name))


if __name__ == "__main__":
    main()
