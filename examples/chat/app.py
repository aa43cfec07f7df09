"""A chat with rooms, presence and history: python -m wsfast run app:server --workers 2 --directory examples/chat

Open http://127.0.0.1:8765/ in some browsers. With REDIS_URL set, workers on many hosts are one chat.
"""

import json
import os
from pathlib import Path

import wsfast
from wsfast.bus import Bus, LocalBus, Position

PAGE = (Path(__file__).parent / "page.html").read_text()


def encode(topic: str, message: str | bytes, position: Position | None) -> str:
    """Make what clients get: once for each message and worker, whatever the number of clients."""
    said = json.loads(message)
    return json.dumps({"type": "said", "room": topic.removeprefix("room."), "at": str(position), **said})


def told(topic: str, present: wsfast.Present, came: bool) -> None:
    """Tell the clients of this worker who came or left; each worker learns of it by itself."""
    wsfast.broadcast([ws for ws in server.connections if topic in ws.topics], json.dumps(who(topic)))


def who(topic: str) -> dict[str, object]:
    return {"type": "present", "names": sorted(one.info or "?" for one in topics.present(topic))}


def make_bus() -> Bus:
    url = os.environ.get("REDIS_URL")
    if not url:
        return LocalBus()
    from wsfast.bus import RedisBus  # which needs pip install 'wsfast[redis]'

    return RedisBus(url, prefix=os.environ.get("REDIS_PREFIX", "chat"))


topics = wsfast.Topics(make_bus(), encode=encode, on_presence=told)
topics.configure("room.*", history=wsfast.History(size=100, ttl=3600), presence=True)


def page(ws: wsfast.WebSocket, request: wsfast.Request) -> wsfast.Response | None:
    if "Upgrade" in request.headers:
        return None
    if request.path == "/":
        response = ws.respond(200, PAGE)
        response.headers["Content-Type"] = "text/html; charset=utf-8"
        return response
    return ws.respond(404, "Not found\n")


server = wsfast.Server(topics=topics, process_request=page, max_size=4096)


@server.handler("chat.v1")
async def chat(ws: wsfast.WebSocket) -> None:
    try:
        hello = json.loads(await ws.recv())
        name, topic, since = str(hello["name"])[:40], f"room.{hello['room']}", hello.get("since")
        try:
            await ws.recover(topic, since, info=name)  # after a reconnect: what was said meanwhile, once
        except (TypeError, ValueError, wsfast.NotRecovered):
            await ws.recover(topic, None, info=name)
    except (AttributeError, KeyError, TypeError, ValueError):
        await ws.close(wsfast.CloseCode.POLICY_VIOLATION, "expected a name and a room")
        return
    except wsfast.BusUnavailable:
        await ws.close(wsfast.CloseCode.TRY_AGAIN_LATER, "histories cannot be read now")
        return
    await ws.send(json.dumps(who(topic)))
    async for message in ws:
        try:
            await server.publish(topic, json.dumps({"name": name, "text": str(message)[:1000]}))
        except wsfast.BusUnavailable:
            await ws.close(wsfast.CloseCode.TRY_AGAIN_LATER, "what was said could not be stored")
            return
