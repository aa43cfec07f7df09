"""Counters of a server and its topics in Prometheus' text format, without any dependency.

::

    server = wsfast.Server(topics=topics, process_request=wsfast.metrics.endpoint("/metrics", lambda: server))

Each process reports only itself: behind a supervisor with several workers, each scrape reaches one of them. Give each
worker's figures a label, or let each worker answer scrapes on an address of its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from .asyncio.websocket import WebSocket
    from .handshake import Request, Response
    from .server import Server
    from .serving import CountingServer

__all__ = ["endpoint", "render"]

_Hook: TypeAlias = "Callable[[WebSocket, Request], Response | Awaitable[Response | None] | None]"

_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")

_SERVER: Final = {
    "connections": ("gauge", "connections", "Connections that are open or closing."),
    "handshakes": ("gauge", "handshakes", "Opening handshakes under way."),
    "opened": ("counter", "opened_total", "Connections that were opened."),
    "refused": ("counter", "refused_total", "Opening handshakes that were refused."),
    "messages_received": ("counter", "messages_received_total", "Messages received."),
    "messages_sent": ("counter", "messages_sent_total", "Messages sent."),
    "bytes_received": ("counter", "received_bytes_total", "Bytes of frames received."),
    "bytes_sent": ("counter", "sent_bytes_total", "Bytes of frames sent."),
    "pings_received": ("counter", "pings_received_total", "Pings received."),
    "pings_sent": ("counter", "pings_sent_total", "Pings sent."),
    "latency": ("gauge", "latency_seconds", "Mean round trip of the open connections' latest pings."),
    "causes": ("counter", "closed_total", "Connections that ended, by cause."),
}
_LABELS: Final = {"causes": "cause", "refused": "status"}
_TOPICS: Final = {
    "topics": ("gauge", "topics", "Topics that have subscribers in this process."),
    "subscriptions": ("gauge", "topics_subscriptions", "Subscriptions in this process."),
    "publishes": ("counter", "topics_publishes_total", "Messages published by this process."),
    "deliveries": ("counter", "topics_deliveries_total", "Messages of topics sent to connections."),
    "writes": ("counter", "topics_writes_total", "Writes that the deliveries took."),
    "conflated": ("counter", "topics_conflated_total", "Messages that a newer one replaced before they were sent."),
    "dropped": ("counter", "topics_dropped_total", "Deliveries dropped because too much was unsent."),
    "gaps": ("counter", "topics_gaps_total", "Losses that were told."),
    "duplicates": ("counter", "topics_duplicates_total", "Messages from the bus that had come before."),
    "recovered": ("counter", "topics_recovered_total", "Messages recovered from histories."),
    "refused": ("counter", "topics_refused_total", "Malformed messages from the bus."),
    "bus_lag": ("gauge", "topics_bus_lag_seconds", "Latest round trip over the bus."),
    "reconnects": ("counter", "topics_bus_reconnects_total", "Times that the bus came back."),
    "outbox": ("gauge", "topics_bus_outbox_bytes", "Bytes that wait for the bus."),
}


def render(server: Server | CountingServer, labels: Mapping[str, str] | None = None) -> str:
    """Return the counters of a server, and of its topics, in Prometheus' text format (version 0.0.4).

    Args:
        server: the server, on asyncio, in threads or on trio.
        labels: for each line, such as the number of a worker. Default: none.

    Raises:
        ValueError: a label's name is not valid.
    """
    given = dict(labels or {})
    for name in given:
        if not _LABEL.match(name):
            raise ValueError(f"a label's name must be letters, digits and _, got {name!r}")
    lines: list[str] = []
    _add(lines, _SERVER, server.counters, given)
    topics = server.topics
    if topics is not None:
        _add(lines, _TOPICS, topics.counters, given)
        lines += [
            "# HELP wsfast_topics_up Whether the bus can reach other processes.",
            "# TYPE wsfast_topics_up gauge",
            f"wsfast_topics_up{_braces(given)} {int(topics.health == 'up')}",
        ]
    return "\n".join(lines) + "\n"


def _add(
    lines: list[str], known: Mapping[str, tuple[str, str, str]], counters: Mapping[str, Any], labels: dict[str, str]
) -> None:
    for key, (kind, name, text) in known.items():
        value = counters.get(key)
        if value is None:
            continue
        lines += [f"# HELP wsfast_{name} {text}", f"# TYPE wsfast_{name} {kind}"]
        if isinstance(value, Mapping):
            label = _LABELS.get(key, "kind")
            lines += [
                f"wsfast_{name}{_braces({**labels, label: str(getattr(one, 'value', one))})} {count}"
                for one, count in sorted(value.items())
            ]
        else:
            lines.append(f"wsfast_{name}{_braces(labels)} {value}")


def _braces(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    pairs = []
    for name, value in labels.items():
        escaped = str(value).replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
        pairs.append(f'{name}="{escaped}"')
    return "{" + ",".join(pairs) + "}"


def endpoint(
    path: str,
    server: Callable[[], Server | CountingServer],
    *,
    otherwise: _Hook | None = None,
    labels: Mapping[str, str] | None = None,
) -> Any:
    """Make a `process_request` that answers with `render` on one path.

    Whoever can reach the server can read it: keep the path from the public at the proxy, or use a server of its own.

    Args:
        path: where, such as ``"/metrics"``.
        server: returns the server to report; it is called at each scrape.
        otherwise: the `process_request` for other paths. Default: all go on as usual.
        labels: those of `render`. Default: ``process``, the number of the process.

    Returns:
        The hook.

    Raises:
        ValueError: the path has no slash in front.
    """
    if not path.startswith("/"):
        raise ValueError(f"path must begin with /, got {path!r}")

    def process_request(ws: WebSocket, request: Request) -> Response | Awaitable[Response | None] | None:
        if request.path.partition("?")[0] == path:
            given = {"process": str(os.getpid())} if labels is None else labels
            return ws.respond(200, render(server(), given))
        return None if otherwise is None else otherwise(ws, request)

    return process_request
