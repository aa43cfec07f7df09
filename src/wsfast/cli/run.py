"""``python -m wsfast run``: a program in many processes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .options import add_listening_arguments, check_listening, complain, file_path, positive, whole

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_parser", "run"]


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "run",
        help="serve a program, in any number of processes",
        description="Serve a wsfast.Server or an ASGI application. SIGHUP replaces the workers one after the other,"
        " without refusing a connection; SIGTERM and SIGINT stop in order.",
    )
    parser.add_argument("target", metavar="MODULE:NAME", help="the program: a server, or a callable that returns one")
    parser.add_argument(
        "--workers", type=whole("a number of processes", 1, 1024), default=1, metavar="N", help="(default: 1)"
    )
    add_listening_arguments(parser, "127.0.0.1", 8765)
    parser.add_argument("--uvloop", action="store_true", help="run on uvloop, which must be installed")
    parser.add_argument("--reload", action="store_true", help="replace the workers when a Python file changes")
    parser.add_argument(
        "--directory", type=file_path, metavar="PATH", help="from where MODULE is imported (default: the current one)"
    )
    parser.add_argument(
        "--stop-timeout", type=positive, default=30.0, metavar="SECONDS", help="before workers are killed (default: 30)"
    )
    parser.add_argument(
        "--hang-timeout",
        type=positive,
        default=30.0,
        metavar="SECONDS",
        help="without a sign of life before a worker is replaced (default: 30)",
    )
    parser.add_argument(
        "--log-level", choices=["debug", "info", "warning", "error"], default="info", help="to stderr (default: info)"
    )
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM; return the exit status."""
    from ..workers import run as run_workers

    check_listening(args)
    options = {name: value for name, value in vars(args).items() if name not in ("command", "run", "parser", "target")}
    for name in ("host", "port"):
        if options[name] is None:
            del options[name]
    try:
        run_workers(args.target, **options)
    except ValueError as exc:
        complain(str(exc))
        return 2
    except SystemExit as exc:
        return int(exc.code or 0)
    return 0
