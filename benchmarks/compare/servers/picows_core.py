"""picows' core API: frames in a callback, not checked, no task per connection."""

import argparse

from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from ._run import arguments, run, tls_context

transports: set[WSTransport] = set()


class Echo(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        else:
            transport.send(frame.msg_type, frame.get_payload_as_memoryview())


class Broadcast(WSListener):
    def on_ws_connected(self, transport: WSTransport) -> None:
        transports.add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        transports.discard(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        else:
            kind, payload = frame.msg_type, frame.get_payload_as_bytes()
            for one in transports:
                one.send(kind, payload)


async def main(options: argparse.Namespace) -> None:
    listener = Broadcast if options.broadcast else Echo

    def factory(request: WSUpgradeRequest) -> WSListener:
        return listener()

    server = await ws_create_server(
        factory, "127.0.0.1", options.port, max_frame_size=1 << 30, ssl=tls_context(options)
    )
    await server.serve_forever()


if __name__ == "__main__":
    run(main, arguments())
