"""The byte stream below a connection without an event loop: a socket, and any layers of TLS on it.

The socket never blocks; to wait, call `wait`, with a deadline. TLS runs in memory (`ssl.MemoryBIO`), so the caller's
lock is enough to read in one thread and write in another: an `ssl.SSLSocket` must not be used by two threads at once.
With TLS in memory, TLS to the server through TLS to a proxy is just two layers.
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from wsfast.dial.eyeballs import STAGGER, alternate, none_answers
from wsfast.transport.binding import LATER

__all__ = ["Deadline", "Link", "bounded", "open_tcp", "open_unix"]

_RECEIVE: Final = 65536
_OWN: Final = 65536
"""The most bytes of TLS's own answers (to KeyUpdates, for example) that may pile up while the peer does not read."""

_AT_ONCE: Final = 86400.0
"""The most seconds to wait in one call, since the system takes at most 2 ** 31 milliseconds. Callers wait again."""

_T = TypeVar("_T")


class Deadline:
    """A moment by which something must be done.

    Args:
        timeout: seconds from now; None for never.
        text: of the error once it has passed.
    """

    __slots__ = ("_at", "_text")

    def __init__(self, timeout: float | None, text: str = "timed out") -> None:
        self._at = None if timeout is None else time.monotonic() + timeout
        self._text = text

    def left(self) -> float | None:
        """Return the seconds that are left, or a day if that is less; None for no limit.

        Raises:
            TimeoutError: none are left.
        """
        if self._at is None:
            return None
        left = self._at - time.monotonic()
        if left <= 0:
            raise TimeoutError(self._text)
        return min(left, _AT_ONCE)

    def sooner(self, timeout: float) -> Deadline:
        """Make a deadline that is `timeout` seconds from now, or this one if that is sooner."""
        other = Deadline(timeout, self._text)
        if self._at is not None and other._at is not None:
            other._at = min(self._at, other._at)
        return other


class _Tls:
    """One layer of TLS, in memory."""

    __slots__ = ("_incoming", "_outgoing", "_unwritten", "ended", "error", "object", "waiting")

    def __init__(self, context: ssl.SSLContext, server_hostname: str | None, server_side: bool) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._unwritten: deque[bytes] = deque()
        self.waiting = 0  # bytes of that
        self.ended = False  # close_notify has come; it can be in one read with the last data
        self.error: ssl.SSLError | None = None  # the peer has broken TLS; what it sent before that was returned
        self.object = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname
        )

    def handshake(self) -> bool:
        """Go on with the handshake; False if the peer has to speak first."""
        try:
            self.object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def take(self) -> bytes:
        """Return what is to be sent to the layer below."""
        return self._outgoing.read()

    def feed(self, data: bytes) -> None:
        """Take in what came from the layer below; ``b""`` is its end."""
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def read(self) -> bytes | None:
        """Return what was decrypted: None if there is nothing yet, ``b""`` at the end.

        Raises:
            ssl.SSLError: the peer has broken TLS.
        """
        if self.error is not None:
            raise self.error
        pieces = []
        try:
            while piece := self.object.read(_RECEIVE):
                pieces.append(piece)
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            # The WebSocket closing handshake, not TLS, shows whether this end is a proper one.
            self.ended = True
        except ssl.SSLError as exc:
            self.error = exc
            if not pieces:
                raise
        if pieces or self.ended:
            return b"".join(pieces)
        return None

    def write(self, data: bytes) -> None:
        """Encrypt; what TLS cannot take yet, in the middle of a renegotiation, waits for `retry`."""
        self._unwritten.append(data)
        self.waiting += len(data)
        self.retry()

    def retry(self) -> None:
        """Encrypt what could not be before."""
        while self._unwritten:
            try:
                self.object.write(self._unwritten[0])
            except ssl.SSLWantReadError:
                return
            self.waiting -= len(self._unwritten.popleft())

    def drop(self) -> None:
        """Forget what could not be encrypted."""
        self._unwritten.clear()
        self.waiting = 0

    def end(self) -> None:
        """Say that nothing more will be sent (close_notify); what still waits is dropped."""
        self.drop()
        with contextlib.suppress(ssl.SSLError):
            self.object.unwrap()


class Link:
    """A connected stream socket, with any layers of TLS; no method but `wait` and those with a deadline ever waits.

    Not safe to be used by several threads at once: their caller has a lock. `wait` and `wake` need none.

    Args:
        sock: a connected socket, which the link owns from now on, so that it is closed if the rest cannot be made.
    """

    __slots__ = (
        "_early",
        "_events",
        "_held",
        "_layers",
        "_own",
        "_poll",
        "_unsent",
        "_wake_in",
        "_wake_out",
        "broken",
        "ended",
        "sent",
        "sock",
    )

    def __init__(self, sock: socket.socket) -> None:
        self.sock: socket.socket = sock
        self._layers: list[_Tls] = []
        self._unsent: deque[memoryview] = deque()
        self._held = 0
        self._own = 0  # bytes that TLS said by itself while something was unsent
        self.ended: bool = False
        """Whether the sending side was ended, or will be once what is kept was sent."""
        self.sent: int = 0
        """Bytes handed in to be sent so far, as they are on the wire."""
        self.broken: OSError | None = None
        """The error by which writing has failed, if it has."""
        self._events = 0
        self._early: bytes | None = None  # what came in one read with the end of the TLS handshake, or before it
        try:
            sock.setblocking(False)
            if sock.family in (socket.AF_INET, socket.AF_INET6):
                # A small frame must not wait for the peer's acknowledgement of the one before.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._wake_in, self._wake_out = socket.socketpair()
        except BaseException:
            sock.close()
            raise
        try:
            self._wake_in.setblocking(False)
            self._wake_out.setblocking(False)
            # No descriptor of its own, where the system knows `poll`.
            self._poll = selectors.PollSelector() if hasattr(select, "poll") else selectors.DefaultSelector()
            self._poll.register(self._wake_in, selectors.EVENT_READ)
        except BaseException:
            for each in (sock, self._wake_in, self._wake_out):
                each.close()
            raise

    # --- Moving bytes, without waiting --------------------------------------------------------------------

    @property
    def unsent(self) -> int:
        """Bytes that the operating system has not taken yet, as they are on the wire if TLS could encrypt them."""
        return self._held + sum(layer.waiting for layer in self._layers)

    @property
    def blocked(self) -> bool:
        """Whether something waits for the operating system to take it."""
        return self._held > 0

    @property
    def tls(self) -> ssl.SSLObject | None:
        """The innermost layer of TLS, which encrypts the user's bytes; None without TLS."""
        return self._layers[-1].object if self._layers else None

    def read(self) -> bytes | None:
        """Return what has come: None if there is nothing yet, ``b""`` at the end.

        Raises:
            OSError: the connection is lost, or the peer's TLS is broken (`ssl.SSLError`).
        """
        if self._early is not None:
            early, self._early = self._early, None
            return early
        if self._layers and self._at_end():
            return self._end()
        try:
            data: bytes | None = self.sock.recv(_RECEIVE)
        except OSError as exc:
            if exc.errno in LATER:
                return None
            raise
        for below, layer in enumerate(self._layers):
            assert data is not None
            layer.feed(data)
            try:
                data = layer.read()
            finally:
                if layer.error is not None:
                    self._push_layer(layer, below)  # the alert that tells the peer why
            if data is None:
                break
        if self._layers:
            self._answer()
        return data

    def _at_end(self) -> bool:
        """Tell whether nothing more can be read, whatever comes."""
        return self._layers[-1].ended or any(layer.error is not None for layer in self._layers)

    def _end(self) -> bytes:
        for layer in self._layers:
            if layer.error is not None:
                raise layer.error
        return b""

    def _answer(self) -> None:
        """Send TLS's own answers, as far as the peer takes them."""
        behind, before = self._held > 0, self.sent
        self._push()
        self._own = self._own + self.sent - before if behind else 0
        if self._own > _OWN:
            raise ConnectionAbortedError("the peer makes TLS say more than it takes")

    def write(self, data: bytes) -> None:
        """Send data, and keep what the operating system does not take at once. It never raises: see `broken`."""
        if self.broken is not None or self.ended:
            return
        if not self._layers:
            self._send(data)
            return
        try:
            self._layers[-1].write(data)
            self._push()
        except OSError as exc:  # the peer has ended TLS, or broken it
            self._fail(exc)

    def flush(self) -> None:
        """Send more of what is kept."""
        try:
            while self._unsent:
                sent = self.sock.send(self._unsent[0])
                self._held -= sent
                if sent < len(self._unsent[0]):
                    self._unsent[0] = self._unsent[0][sent:]
                    return
                self._unsent.popleft()
        except OSError as exc:
            if exc.errno in LATER:
                return
            self._fail(exc)
        if self.ended and self.broken is None:
            self._shut_down()

    def end(self) -> None:
        """End the sending side, after what is kept was sent; the peer may still be read."""
        if self.ended or self.broken is not None:
            return
        for layer in reversed(self._layers):
            layer.end()
            self._push()  # before the layer below ends, which takes nothing more then
        self.ended = True
        if not self._unsent:
            self._shut_down()

    def close(self) -> None:
        """Close the socket at once. Calling it again does nothing."""
        self._poll.close()
        self._wake_in.close()
        self._wake_out.close()
        self.sock.close()

    def _push(self) -> None:
        """Bring what each layer of TLS has to send down to the socket."""
        for index in range(len(self._layers) - 1, -1, -1):
            layer = self._layers[index]
            layer.retry()
            data = layer.take()
            if not data:
                continue
            if index:
                self._layers[index - 1].write(data)
            else:
                self._send(data)

    def _send(self, data: bytes) -> None:
        self.sent += len(data)
        if self._unsent:
            self._unsent.append(memoryview(data))
            self._held += len(data)
            return
        try:
            sent = self.sock.send(data)
        except OSError as exc:
            if exc.errno not in LATER:
                self._fail(exc)
                return
            sent = 0
        if sent < len(data):
            self._unsent.append(memoryview(data)[sent:])
            self._held += len(data) - sent

    def _fail(self, exc: OSError) -> None:
        self.broken = exc
        self._unsent.clear()
        self._held = 0
        for layer in self._layers:
            layer.drop()

    def _shut_down(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    # --- Waiting ------------------------------------------------------------------------------------------

    def wait(self, read: bool, write: bool, timeout: float | None) -> bool:
        """Wait until the socket can be read, or written, or the link is woken; tell whether it can be read.

        Args:
            read, write: what to wait for.
            timeout: seconds, or a day if that is less; None for no limit.
        """
        if read and self._layers and self._at_end():
            return True
        events = (selectors.EVENT_READ if read else 0) | (selectors.EVENT_WRITE if write else 0)
        if events != self._events:
            self._watch(events)
        readable = False
        for key, ready in self._poll.select(None if timeout is None else min(timeout, _AT_ONCE)):
            if key.fileobj is self._wake_in:
                with contextlib.suppress(BlockingIOError, InterruptedError):
                    self._wake_in.recv(4096)
            elif ready & selectors.EVENT_READ:
                readable = True
        return readable

    def _watch(self, events: int) -> None:
        if not self._events:
            self._poll.register(self.sock, events)
        elif events:
            self._poll.modify(self.sock, events)
        else:
            self._poll.unregister(self.sock)
        self._events = events

    def wake(self) -> None:
        """Let the thread that is in `wait`, or the next call of it, return; any thread may call it."""
        # If the pipe is full, its bytes wake the thread already; if it is closed, no thread waits.
        with contextlib.suppress(OSError):
            self._wake_out.send(b"\0")

    # --- The opening handshake: waiting with a deadline -----------------------------------------------------

    def start_tls(
        self,
        context: ssl.SSLContext,
        server_hostname: str | None,
        deadline: Deadline,
        *,
        server_side: bool = False,
    ) -> None:
        """Add a layer of TLS.

        Args:
            context: what is trusted, and shown.
            server_hostname: the name that the server's certificate must have; None on a server's side.
            deadline: for the handshake.
            server_side: which side this is.

        Raises:
            ssl.SSLError: the handshake failed, or the certificate is not to be trusted.
            OSError: the connection was lost.
            TimeoutError: it took too long.
        """
        layer = _Tls(context, server_hostname, server_side)
        below = len(self._layers)
        self._layers.append(layer)
        while True:
            try:
                done = layer.handshake()
                if done:
                    with contextlib.suppress(ssl.SSLError):  # `read` raises it
                        self._early = layer.read()
            finally:
                self._push_layer(layer, below)  # what is to be said, or the alert that tells the peer why not
            if done:
                return
            self._layers.pop()
            try:
                data = self.receive(deadline)
            finally:
                self._layers.append(layer)
            if not data:
                raise ConnectionResetError("the connection ended during the TLS handshake")
            layer.feed(data)

    def _push_layer(self, layer: _Tls, below: int) -> None:
        data = layer.take()
        if not data:
            return
        if below:
            self._layers[below - 1].write(data)
            layers, self._layers = self._layers, self._layers[:below]
            try:
                self._push()
            finally:
                self._layers = layers
        else:
            self._send(data)

    def receive(self, deadline: Deadline) -> bytes:
        """Wait for data and return it, ``b""`` at the end; send what is kept meanwhile.

        Raises:
            OSError: the connection was lost.
            TimeoutError: it took too long.
        """
        while True:
            data = self.read()
            if data is not None:
                return data
            if self.broken is not None:
                raise self.broken  # nobody answers what could not be sent
            self.wait(True, bool(self._unsent), deadline.left())
            self.flush()

    def give_back(self, data: bytes) -> None:
        """Have the next `read` return what was read too far, before there is any TLS."""
        if data:
            self._early = data


class _Attempt(Generic[_T]):
    """A call that runs in a thread of its own, and what came of it."""

    __slots__ = ("_call", "_dispose", "_given_up", "_lock", "_result", "done", "error")

    def __init__(self, call: Callable[[], _T], dispose: Callable[[_T], object] | None) -> None:
        self._call = call
        self._dispose = dispose
        self._lock = threading.Lock()
        self._given_up = False
        self._result: list[_T] = []
        self.error: BaseException | None = None
        # No `Event`: Ctrl-C in the middle of its `wait` may come out as RuntimeError, "release unlocked lock".
        self.done = threading.Lock()
        self.done.acquire()

    def run(self) -> None:
        try:
            result = self._call()
        except BaseException as exc:
            self.error = exc
        else:
            with self._lock:
                if not self._given_up:
                    self._result.append(result)
                elif self._dispose is not None:
                    self._dispose(result)
        self.done.release()

    def take(self) -> _T:
        if self.error is not None:
            try:
                raise self.error
            finally:
                self.error = None
        return self._result[0]

    def give_up(self) -> None:
        with self._lock:
            self._given_up = True
            if self._result and self._dispose is not None:
                self._dispose(self._result[0])


def bounded(call: Callable[[], _T], deadline: Deadline, dispose: Callable[[_T], object] | None = None) -> _T:
    """Make a call that has no deadline of its own in a daemon thread, and wait for it no longer than the deadline.

    Args:
        call: takes no argument.
        deadline: when to give up.
        dispose: called with a result that came too late, or that the caller was interrupted for.

    Raises:
        TimeoutError: it took too long. What `call` raises is raised as well.
    """
    attempt = _Attempt(call, dispose)
    threading.Thread(target=attempt.run, name="wsfast-open", daemon=True).start()
    try:
        while not attempt.done.acquire(timeout=_AT_ONCE if (left := deadline.left()) is None else left):
            pass
    except BaseException:
        attempt.give_up()
        raise
    return attempt.take()


def open_unix(path: str, deadline: Deadline) -> socket.socket:
    """Connect to a Unix socket."""
    if not hasattr(socket, "AF_UNIX"):
        raise OSError("this system has no Unix sockets")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(deadline.left())
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


def open_tcp(
    host: str,
    port: int,
    deadline: Deadline,
    *,
    family: int = 0,
    local_addr: tuple[str, int] | None = None,
) -> socket.socket:
    """Connect to the first address of a host that answers, by "happy eyeballs" (RFC 8305).

    The next address is tried when one has failed, or beside it when it has not answered for 250 ms; families alternate.

    Args:
        host, port: where to.
        deadline: for all addresses together, and for the look-up of the name.
        family: ``socket.AF_INET`` or ``AF_INET6`` for this one only; default both.
        local_addr: the address to connect from; default any.

    Raises:
        OSError: the name cannot be resolved, or no address answers.
        TimeoutError: it took too long.
    """
    found = bounded(lambda: socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM), deadline)
    addresses = alternate(found)
    errors: list[OSError] = []
    trying: dict[socket.socket, Any] = {}
    selector = selectors.DefaultSelector()
    try:
        while addresses or trying:
            if addresses:
                kind, _, proto, _, address = addresses.pop(0)
                try:
                    sock = _start(kind, proto, address, local_addr)
                except OSError as exc:
                    errors.append(exc)
                    continue
                trying[sock] = address
                selector.register(sock, selectors.EVENT_WRITE)
            left = deadline.left()
            if addresses:
                left = STAGGER if left is None else min(left, STAGGER)
            for key, _ in selector.select(left):
                sock = key.fileobj  # type: ignore[assignment]
                selector.unregister(sock)
                number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if number == 0:
                    del trying[sock]
                    return sock
                errors.append(_connect_error(number, trying.pop(sock)))
                sock.close()
    finally:
        selector.close()
        for sock in trying:
            sock.close()
    raise none_answers(host, errors)


def _start(family: int, proto: int, address: Any, local_addr: tuple[str, int] | None) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM, proto)
    try:
        sock.setblocking(False)
        if local_addr is not None:
            sock.bind(local_addr)
        try:
            sock.connect(address)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as exc:
            raise _connect_error(exc.errno or 0, address) from None
    except BaseException:
        sock.close()
        raise
    return sock


def _connect_error(number: int, address: Any) -> OSError:
    return OSError(number, f"connecting to {address[0]} port {address[1]}: {os.strerror(number)}")
