"""google-genai's live sessions: bytes by ``recv(decode=False)``, and what a server that ends one is told as."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from google import genai
from google.genai import errors, live, types

from wsfast import WebSocket, serve

connect = live.ws_connect
# The SDK allows wss:// only.
live.ws_connect = lambda uri, **options: connect(
    uri.replace("wss:", "ws:"), **{name: value for name, value in options.items() if name != "ssl"}
)


async def talk(ws: WebSocket) -> None:
    assert ws.request is not None
    assert ws.request.headers["x-goog-api-key"] == "key"
    assert "setup" in json.loads(await ws.recv())
    await ws.send(json.dumps({"setupComplete": {}}).encode())
    async for message in ws:
        text = json.loads(message)["client_content"]["turns"][0]["parts"][0]["text"]
        answer: dict[str, Any] = {"modelTurn": {"parts": [{"text": text.upper()}]}}
        for content in (answer, {"turnComplete": True}):
            await ws.send(json.dumps({"serverContent": content}).encode())
        if text == "bye":
            await ws.close(1011, "over")


async def ask(session: Any, text: str) -> list[str]:
    await session.send_client_content(turns={"role": "user", "parts": [{"text": text}]})
    return [answer.text async for answer in session.receive() if answer.text]


async def main() -> None:
    async with asyncio.timeout(20), serve(talk, "127.0.0.1", 0) as server:
        base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        client = genai.Client(api_key="key", http_options=types.HttpOptions(base_url=base, api_version="v1"))
        async with client.aio.live.connect(model="m", config={"response_modalities": ["TEXT"]}) as session:
            assert await ask(session, "hi") == ["HI"]
            assert await ask(session, "bye") == ["BYE"]
            try:
                await anext(session.receive())
            except errors.APIError as exc:
                assert exc.code == 1011, exc
                assert "over" in str(exc), exc
            else:
                raise AssertionError("no error")


asyncio.run(main())
