"""Send every message back, without an event loop: python server_sync.py PORT"""

import sys

import wsfast.sync


def echo(ws: wsfast.sync.WebSocket) -> None:
    for message in ws:  # str is text, bytes is binary
        ws.send(message)


if __name__ == "__main__":
    with wsfast.sync.serve(echo, "127.0.0.1", int(sys.argv[1])) as server:
        print(f"listening on port {server.socket.getsockname()[1]}", flush=True)
        server.serve_forever()
