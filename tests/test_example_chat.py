"""`examples/chat`: two workers, driven in Chromium and by clients; by the local bus and by Redis."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import chromium
from engines import REDISES, engine
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from test_run import Running

import wsfast
from wsfast.sync import connect

CHAT = Path(__file__).parent.parent / "examples" / "chat"


@contextlib.contextmanager
def running(**environment: str) -> Iterator[Running]:
    command = [sys.executable, "-m", "wsfast", "run", "app:server", "--port", "0", "--workers", "2", "--directory"]
    process = subprocess.Popen(
        [*command, str(CHAT)], stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    made = Running(process)
    try:
        made.wait_log("2 workers are ready")
        yield made
    finally:
        made.drop()


@pytest.fixture(params=["local", *REDISES])
def chat(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    if request.param == "local":
        with running() as run:
            yield run
    else:
        with engine(request.param, tmp_path) as server, running(REDIS_URL=server.url) as run:
            yield run


class Guest:
    """A client of the chat."""

    def __init__(self, run: Running, name: str, since: str | None = None) -> None:
        self.ws: Any = connect(f"ws://127.0.0.1:{run.port}/", subprotocols=["chat.v1"])
        self.ws.send(json.dumps({"name": name, "room": "lobby", **({"since": since} if since else {})}))
        self.said: list[dict[str, str]] = []
        self.names: list[str] = []

    def read(self, until: Callable[[Guest], object]) -> None:
        end = time.monotonic() + 20
        while not until(self):
            message = json.loads(self.ws.recv(max(0.1, end - time.monotonic())))
            if message["type"] == "said":
                self.said.append(message)
            else:
                self.names = message["names"]

    @property
    def texts(self) -> list[str]:
        return [one["text"] for one in self.said]


def test_rooms_presence_and_history(chat: Running) -> None:
    guests = [Guest(chat, f"guest {number}") for number in range(6)]  # on both workers, most likely
    names = [f"guest {number}" for number in range(6)]
    for guest in guests:
        guest.read(lambda guest: guest.names == names)
    for number in range(20):
        guests[number % 6].ws.send(f"text {number}")
        for guest in guests:
            guest.read(lambda guest, number=number: guest.texts[-1:] == [f"text {number}"])  # type: ignore[misc]
    leaver = guests.pop()
    leaver.ws.close()
    for guest in guests:
        guest.read(lambda guest: len(guest.names) == 5)
    guests[0].ws.send("while away")
    guests[0].read(lambda guest: guest.texts[-1] == "while away")
    back = Guest(chat, "guest 5", leaver.said[-1]["at"])
    back.read(lambda guest: len(guest.names) == 6)
    assert back.texts == ["while away"]
    for since in ("nonsense", "gone:5"):
        other = Guest(chat, "other", since)
        other.read(lambda guest: guest.names)
        assert other.texts == [*(f"text {number}" for number in range(20)), "while away"]
        other.ws.close()
    for guest in (*guests, back):
        guest.ws.close()
    for nonsense in ("x", "5", "{}", '{"name": 1, "room": "a b"}'):
        with connect(f"ws://127.0.0.1:{chat.port}/", subprotocols=["chat.v1"]) as ws:
            ws.send(nonsense)
            with pytest.raises(wsfast.ConnectionClosedError, match="expected a name and a room"):
                ws.recv(10)
    assert "Traceback" not in chat.log


class Page:
    """A window of the browser."""

    def __init__(self, driver: Chrome, url: str, name: str) -> None:
        driver.switch_to.new_window("tab")
        self.driver = driver
        self.handle = driver.current_window_handle
        driver.get(url)
        driver.find_element(By.ID, "name").send_keys(name, Keys.ENTER)

    def use(self) -> Chrome:
        self.driver.switch_to.window(self.handle)
        return self.driver

    def say(self, text: str) -> None:
        self.use().find_element(By.ID, "text").send_keys(text, Keys.ENTER)

    def text(self, name: str) -> str:
        return self.use().find_element(By.ID, name).text


@pytest.mark.browser
@pytest.mark.engines
def test_in_a_browser_over_two_workers_and_redis(tmp_path: Path) -> None:
    """What is said is seen by all, also by those whose worker was replaced meanwhile, once and in order."""
    (tmp_path / "engine").mkdir()
    prefix = f"chat.{secrets.token_hex(4)}"
    with (
        engine(REDISES[0], tmp_path / "engine") as server,
        running(REDIS_URL=server.url, REDIS_PREFIX=prefix) as run,
        chromium(tmp_path / "profile") as driver,
    ):
        url = f"http://127.0.0.1:{run.port}/"
        pages = [Page(driver, url, name) for name in ("Ada", "Bob", "<b>Cy</b>")]
        for page in pages:
            run.wait(lambda page=page: page.text("present") == "Here: <b>Cy</b>, Ada, Bob")  # type: ignore[misc]
        pages[0].say("hello")
        pages[1].say("<i>hi</i>")
        expected = ["Ada: hello", "Bob: <i>hi</i>"]
        for page in pages:
            run.wait(lambda page=page: sorted(page.text("log").split("\n")) == sorted(expected))  # type: ignore[misc]
        # All workers are replaced while somebody talks on.
        done = threading.Event()

        def talk() -> None:
            guest = Guest(run, "Dee")
            number = 0
            while not done.is_set():
                try:
                    guest.ws.send(f"text {number}")
                    guest.read(lambda guest, number=number: guest.texts[-1:] == [f"text {number}"])  # type: ignore[misc]
                    number += 1
                    time.sleep(0.02)
                except Exception:
                    guest = Guest(run, "Dee", guest.said[-1]["at"] if guest.said else None)
                    guest.read(lambda guest: guest.names)
                    if guest.texts[-1:] == [f"text {number}"]:
                        number += 1
            last.append(number)

        last: list[int] = []
        talking = threading.Thread(target=talk)
        talking.start()
        try:
            time.sleep(0.5)
            run.process.send_signal(signal.SIGHUP)
            run.wait(lambda: len(re.findall("has ended", run.log)) == 2, 40)
            time.sleep(1)
        finally:
            done.set()
            talking.join(30)
        wanted = [f"Dee: text {number}" for number in range(last[0])]
        for page in pages:
            run.wait(lambda page=page: page.text("log").split("\n")[-1:] == wanted[-1:])  # type: ignore[misc]
            said = [line for line in page.text("log").split("\n") if line.startswith("Dee")]
            assert list(dict.fromkeys(said)) == wanted
            assert page.text("state") == "Connected to lobby"
        errors = [entry for entry in driver.get_log("browser") if "WebSocket" not in entry["message"]]
        assert not [entry for entry in errors if "favicon" not in entry["message"]], errors
