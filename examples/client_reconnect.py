"""Print what a server sends, connecting again whenever the connection is lost: python client_reconnect.py URI"""

import asyncio
import logging
import sys

import wsfast


async def main(uri: str) -> None:
    async for ws in wsfast.connect(uri):
        try:
            async for message in ws:
                print(message, flush=True)
        except wsfast.ConnectionClosedError as exc:
            print(f"lost: {exc}", file=sys.stderr)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)  # tells when it connects again
    asyncio.run(main(sys.argv[1]))
