"""`wsfast.metrics`: what Prometheus is told."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from client_helpers import url_of
from shared import port_of, until

import wsfast
from wsfast import metrics

pytestmark = pytest.mark.anyio


async def fetch(server: Any, path: str) -> tuple[str, str]:
    """Return the head and the body that a server answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    answer = (await asyncio.wait_for(reader.read(), 10)).decode()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition("\r\n\r\n")
    return head, body


async def test_what_is_told() -> None:
    topics = wsfast.Topics()
    hook = metrics.endpoint("/metrics", lambda: server, otherwise=lambda ws, request: None, labels={"a": 'b"\\\n'})
    server = wsfast.Server(topics=topics, process_request=hook)

    @server.handler(None)
    async def join(ws: wsfast.WebSocket) -> None:
        ws.subscribe("a")
        await ws.wait_closed()

    async with server:
        await server.start("127.0.0.1", 0)
        ws = await wsfast.connect(url_of(server))
        await until(lambda: topics.counters["subscriptions"] == 1)
        server.publish("a", "1")
        assert await ws.recv() == "1"
        head, body = await fetch(server, "/metrics?x=1")
        assert head.startswith("HTTP/1.1 200")
        assert "text/plain" in head
        label = '{a="b\\"\\\\\\n"}'
        for line in (
            f"wsfast_connections{label} 1",
            f"wsfast_topics_deliveries_total{label} 1",
            f"wsfast_topics_up{label} 1",
        ):
            assert line in body.splitlines()
        await ws.close()
        await until(lambda: not server.connections)
        text = metrics.render(server)
        assert re.search(r'^wsfast_closed_total\{cause="[^"]+"\} 1$', text, re.MULTILINE)
        # Each line is one that the format allows, and each metric has its type before it.
        known = set()
        for line in text.splitlines():
            if found := re.fullmatch(r"# (HELP|TYPE) (wsfast_\w+) .+", line):
                known.add(found[2])
            else:
                name = re.fullmatch(r"(wsfast_[a-z_]+)(\{[^}]*\})? \d+(\.\d+)?(e-?\d+)?", line)
                assert name is not None, line
                assert name[1] in known
        assert "HTTP/1.1 4" in (await fetch(server, "/other"))[0]
    with pytest.raises(ValueError, match="must begin with /"):
        metrics.endpoint("metrics", lambda: server)
    with pytest.raises(ValueError, match="a label's name"):
        metrics.render(server, {"a b": "c"})


async def test_every_counter_is_told() -> None:
    """One that is added must be described here too."""
    server = wsfast.Server(topics=wsfast.Topics())
    async with server:
        await server.start("127.0.0.1", 0)
        assert server.topics is not None
        assert set(server.topics.counters) == set(metrics._TOPICS)
        assert set(server.counters) == set(metrics._SERVER)
