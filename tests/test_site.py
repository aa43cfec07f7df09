"""The site of the documentation in headless Chromium: accessible, and no wider than the screen."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from peers import node_modules

pytest.importorskip("selenium", reason="needs selenium")

from browser import chromium
from selenium.webdriver import Chrome

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="needs Sphinx: pip install -e '.[docs]'"),
]

ROOT = Path(__file__).parent.parent
_WIDER = """
    const width = document.documentElement.clientWidth;
    return document.documentElement.scrollWidth > width + 1 ? document.documentElement.scrollWidth : 0;
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site."""
    path = tmp_path_factory.mktemp("site")
    done = subprocess.run([sys.executable, "-m", "docs", path], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return path


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_axe_finds_no_violation_on_any_page(site: Path, driver: Chrome, width: int, scheme: str) -> None:
    """axe-core holds every page to WCAG 2.2 AA and to its best practices."""
    modules = node_modules()
    if modules is None:
        pytest.skip("needs npm, for axe-core")
    source = (Path(modules) / "axe-core" / "axe.min.js").read_text()
    metrics = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    driver.set_script_timeout(120)
    wrong: dict[str, Any] = {}
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        driver.get(page.as_uri())
        driver.execute_script(source)
        # All rules are run; of what passes, not every element is told, which takes a fifth of the time.
        found = driver.execute_async_script("axe.run(document, {resultTypes: ['violations']}).then(arguments[0])")
        assert found["passes"]
        if found["violations"]:
            name = page.relative_to(site).as_posix()
            wrong[name] = [(v["id"], [node["html"][:120] for node in v["nodes"][:5]]) for v in found["violations"]]
        if wider := driver.execute_script(_WIDER):
            wrong[f"{page.relative_to(site)}, wide"] = wider
    assert wrong == {}
