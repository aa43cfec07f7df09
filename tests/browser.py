"""Headless Chromium for tests, from Debian's packages, which are installed when they are missing."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

_PACKAGES = {"chromium": "chromium", "chromedriver": "chromium-driver"}
_FLAGS = [
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    # It must not look for anything outside this machine.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def _install() -> None:
    missing = [package for program, package in _PACKAGES.items() if shutil.which(program) is None]
    if not missing:
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        pytest.skip(f"needs Debian's {' and '.join(missing)}; only root can install them")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
        done = subprocess.run(
            ["apt-get", "-q", *command], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600
        )
        if done.returncode and command[0] == "install":
            # A root who cannot install is a machine to be repaired, not a test to be skipped.
            raise RuntimeError(f"apt-get {' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


@contextlib.contextmanager
def chromium(profile: Path, *flags: str) -> Iterator[Chrome]:
    """Run the browser with a new profile until the block ends.

    Args:
        profile: an empty directory.
        flags: more of its command line.
    """
    _install()
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in [*_FLAGS, *flags, f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # root has none
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()
