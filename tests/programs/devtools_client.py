"""zendriver, which drives Chromium by the Chrome DevTools Protocol, against real Chromium."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

import zendriver

PAGE = "<title>on wsfast</title><p id=p>hello</p><script>document.title += ' ' + 'x'.repeat(100)</script>"


async def main() -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    assert chromium, "needs chromium"
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(PAGE)
        browser = await zendriver.start(
            browser_executable_path=chromium,
            headless=True,
            sandbox=False,
            user_data_dir=f"{folder}/profile",
            browser_args=["--disable-gpu", "--disable-dev-shm-usage"],
        )
        try:
            tab = await browser.get(page.as_uri())
            paragraph = await tab.select("#p")
            assert paragraph.text == "hello", paragraph.text
            # One message of several megabytes each way.
            size = await tab.evaluate(f"'{'y' * 3_000_000}'.length")
            assert size == 3_000_000, size
            text = await tab.evaluate("'z'.repeat(3000000)")
            assert text == "z" * 3_000_000
            image = Path(folder) / "page.png"
            await tab.save_screenshot(str(image), format="png")
            assert image.read_bytes().startswith(b"\x89PNG")
        finally:
            await browser.stop()


asyncio.run(main())
