"""Build the Cython extensions; all other metadata stands in pyproject.toml.

Environment variables choose another build:

WSFAST_PURE_PYTHON=1  none of them: a wheel for any Python and platform, whose `wsfast.IMPLEMENTATION` is "python".
WSFAST_DEBUG=1        for gdb: without optimisation, with symbols and all assertions.
WSFAST_SANITIZE=1     with the address and undefined-behaviour sanitizers; WSFAST_SANITIZE=thread with that for threads.
WSFAST_COVERAGE=1     with Cython's line tracing, for coverage runs only.

CFLAGS are the compiler's as usual; an -O of theirs is obeyed instead of the -O3 here.
"""

import os
import re
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import BaseError, CCompilerError

PACKAGE = Path("src/wsfast")
COMPILING = {"bdist_wheel", "build", "build_ext", "editable_wheel"}
"""Commands that make extensions."""
READING = {"egg_info", "dist_info", "sdist"}
"""Commands that do not need to know of them."""


def asked(name: str) -> bool:
    return os.environ.get(f"WSFAST_{name}", "") not in ("", "0")


def explained(reason: object) -> str:
    return (
        f"wsfast's extensions cannot be compiled: {reason}\n"
        "Install a C compiler and Python's headers (Debian: gcc python3-dev; macOS: xcode-select --install;"
        " Windows: Build Tools for Visual Studio),\n"
        "or install the slower Python code alone: WSFAST_PURE_PYTHON=1 pip install wsfast"
    )


def check_compiler() -> None:
    """Say so at once where there is no compiler, not behind hundreds of lines of what else was built."""
    if sys.platform == "win32" or not COMPILING & set(sys.argv):
        return
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    headers = Path(sysconfig.get_path("include"), "Python.h")
    if shutil.which(compiler) is None:
        raise SystemExit(explained(f"there is no {compiler}"))
    if not headers.exists():
        raise SystemExit(explained(f"there is no {headers}"))


class BuildExtensions(build_ext):
    def finalize_options(self) -> None:
        super().finalize_options()
        if self.parallel is None:
            self.parallel = os.cpu_count()

    def build_extensions(self) -> None:
        try:
            super().build_extensions()
        except (BaseError, CCompilerError, OSError) as exc:
            raise CCompilerError(explained(exc)) from exc


class BuildPure(build_py):
    """Says in the copy that is installed that the extensions are left out on purpose."""

    def run(self) -> None:
        super().run()
        built = Path(self.build_lib, "wsfast", "_built.py")
        if built.exists():  # an editable installation has no copy
            before = built.read_text()
            after = before.replace("EXTENSIONS: Final[bool] = True", "EXTENSIONS: Final[bool] = False")
            assert after != before
            built.write_text(after)


def extensions() -> list[Extension]:
    if READING & set(sys.argv) and not COMPILING & set(sys.argv):
        return []
    check_compiler()
    from Cython.Build import cythonize

    coverage, debug, sanitize = asked("COVERAGE"), asked("DEBUG"), os.environ.get("WSFAST_SANITIZE", "0")
    gcc = sys.platform != "win32"
    compile_args = ["-fno-strict-aliasing"] if gcc else []
    if gcc and not re.search(r"(^|\s)-O", os.environ.get("CFLAGS", "")):
        compile_args.insert(0, "-O3")
    link_args = ["-Wl,-s"] if sys.platform.startswith("linux") else []  # symbols are two thirds of a wheel
    macros: list[tuple[str, str | None]] = []
    if not debug:
        macros.append(("CYTHON_WITHOUT_ASSERTIONS", None))
    if coverage:
        macros += [("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")]
    if debug:
        compile_args = ["-O0", "-g3", "-fno-strict-aliasing", "-UNDEBUG"] if gcc else ["/Od", "/Zi", "/UNDEBUG"]
        link_args = [] if gcc else ["/DEBUG"]
    if sanitize not in ("", "0"):
        flags = ["-fsanitize=thread"]
        if sanitize != "thread":
            flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
        compile_args = ["-O1", "-g", "-fno-omit-frame-pointer", "-fno-strict-aliasing", *flags]
        link_args = flags
    return cythonize(
        [
            Extension(
                ".".join(("wsfast", *path.relative_to(PACKAGE).with_suffix("").parts)),
                [path.as_posix()],
                depends=[header.as_posix() for header in PACKAGE.rglob("*.h")],
                include_dirs=[PACKAGE.as_posix(), (PACKAGE / "transport").as_posix()],
                extra_compile_args=compile_args,
                extra_link_args=link_args,
                define_macros=macros,
            )
            for path in sorted(PACKAGE.rglob("*.pyx"))
        ],
        include_path=["src"],
        compiler_directives={
            "language_level": 3,
            "binding": True,
            # Without a GIL: docs/threads.md says what may run side by side.
            "freethreading_compatible": True,
            "embedsignature": False,
            # What is half made, as by `__new__` alone, raises where it is used, and cannot be copied.
            "nonecheck": True,
            "auto_pickle": False,
            "linetrace": coverage,
        },
        gdb_debug=debug,
        build_dir="build",
    )


if asked("PURE_PYTHON"):
    setup(cmdclass={"build_py": BuildPure})
else:
    setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExtensions})
