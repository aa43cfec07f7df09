"""Listen for TCP and carry each connection over a WebSocket of its own: python client_tunnel.py PORT URI

The server's handler is registered with half_close=True, too, so that each direction ends by itself, as TCP's do.
"""

import asyncio
import sys

import wsfast


async def carry(uri: str, near_reader: asyncio.StreamReader, near_writer: asyncio.StreamWriter) -> None:
    async def up() -> None:
        while data := await near_reader.read(65536):
            await writer.write(data)
            await writer.flush()
        await writer.write_eof()  # the other direction goes on

    async def down() -> None:
        while data := await reader.read():
            near_writer.write(data)
            await near_writer.drain()
        near_writer.write_eof()

    try:
        async with wsfast.connect_stream(uri, half_close=True) as (reader, writer):
            await asyncio.gather(up(), down())
    finally:
        near_writer.close()


async def main(port: int, uri: str) -> None:
    server = await asyncio.start_server(lambda reader, writer: carry(uri, reader, writer), "127.0.0.1", port)
    print(f"listening on port {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
