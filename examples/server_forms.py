"""Serve a subprotocol in each of the three forms, on one port: python server_forms.py PORT"""

import asyncio
import sys

import wsfast

server = wsfast.Server()


@server.handler("messages")  # the usual form: a coroutine that receives messages
async def messages(ws: wsfast.WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


@server.stream_handler("lines", text=True)  # a byte stream, as if it were a TCP connection
async def lines(reader: wsfast.Reader, writer: wsfast.Writer) -> None:
    while line := await reader.readline():
        await writer.write(line.upper())
        await writer.flush()  # what was written since the last flush is one message


@server.listener("ticks")  # callbacks: the least latency
class Ticks(wsfast.Listener):
    def on_message(self, message: str | bytes) -> None:
        self.ws.send_nowait(message)


async def main(port: int) -> None:
    await server.start("127.0.0.1", port)
    print(f"listening on port {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
