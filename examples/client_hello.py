"""Send a message and print the answer: python client_hello.py ws://localhost:8765/"""

import asyncio
import sys

import wsfast


async def main(uri: str) -> None:
    async with wsfast.connect(uri) as ws:
        await ws.send("Hello!")
        print(await ws.recv())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
