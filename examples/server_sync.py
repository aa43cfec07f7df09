"""Send every message back, without an event loop: python server_sync.py PORT"""

import signal
import sys

import wsfast.sync


def echo(ws: wsfast.sync.WebSocket) -> None:
    for message in ws:  # str is text, bytes is binary
        ws.send(message)


if __name__ == "__main__":
    with wsfast.sync.serve(echo, "127.0.0.1", int(sys.argv[1])) as server:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: server.shutdown())
        print(f"listening on port {server.socket.getsockname()[1]}", flush=True)
        server.serve_forever()
