"""Compile the extensions for other processors, C libraries and systems, and by other compilers: objects, not wheels.

What another compiler or platform refuses shows here, before a workflow does it. The compilers are Clang's, which
`ziglang` brings for all of them; the headers are those of an interpreter that is here, and Windows' are CPython's own.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from .found import CACHE, Interpreter, copy_sources, environment, make_environment, run

TARGETS = (
    "x86_64-linux-gnu",
    "x86_64-linux-musl",
    "aarch64-linux-gnu",
    "aarch64-linux-musl",
    "powerpc64le-linux-gnu",
    "s390x-linux-gnu",
    "riscv64-linux-musl",
    "x86_64-windows-gnu",
    "aarch64-windows-gnu",
)
"""Those of 64 bits: an interpreter's `pyconfig.h` holds the sizes of its own platform's types. The `i386` that
`debian` fetches stands for the others."""
WARNINGS = ("-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers", "-Wno-cast-function-type")
STRICT = ("-std=c11", "-pedantic", "-Werror", "-D_GNU_SOURCE")


def windows_headers() -> Path:
    """Return the folder of Windows' `pyconfig.h`, from Debian's source package of CPython 3.13.

    Raises:
        SystemExit: it cannot be had.
    """
    from .debian import source_of

    folder = CACHE / "windows-headers"
    if not (folder / "pyconfig.h").exists():
        folder.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(prefix="wsfast-apt-") as temporary,
            tarfile.open(source_of("3.13", Path(temporary))) as source,
        ):
            for member in source:
                if member.name.endswith("/PC/pyconfig.h.in"):
                    content = source.extractfile(member)
                    assert content is not None
                    (folder / "pyconfig.h").write_bytes(content.read())
                elif "/Include/" in member.name and member.isfile():
                    content = source.extractfile(member)
                    assert content is not None
                    target = folder / "Include" / member.name.partition("/Include/")[2]
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(content.read())
    return folder


def main(interpreter: Interpreter, *, strict: bool, look: bool) -> None:
    """Compile every extension for every target.

    Args:
        interpreter: whose headers are used.
        strict: for this machine only, by gcc and by Clang, as C11 and without a warning.
        look: without optimising, which takes a fraction of the time.
    """
    with tempfile.TemporaryDirectory(prefix="wsfast-cross-") as temporary:
        folder = Path(temporary)
        source = copy_sources(folder / "source")
        tools = make_environment(interpreter, folder / "tools", "cython>=3.1", "setuptools>=77", "ziglang")
        # Only what Cython makes of them is wanted: `true` stands for the compiler.
        run(tools, "setup.py", "-q", "build_ext", "-b", folder / "lib", cwd=source, CC="true", LDSHARED="true")
        package = source / "src" / "wsfast"
        generated = sorted((source / "build").rglob("*.c"))
        includes = [f"-I{package}", f"-I{package / 'transport'}"]
        clang = [str(tools), "-m", "ziglang", "cc"]
        here = [f"-I{interpreter.include}", *includes]
        if strict:
            jobs = [
                ("gcc", [shutil.which("gcc") or "gcc", *here, *STRICT, *WARNINGS]),
                ("clang", [*clang, *here, *STRICT, *WARNINGS]),
            ]
        else:
            jobs = [
                (target, [*clang, "-target", target, *here, *WARNINGS]) for target in TARGETS if "windows" not in target
            ]
            windows = windows_headers()
            there = [f"-I{windows}", f"-I{windows / 'Include'}", *includes]
            jobs += [
                (target, [*clang, "-target", target, *there, *WARNINGS]) for target in TARGETS if "windows" in target
            ]
        failed = []
        for name, command in jobs:
            size = warnings = 0
            for path in generated:
                made = folder / "made.o"
                made.unlink(missing_ok=True)
                words = [
                    *command,
                    "-O0" if look else "-O2",
                    "-fno-strict-aliasing",
                    "-fPIC",
                    "-DNDEBUG",
                    "-DCYTHON_WITHOUT_ASSERTIONS",
                ]
                done = subprocess.run(
                    [*words, "-c", str(path), "-o", str(made)],
                    capture_output=True,
                    text=True,
                    env=environment(ZIG_GLOBAL_CACHE_DIR=str(folder / "zig"), ZIG_LOCAL_CACHE_DIR=str(folder / "zig")),
                    check=False,
                )
                warnings += done.stderr.count("warning:")
                if done.returncode:
                    failed.append(f"{name}: {path.name}")
                    print(done.stderr[:3000])
                else:
                    size += made.stat().st_size
                    if warnings:
                        print(done.stderr[:2000])
            print(f"{name:24} {len(generated)} objects, {size:>9,} bytes, {warnings} warnings", flush=True)
        if failed:
            raise SystemExit(f"failed: {', '.join(failed)}")
