"""The command line: chooses the command, and leaves what it does to the command's module.

A command is a module of this package with one function, ``add_parser(commands)``: it adds its parser to the
`argparse` subparsers that it is given, and sets the parser's default ``run`` to a function that takes the parsed
arguments and returns the exit status. What a command needs beyond wsfast it imports when it runs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from .._version import __version__
from . import bench, client, run, serve
from .options import complain, discard_output, looks_like_address

__all__ = ["main"]

_COMMANDS = (client, serve, run, bench)


def _parser() -> tuple[argparse.ArgumentParser, frozenset[str]]:
    """Return the parser, and the names of the commands."""
    parser = argparse.ArgumentParser(prog="python -m wsfast", description="WebSockets for asyncio.")
    parser.add_argument("--version", action="version", version=f"wsfast {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    for command in _COMMANDS:
        command.add_parser(commands)
    return parser, frozenset(commands.choices)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name.

    Args:
        arguments: default: those of the process.

    Returns:
        The exit status: 0 for success, 1 if the command failed, 130 if it was interrupted.

    Raises:
        SystemExit: with 2 if the arguments are wrong, with 0 after ``--help`` and ``--version``.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser, commands = _parser()
    named = bool(given) and given[0] in commands
    if not named and any("://" in argument or looks_like_address(argument) for argument in given):
        # A URI, and perhaps options, without a command: talk to it. Of a wrong scheme, say what is wrong with it.
        given.insert(0, client.NAME)
    args = parser.parse_args(given)
    command: Callable[[argparse.Namespace], int] = args.run
    if sys.stdout is None:
        # The parent process closed it: it wants no output.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    try:
        status = command(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except OSError as exc:
        # Of standard output, such as a full disk: what the network raises, the commands tell by themselves.
        complain(f"cannot write to standard output: {exc.strerror or exc}")
        discard_output()
        return 1
    return status
