"""A chat on FastAPI, served by uvicorn with wsfast, driven in Chromium."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import chromium
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from test_uvicorn_programs import SOON, UVICORN, program

import wsfast.sync

pytestmark = pytest.mark.browser

CHAT = """
from contextlib import asynccontextmanager
import fastapi
from fastapi.responses import HTMLResponse
import wsfast
import wsfast.asgi
import wsfast.uvicorn

topics = wsfast.Topics()
ws = wsfast.uvicorn.configure(topics=topics)

@asynccontextmanager
async def lifespan(app):
    async with topics:
        yield

app = fastapi.FastAPI(lifespan=lifespan)

@app.get("/")
async def page() -> HTMLResponse:
    return HTMLResponse('''<input id=say autofocus><pre id=log></pre><script>
        const ws = new WebSocket(location.href.replace("http", "ws") + "chat", ["chat"])
        const note = line => { log.textContent += line + "\\\\n" }
        ws.onopen = () => note(`open ${ws.protocol} ${ws.extensions}`)
        ws.onmessage = event => note(event.data)
        ws.onclose = event => note(`closed ${event.code}`)
        say.onchange = () => { ws.send(say.value); say.value = "" }
    </script>''')

@app.websocket("/chat")
async def chat(websocket: fastapi.WebSocket):
    await websocket.accept(subprotocol="chat")
    connection = wsfast.asgi.of(websocket)
    await connection.subscribe("room")
    async for message in websocket.iter_text():
        await topics.publish("room", message)
"""


def test_a_chat_on_fastapi(tmp_path: Path) -> None:
    arguments = [*UVICORN[:-1], "on", "--ws", "myapp:ws"]
    with program(tmp_path, *arguments, app=CHAT) as server, chromium(tmp_path / "profile") as driver:
        url = server.url()
        with wsfast.sync.connect(f"{url}chat", subprotocols=["chat"], open_timeout=SOON) as other:
            driver.get(url.replace("ws:", "http:"))

            def shown(line: str) -> None:
                def is_there(_: object) -> bool:
                    return line in driver.execute_script("return log.textContent").splitlines()

                WebDriverWait(driver, SOON).until(is_there)

            shown("open chat permessage-deflate; server_max_window_bits=12; client_max_window_bits=12")
            said = "Grüße aus dem Browser 🌍 " * 20
            driver.find_element(By.ID, "say").send_keys("from the browser", Keys.ENTER)
            assert other.recv(SOON) == "from the browser"
            shown("from the browser")
            other.send(said)
            assert other.recv(SOON) == said
            shown(said)
            server.stop()
            shown("closed 1012")
        assert [line for line in driver.get_log("browser") if "favicon" not in line["message"]] == []
