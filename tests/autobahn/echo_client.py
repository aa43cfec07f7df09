"""The echo client that the Autobahn|Testsuite checks: `python echo_client.py URL [options]`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import ssl
import sys
import traceback

import wsfast
import wsfast.codec

MAX_SIZE = 32 * 2**20
AGENT = "wsfast"


async def main(args: argparse.Namespace) -> None:
    if args.codec and args.codec != wsfast.codec.IMPLEMENTATION:
        sys.exit(f"the codec is {wsfast.codec.IMPLEMENTATION}, not {args.codec}: is the extension built?")
    context = ssl.create_default_context(cafile=args.tls) if args.tls else None
    async with wsfast.connect(f"{args.url}/getCaseCount", ssl=context) as ws:
        cases = int(await ws.recv())
    compression = None if args.compression == "none" else args.compression
    failed = False
    for case in range(1, cases + 1):
        try:
            async with wsfast.connect(
                f"{args.url}/runCase?case={case}&agent={AGENT}",
                ssl=context,
                max_size=MAX_SIZE,
                compression=compression,
            ) as ws:
                with contextlib.suppress(wsfast.ConnectionClosed):
                    async for message in ws:
                        await ws.send(message)
        except Exception:
            # One broken case is not to hide the others.
            traceback.print_exc()
            failed = True
    async with wsfast.connect(f"{args.url}/updateReports?agent={AGENT}", ssl=context):
        pass
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="of the fuzzing server, as ws://127.0.0.1:9001")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--codec", choices=["cython", "python"], help="refuse to run with another")
    parser.add_argument("--compression", choices=["none", "deflate"], default="none", help="deflate for groups 12, 13")
    parser.add_argument("--tls", metavar="FILE", help="the authority whose certificates are trusted, for a wss:// URL")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    loop_factory = None
    if arguments.loop == "uvloop":
        import uvloop

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main(arguments))
