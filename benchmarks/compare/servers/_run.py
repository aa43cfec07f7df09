"""What every server script shares: arguments, TLS context, event loop."""

import argparse
import asyncio
import ssl
from collections.abc import Awaitable, Callable

__all__ = ["arguments", "client_arguments", "run", "tls_context"]


def arguments() -> argparse.Namespace:
    """Read a server's arguments: PORT LOOP [--broadcast] [--topics TOTAL EACH] [--tls DIRECTORY]."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("loop", choices=["asyncio", "uvloop"])
    parser.add_argument("--broadcast", action="store_true", help="send what comes to every connection")
    parser.add_argument(
        "--topics", type=int, nargs=2, metavar=("TOTAL", "EACH"), help="publish what comes to the topics in turn"
    )
    parser.add_argument("--tls", metavar="DIRECTORY", help="where cert.pem and key.pem are")
    parser.add_argument("--form", default="", help="which API of the library")
    return parser.parse_args()


def client_arguments() -> argparse.Namespace:
    """Read a client's arguments: PORT LOOP [--form FORM] [--size BYTES]."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("loop", choices=["asyncio", "uvloop"])
    parser.add_argument("--form", default="")
    parser.add_argument("--size", type=int, default=64)
    return parser.parse_args()


def tls_context(options: argparse.Namespace) -> ssl.SSLContext | None:
    """Make the server's TLS context, or None without --tls."""
    if options.tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(f"{options.tls}/cert.pem", f"{options.tls}/key.pem")
    return context


def run(main: Callable[[argparse.Namespace], Awaitable[None]], options: argparse.Namespace) -> None:
    """Run main(options) on the chosen event loop."""

    async def entered() -> None:
        await main(options)

    if options.loop == "uvloop":
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(entered())
    else:
        with asyncio.Runner() as runner:
            runner.run(entered())
