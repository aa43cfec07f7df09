"""``python -m wsfast.websockets program.py`` runs a program that imports `websockets` on wsfast."""

from __future__ import annotations

import os
import runpy
import sys

from .alias import install

_USAGE = """\
usage: python -m wsfast.websockets program.py [argument ...]
       python -m wsfast.websockets -m module [argument ...]"""


def main() -> None:
    """Run the program that the command line names, as ``python`` would."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help") or arguments == ["-m"]:
        print(_USAGE, file=sys.stdout if arguments and arguments != ["-m"] else sys.stderr)
        sys.exit(0 if arguments and arguments != ["-m"] else 2)
    install()
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path.insert(0, os.path.dirname(os.path.abspath(arguments[0])))
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
