"""The codec's tests on other processors, which qemu emulates: Debian's interpreter, and extensions that Zig links."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .debian import apt_options
from .found import CACHE, copy_sources, environment, make_c, make_environment, run, usual
from .pyodide import PACKAGES, download_pure
from .suite import CODEC

VERSION = "3.11"
"""The interpreter of bookworm, a Debian that has all of these processors."""
TESTS = (*CODEC, "tests/test_codec_parity.py", "tests/test_codec_utf8.py")


@dataclass(frozen=True)
class Processor:
    """What names a processor.

    Attributes:
        debian: to Debian.
        target: to compilers, and in Debian's paths.
        levels: those of the codec's loops over text that are held against the plain ones.
    """

    debian: str
    target: str
    levels: tuple[int, ...] = ()


PROCESSORS = {
    "aarch64": Processor("arm64", "aarch64-linux-gnu", levels=(0, 1)),
    "armv7": Processor("armhf", "arm-linux-gnueabihf"),
    "ppc64le": Processor("ppc64el", "powerpc64le-linux-gnu"),
    "s390x": Processor("s390x", "s390x-linux-gnu"),
}


def fetch_qemu(name: str) -> Path:
    """Unpack Debian's qemu, which is linked statically, in the cache; return the program for a processor."""
    folder = CACHE / "qemu" / "programs"
    if not (folder / "complete").exists():
        _unpack(folder, ["qemu-user-static"])
        (folder / "complete").touch()
    return folder / "usr" / "bin" / f"qemu-{'arm' if name == 'armv7' else name}-static"


def fetch_root(name: str) -> Path:
    """Unpack the interpreter of another processor's Debian, and what it needs, in the cache; return the folder."""
    folder = CACHE / "qemu" / name
    if not (folder / "complete").exists():
        architecture = PROCESSORS[name].debian
        options = ["-o", f"APT::Architecture={architecture}", "-o", f"APT::Architectures::={architecture}"]
        _unpack(folder, [f"python{VERSION}", f"libpython{VERSION}-dev"], options)
        (folder / "complete").touch()
    return folder


def _unpack(folder: Path, packages: Sequence[str], more: Sequence[str] = ()) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="wsfast-apt-") as temporary:
        apt = Path(temporary)
        options = apt_options(apt, "bookworm", "deb", more)
        words = ["-qq", "-y", "--no-install-recommends", "--download-only", "install"]
        run("apt-get", *options, *words, *packages)
        for archive in sorted((apt / "archives").glob("*.deb")):
            run("dpkg-deb", "-x", archive, folder)


def run_emulated(name: str, arguments: list[str]) -> bool:
    """Build the extensions for a processor and run the tests of the codec there; return whether they passed."""
    processor, qemu, root = PROCESSORS[name], fetch_qemu(name), fetch_root(name)
    interpreter = usual()
    with tempfile.TemporaryDirectory(prefix=f"wsfast-{name}-") as temporary:
        folder = Path(temporary)
        source = copy_sources(folder / "source")
        package = source / "src" / "wsfast"
        tools = make_environment(interpreter, folder / "tools", "cython>=3.1", "setuptools>=77", "ziglang")
        make_c(tools, source)
        zig = [str(tools), "-m", "ziglang", "cc", "-target", processor.target, "-O3", "-fno-strict-aliasing"]
        caches = {f"ZIG_{kind}_CACHE_DIR": str(folder / "zig") for kind in ("GLOBAL", "LOCAL")}
        ours = [f"-I{package}", f"-I{package / 'transport'}"]
        # The C library's headers are Zig's: Debian's come last.
        headers = [f"-I{root}/usr/include/python{VERSION}", "-idirafter", f"{root}/usr/include"]
        for path in sorted((source / "build").rglob("*.c")):
            (found,) = package.rglob(f"{path.stem}.pyx")
            library = found.with_name(f"{path.stem}.cpython-{VERSION.replace('.', '')}-{processor.target}.so")
            run(*zig, *ours, *headers, "-shared", "-fPIC", "-DNDEBUG", path, "-o", library, cwd=source, **caches)
        page_ends = folder / "page_ends"
        run(*zig, "-w", *ours, source / "tests" / "text_at_page_ends.c", "-o", page_ends, cwd=source, **caches)
        for level in processor.levels:
            run(qemu, "-L", root, page_ends, str(level))
        download_pure(interpreter, folder / "wheels", VERSION, PACKAGES)
        for wheel in (folder / "wheels").iterdir():
            shutil.unpack_archive(wheel, folder / "site", "zip")
        # Tests that start `sys.executable` start it by qemu, too, whatever they make of the environment.
        python, paths = folder / "python", f"{package.parent}:{folder / 'site'}"
        python.write_text(
            f'#!/bin/sh\nexport PYTHONHOME={root}/usr PYTHONPATH="${{PYTHONPATH:+$PYTHONPATH:}}{paths}"\n'
            f'exec {qemu} -L {root} -0 "$0" {root}/usr/bin/python{VERSION} "$@"\n'
        )
        python.chmod(0o755)
        command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(arguments or TESTS)]
        if not arguments:
            command += ["-k", "not memory_ends_where_the_text_ends"]  # which was run above
        return subprocess.run(command, cwd=source, env=environment(), check=False).returncode == 0
