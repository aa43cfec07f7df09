"""The command line: chooses the command, and calls its module.

A command is a module of this package with one function, ``add_parser(commands)``: it adds its parser to the
`argparse` subparsers that it is given, and sets the parser's default ``run`` to a function that takes the parsed
arguments and returns the exit status. What a command needs beyond wsfast it imports when it runs.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from .._version import __version__
from ..handshake.uri import mask
from . import bench, client, run, serve
from .options import complain, discard_output, escape, looks_like_address

__all__ = ["main"]

_COMMANDS = (client, serve, run, bench)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are two lines: the usage of a command with twenty options would hide what is wrong."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {escape(message)}\n{self.prog} --help lists what can be given\n")


def _parser() -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """Return the parser, and those of the commands by their names."""
    parser = _Parser(prog="python -m wsfast", description="WebSockets for asyncio.")
    parser.add_argument("--version", action="version", version=f"wsfast {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for command in _COMMANDS:
        command.add_parser(commands)
    return parser, commands.choices


def _check_options(parser: argparse.ArgumentParser, given: Sequence[str]) -> None:
    """Check the names of a command's options: an error of argparse's would show their values, which may be secrets.

    Raises:
        SystemExit: with 2, one is not known, ambiguous, or takes no value.
    """
    options = parser._option_string_actions
    for argument in given:
        name, equals, _ = argument.partition("=")
        if name == "--":
            return
        if not name.startswith("--"):
            continue
        found = [name] if name in options else [option for option in options if option.startswith(name)]
        if len(found) > 1:
            parser.error(f"ambiguous option {name}: it could be {', '.join(found)}")
        if not found:
            near = difflib.get_close_matches(name, options, 1, 0.7)
            parser.error(f"unrecognized option {name}" + (f": did you mean {near[0]}?" if near else ""))
        if equals and options[found[0]].nargs == 0:
            parser.error(f"option {found[0]} takes no value")


def _shown(argument: str) -> str:
    """Return an argument that is one too many as it may be shown."""
    if argument.startswith("-"):
        return argument[:2]
    return mask(argument) if "://" in argument else "..."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name.

    Args:
        arguments: default: those of the process.

    Returns:
        The exit status: 0 for success, 1 if the command failed, 2 if none was named, 130 if it was interrupted.

    Raises:
        SystemExit: with 2 if the arguments are wrong, with 0 after ``--help`` and ``--version``.
    """
    try:
        return _run(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:
        return 130


def _run(given: list[str]) -> int:
    parser, commands = _parser()
    if not given:
        parser.print_help(sys.stderr)
        return 2
    first = given[0]
    if first in ("-h", "--help", "--version", *commands):
        pass
    elif first.startswith("-") or "://" in first or looks_like_address(first):
        # A URI, or options, without a command: talk to it. Of a wrong scheme, the client says what is wrong with it.
        given.insert(0, client.NAME)
    else:
        near = difflib.get_close_matches(first, sorted(commands), 1, 0.5)
        parser.error(
            f"expected the address of a server, such as ws://localhost:8765/, or a command, got {mask(first)!r}; "
            + (f"did you mean {near[0]}?" if near else f"the commands are {', '.join(sorted(commands))}")
        )
    if given[0] in commands:
        _check_options(commands[given[0]], given[1:])
    args, unknown = parser.parse_known_args(given)
    if unknown:
        args.parser.error(f"unrecognized arguments: {' '.join(map(_shown, unknown))}")
    command: Callable[[argparse.Namespace], int] = args.run
    if sys.stdout is None:
        # The parent process closed it: it wants no output.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    try:
        status = command(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who read standard output has gone, as `head` does, and knows why.
        discard_output()
        return 1
    except OSError as exc:
        # Of standard output, such as a full disk: what the network raises, the commands tell by themselves.
        complain(f"cannot write to standard output: {exc.strerror or exc}")
        discard_output()
        return 1
    return status
