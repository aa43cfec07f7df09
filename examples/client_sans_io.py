"""A client without an event loop, on a plain socket: python client_sans_io.py HOST PORT MESSAGE...

The session says when to do something; the program waits for that, or for the socket, whichever comes first.
"""

import select
import socket
import sys
import time

from wsfast.codes import CloseCause
from wsfast.connection import Side, State
from wsfast.handshake import ClientHandshake, ResponseParser, parse_uri
from wsfast.session import Do, Limits, Session


def obey(session: Session, sock: socket.socket, do: Do) -> bool:
    """Do what the session says; False once the transport is to be dropped."""
    sock.sendall(session.connection.encoder.take())
    if do is Do.END:
        sock.shutdown(socket.SHUT_WR)
        session.sending_ended(time.monotonic())
    return do is not Do.DROP


def talk(host: str, port: int, messages: list[str]) -> None:
    with socket.create_connection((host, port), timeout=10) as sock:
        handshake, parser, response = ClientHandshake(parse_uri(f"ws://{host}:{port}/")), ResponseParser(), None
        sock.sendall(handshake.request.raw)
        while response is None:
            response = parser.feed(sock.recv(65536))
        handshake.check_response(response)

        session = Session(Side.CLIENT, Limits(ping_interval=20, ping_timeout=20, close_timeout=5), time.monotonic())
        for message in messages:
            session.connection.send_message(message)
        events, do = session.receive_data(parser.trailing, time.monotonic())
        answers, going = 0, obey(session, sock, do)
        while going:
            for event in events:
                if isinstance(event, str):
                    print(event, flush=True)
                    answers += 1
            if answers == len(messages) and session.connection.state is State.OPEN:
                going = obey(session, sock, session.close(time.monotonic(), 1000, "", CloseCause.LOCAL))
            wait = None if session.deadline is None else max(0.0, session.deadline - time.monotonic())
            data = sock.recv(65536) if select.select([sock], [], [], wait)[0] else None
            if data == b"":
                break
            events, do = session.receive_data(data or b"", time.monotonic())
            going = obey(session, sock, do) and obey(session, sock, session.on_time(time.monotonic()))
        session.receive_eof()
        print(session.connection.close_code, session.connection.cause)


if __name__ == "__main__":
    talk(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
