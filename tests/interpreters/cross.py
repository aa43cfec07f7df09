"""Compile the extensions for other processors, C libraries and systems, and by other compilers: objects, not wheels.

What another compiler or platform refuses shows here, before a workflow does it. The compilers are Clang's, which
`ziglang` brings for all of them; the headers are those of an interpreter that is here, and Windows' are CPython's own.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .found import CACHE, Interpreter, copy_sources, environment, make_c, make_environment

TARGETS = (
    "x86_64-linux-gnu",
    "x86_64-linux-musl",
    "x86-linux-gnu",
    "x86-linux-musl",
    "aarch64-linux-gnu",
    "aarch64-linux-musl",
    "arm-linux-gnueabihf",
    "arm-linux-musleabihf",
    "powerpc64le-linux-gnu",
    "s390x-linux-gnu",
    "riscv64-linux-musl",
    "x86_64-macos",
    "aarch64-macos",
    "x86_64-windows-gnu",
    "aarch64-windows-gnu",
)
BITS32 = ("x86-", "arm-")
BIG_ENDIAN = ("s390x-",)
WARNINGS = ("-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers", "-Wno-cast-function-type")
# The names of slots that Cython has in one text are longer than the 4095 characters that every compiler of C11 takes.
STRICT = ("-std=c11", "-pedantic", "-Werror", "-Wno-error=pedantic", "-Wno-overlength-strings", "-D_GNU_SOURCE")
KNOWN = re.compile(r"warning: ISO C forbids conversion of (function|object) pointer to (object|function) pointer type")
"""How CPython's `PyType_Slot` takes a function. GCC has no switch for it alone, and POSIX demands that it works."""


def headers_for(interpreter: Interpreter, target: str, folder: Path) -> Path:
    """Copy an interpreter's headers and make its `pyconfig.h`, which has its own platform's sizes, that of another one.

    Args:
        interpreter: whose headers they are.
        target: such as ``"arm-linux-gnueabihf"``.
        folder: where to; it need not exist.
    """
    bits32, big = target.startswith(BITS32), target.startswith(BIG_ENDIAN)
    copy = folder / f"headers-{32 if bits32 else 64}-{'big' if big else 'little'}"
    if copy.exists():
        return copy
    shutil.copytree(interpreter.include, copy, ignore=shutil.ignore_patterns("*linux-gnu*"))
    # Debian's only chooses one by the platform: its own is what it would choose here.
    found = subprocess.run(
        ["gcc", "-E", "-dM", f"-I{interpreter.include}", "-"],
        input='#include "pyconfig.h"\n',
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    ours = {line.split()[1]: line for line in found.splitlines()}
    with_none = subprocess.run(["gcc", "-E", "-dM", "-"], input="", capture_output=True, text=True, check=True).stdout
    for line in with_none.splitlines():
        ours.pop(line.split()[1], None)
    if bits32:
        for kind in ("LONG", "PTHREAD_T", "SIZE_T", "UINTPTR_T", "VOID_P"):
            ours[f"SIZEOF_{kind}"] = f"#define SIZEOF_{kind} 4"
        for kind in ("LONG", "SIZE_T"):
            ours[f"ALIGNOF_{kind}"] = f"#define ALIGNOF_{kind} 4"
        ours["SIZEOF_LONG_DOUBLE"] = "#define SIZEOF_LONG_DOUBLE 12"
        ours.pop("HAVE_GCC_UINT128_T", None)
    if big:
        ours["WORDS_BIGENDIAN"] = "#define WORDS_BIGENDIAN 1"
        ours["DOUBLE_IS_BIG_ENDIAN_IEEE754"] = "#define DOUBLE_IS_BIG_ENDIAN_IEEE754 1"
        ours.pop("DOUBLE_IS_LITTLE_ENDIAN_IEEE754", None)
    (copy / "pyconfig.h").write_text("\n".join(ours.values()) + "\n")
    return copy


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


@dataclass(frozen=True)
class Job:
    """A compiler, and what for.

    Attributes:
        name: what it is printed as.
        command: the program, with its options.
    """

    name: str
    command: tuple[str, ...]

    def run(self, path: Path, made: Path, cache: Path) -> tuple[int, list[str]]:
        """Compile a file; return the size of what was made, 0 if it failed, and what was complained of.

        Args:
            path: the file.
            made: the object to make.
            cache: a folder for Zig's.
        """
        made.unlink(missing_ok=True)
        done = subprocess.run(
            [*self.command, "-c", str(path), "-o", str(made)],
            capture_output=True,
            text=True,
            env=environment(ZIG_GLOBAL_CACHE_DIR=str(cache), ZIG_LOCAL_CACHE_DIR=str(cache)),
            check=False,
        )
        said = [line for line in done.stderr.splitlines() if "warning:" in line or "error:" in line]
        unknown = [line for line in said if not KNOWN.search(line)]
        if done.returncode and not unknown:
            unknown = done.stderr.splitlines()[-5:]
        return (0 if done.returncode else made.stat().st_size), unknown


def main(interpreter: Interpreter, names: list[str], *, strict: bool, look: bool) -> None:
    """Compile every extension for every target.

    Args:
        interpreter: whose headers are used.
        names: of targets (none: all).
        strict: for this machine only, by gcc and by Clang, as C11 and without a warning.
        look: without optimising, which takes a fraction of the time.

    Raises:
        SystemExit: a compiler refuses, or warns of, something.
    """
    with tempfile.TemporaryDirectory(prefix="wsfast-cross-") as temporary:
        folder = Path(temporary)
        source = copy_sources(folder / "source")
        tools = make_environment(interpreter, folder / "tools", "cython>=3.1", "setuptools>=77", "ziglang")
        make_c(tools, source)
        package = source / "src" / "wsfast"
        generated = sorted((source / "build").rglob("*.c"))
        assert len(generated) == len(list(package.rglob("*.pyx")))
        clang = (str(tools), "-m", "ziglang", "cc")
        common = (
            *(f"-I{package}", f"-I{package / 'transport'}"),
            *("-O0" if look else "-O2", "-fno-strict-aliasing", "-fPIC", "-DNDEBUG", "-DCYTHON_WITHOUT_ASSERTIONS"),
        )
        if strict:
            here = (f"-I{interpreter.include}", *common, *STRICT, *WARNINGS)
            jobs = [Job("gcc", (shutil.which("gcc") or "gcc", *here)), Job("clang", (*clang, *here))]
        else:
            jobs = []
            for target in names or TARGETS:
                if "windows" in target:
                    windows = windows_headers()
                    headers = [f"-I{windows}", f"-I{windows / 'Include'}"]
                else:
                    headers = [f"-I{headers_for(interpreter, target, folder)}"]
                jobs.append(Job(target, (*clang, "-target", target, *headers, *common, *WARNINGS)))
        failed = []
        for job in jobs:
            size = complaints = 0
            for path in generated:
                made, said = job.run(path, folder / "made.o", folder / "zig")
                size += made
                complaints += len(said)
                print(*said[:10], sep="\n", end="\n" if said else "")
                if said:
                    failed.append(f"{job.name}: {path.stem}")
            print(f"{job.name:24} {len(generated)} objects, {size:>9,} bytes, {complaints} complaints", flush=True)
        if failed:
            raise SystemExit(f"failed: {', '.join(failed)}")
