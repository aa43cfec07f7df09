"""The page of `python -m wsfast serve`, driven in Chromium as a person would."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import chromium
from cli_helpers import Serve, serve
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

pytestmark = pytest.mark.browser

MAX_SIZE = 100_000


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("profile"), "--window-size=1000,1200") as running:
        yield running


@pytest.fixture
def server() -> Iterator[Serve]:
    with serve("--max-size", str(MAX_SIZE), "--compression", "deflate") as running:
        yield running


class Page:
    """What a person sees of the page, and does to it."""

    def __init__(self, driver: Chrome, server: Serve) -> None:
        self.driver = driver
        driver.get(f"http://127.0.0.1:{server.port}/")

    def text(self, name: str) -> str:
        return self.driver.find_element(By.ID, name).text

    def click(self, name: str) -> None:
        self.driver.find_element(By.ID, name).click()

    def type(self, name: str, *keys: str) -> None:
        self.driver.find_element(By.ID, name).send_keys(*keys)

    def wait(self, condition: Callable[[], Any]) -> Any:
        return WebDriverWait(self.driver, 20, poll_frequency=0.05).until(lambda _: condition())

    def connect(self, subprotocol: str) -> None:
        Select(self.driver.find_element(By.ID, "subprotocol")).select_by_value(subprotocol)
        self.click("open")
        self.wait(lambda: self.text("state") == "Open")

    def lines(self, kind: str) -> list[tuple[str, str, str]]:
        """Return what stands in the log: what, body and note of the lines of one kind."""
        script = (
            "return Array.from(document.querySelectorAll('#log .' + arguments[0]), (line) =>"
            " ['what', 'body', 'note'].map((name) => line.querySelector('.' + name).textContent))"
        )
        return [tuple(line) for line in self.driver.execute_script(script, kind)]

    def received(self, count: int) -> list[tuple[str, str, str]]:
        self.wait(lambda: len(self.lines("received")) >= count)
        return self.lines("received")


@pytest.fixture
def page(driver: Chrome, server: Serve) -> Iterator[Page]:
    page = Page(driver, server)
    yield page
    # Nothing was blocked by the policy, and no script failed.
    unexpected = [entry for entry in driver.get_log("browser") if "WebSocket" not in entry["message"]]
    assert not unexpected


@pytest.mark.parametrize(
    ("subprotocol", "agreed", "answer"),
    [
        ("", "none", ("← text", "Grüße, 世界 🙂")),
        ("echo", "echo", ("← text", "Grüße, 世界 🙂")),
        ("stream-echo", "stream-echo", ("← binary", "Grüße, 世界 🙂")),
        ("upper", "upper", ("← text", "GRÜSSE, 世界 🙂")),
    ],
)
def test_text(page: Page, subprotocol: str, agreed: str, answer: tuple[str, str]) -> None:
    page.connect(subprotocol)
    assert page.text("agreed") == agreed
    # The driver's keyboard does not reach beyond the basic plane.
    field = page.driver.find_element(By.ID, "text")
    page.driver.execute_script("arguments[0].value = 'Grüße, 世界 🙂'", field)
    page.click("send-text")
    (received,) = page.received(1)
    assert received[:2] == answer
    assert re.fullmatch(r"\d+ B, [\d.]+ ms", received[2])
    assert re.fullmatch(r"[\d.]+ ms", page.text("rtt"))
    assert page.text("counts") == "1 / 1"
    page.click("close")
    page.wait(lambda: page.text("state") == "Closed")
    assert page.text("code") == "1000"
    assert page.lines("state")[-1][:2] == ("closed 1000", "normal closure")


def test_a_file_comes_back(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "file.bin"
    file.write_bytes(bytes(range(256)) * 300)
    page.connect("echo")
    page.type("file", str(file))
    page.click("send-file")
    (received,) = page.received(1)
    assert page.lines("sent") == [("→ binary", "file.bin", "75.0 KiB")]
    assert received[0] == "← binary"
    assert received[1].startswith("00 01 02 03 ")
    assert received[2].startswith("75.0 KiB, ")


def test_a_file_as_a_stream_is_timed_to_its_last_byte(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "file.txt"
    file.write_text("0123456789" * 9000)
    page.connect("stream-echo")
    page.type("file", str(file))
    page.click("send-file")
    page.wait(lambda: page.text("rtt").endswith(" ms"))
    received = page.lines("received")
    assert all(what == "← binary" for what, _, _ in received)
    assert "ms" in received[-1][2]
    assert not any("ms" in note for _, _, note in received[:-1])


def test_by_keyboard_alone(page: Page) -> None:
    """Tab to the list, choose, tab to the button, press it; the focus is then where one types."""

    def press(*keys: str) -> None:
        page.driver.switch_to.active_element.send_keys(*keys)

    page.driver.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    assert page.driver.switch_to.active_element.get_attribute("id") == "subprotocol"
    press("u")
    press(Keys.TAB)
    press(Keys.ENTER)
    page.wait(lambda: page.text("state") == "Open")
    assert page.text("agreed") == "upper"
    page.wait(lambda: page.driver.switch_to.active_element.get_attribute("id") == "text")
    press("one", Keys.SHIFT, Keys.ENTER, Keys.SHIFT, "two", Keys.ENTER)
    press("three", Keys.ENTER)
    assert [body for _, body, _ in page.received(2)] == ["ONE\nTWO", "THREE"]
    # Every control can be reached, and says what it is.
    unnamed = page.driver.execute_script(
        "return [...document.querySelectorAll('button, input, select, textarea')]"
        ".filter((e) => !(e.textContent.trim() || e.labels?.length)).map((e) => e.id)"
    )
    assert unnamed == []


def test_too_big_a_message_is_refused_with_1009(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "big"
    file.write_bytes(bytes(MAX_SIZE + 1))
    page.connect("")
    page.type("file", str(file))
    page.click("send-file")
    page.wait(lambda: page.text("state") == "Closed")
    assert page.text("code") == "1009"
    assert "message too big" in (page.lines("state") + page.lines("failed"))[-1][1]
    # It can connect again.
    page.connect("echo")


def test_a_server_that_stops_says_goodbye(page: Page, server: Serve) -> None:
    page.connect("echo")
    server.process.send_signal(signal.SIGINT)
    page.wait(lambda: page.text("state") == "Closed")
    assert page.text("code") == "1001"
    assert server.process.wait(timeout=20) == 0
    # And one that is gone is told from one that closes.
    page.click("open")
    page.wait(lambda: page.text("code") == "1006")
    assert page.lines("failed")[-1][2] == "not clean"


def test_what_comes_is_shown_as_text(page: Page) -> None:
    """Markup in a message stays text."""
    page.connect("echo")
    markup = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    page.type("text", markup, Keys.ENTER)
    (received,) = page.received(1)
    assert received[1] == markup
    assert page.driver.execute_script("return document.querySelectorAll('#log img, #log script').length") == 0
    page.click("clear")
    assert page.lines("received") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read(page: Page, scheme: str) -> None:
    """WCAG 2.1, 1.4.3: text stands out from what is behind it by 4.5 to 1 in both colour schemes."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    page.connect("echo")
    page.type("text", "a", Keys.ENTER)
    page.received(1)
    colours = page.driver.execute_script(
        """
        const behind = (e) => {
            const colour = getComputedStyle(e).backgroundColor;
            return colour === "rgba(0, 0, 0, 0)" && e.parentElement ? behind(e.parentElement) : colour;
        };
        return ["h1", "#address", "h2", "label", "select", "#close", "#send-text", "dt", "dd", "#state", "#log time",
                "#log .sent .what", "#log .received .what", "#log .received .body", "#log .note"]
            .filter((name) => !document.querySelector(name).disabled)
            .map((name) => {
                const e = document.querySelector(name);
                return [name, getComputedStyle(e).color, behind(e)];
            });
        """
    )
    assert len(colours) >= 14
    for name, front, back in colours:
        bright, dim = sorted((luminance(front), luminance(back)), reverse=True)
        assert (bright + 0.05) / (dim + 0.05) >= 4.5, (name, front, back)
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def luminance(colour: str) -> float:
    """Return the relative luminance of a CSS colour (WCAG 2.1)."""
    channels = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
