"""The echo server that the Autobahn|Testsuite checks: `python echo_server.py PORT [options]`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import ssl
import sys

import wsfast
import wsfast.codec

# The largest message of group 9; twice that, so that it is not the limit that is tested.
MAX_SIZE = 32 * 2**20


async def echo(ws: wsfast.WebSocket) -> None:
    # A peer that broke the protocol is what the suite is about: no error of this program.
    with contextlib.suppress(wsfast.ConnectionClosed):
        async for message in ws:
            await ws.send(message)


class Echo(wsfast.Listener):
    def on_message(self, message: str | bytes) -> None:
        self.ws.send_nowait(message)


async def main(args: argparse.Namespace) -> None:
    if args.codec and args.codec != wsfast.codec.IMPLEMENTATION:
        sys.exit(f"the codec is {wsfast.codec.IMPLEMENTATION}, not {args.codec}: is the extension built?")
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    compression = None if args.compression == "none" else args.compression
    # Unsent echoes are bounded by the pause in reading from a peer that does not read.
    context = None
    if args.tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(args.tls)
    server = wsfast.Server(max_size=MAX_SIZE, max_buffered=None, compression=compression)
    if args.listener:
        server.register_listener(None, Echo)
    else:
        server.register_handler(None, echo)
    async with server:
        await server.start("127.0.0.1", args.port, ssl=context)
        await stop.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--codec", choices=["cython", "python"], help="refuse to run with another")
    parser.add_argument("--compression", choices=["none", "deflate"], default="none", help="deflate for groups 12, 13")
    parser.add_argument("--listener", action="store_true", help="the callback form, not the coroutine")
    parser.add_argument("--tls", metavar="FILE", help="TLS, with the certificate and key of this file")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    loop_factory = None
    if arguments.loop == "uvloop":
        import uvloop

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main(arguments))
