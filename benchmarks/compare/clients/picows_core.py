"""picows' core client: frames in a callback."""

import argparse
import os

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from benchmarks.compare.servers._run import client_arguments, run


async def main(options: argparse.Namespace) -> None:
    payload = os.urandom(options.size)

    class Again(WSListener):
        def on_ws_connected(self, transport: WSTransport) -> None:
            transport.send(WSMsgType.BINARY, payload)

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if frame.msg_type == WSMsgType.CLOSE:
                transport.send_close(frame.get_close_code())
                transport.disconnect()
            else:
                transport.send(frame.msg_type, frame.get_payload_as_memoryview())

    uri = f"ws://127.0.0.1:{options.port}/?pid={os.getpid()}"
    transport, _ = await ws_connect(Again, uri, max_frame_size=1 << 30)
    await transport.wait_disconnected()


if __name__ == "__main__":
    run(main, client_arguments())
