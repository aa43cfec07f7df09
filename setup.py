"""Build the Cython extensions; all other metadata stands in pyproject.toml.

WSFAST_COVERAGE=1 builds with Cython's line tracing, for coverage runs only.
WSFAST_SANITIZE=1 builds with the address and undefined-behaviour sanitizers.
"""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

coverage = os.environ.get("WSFAST_COVERAGE") == "1"
sanitize = os.environ.get("WSFAST_SANITIZE") == "1"

compile_args: list[str] = [] if sys.platform == "win32" else ["-O3", "-fno-strict-aliasing"]
link_args: list[str] = []
macros: list[tuple[str, str | None]] = []
if coverage:
    macros.append(("CYTHON_TRACE_NOGIL", "1"))
    macros.append(("CYTHON_USE_SYS_MONITORING", "0"))
if sanitize:
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    compile_args = ["-O1", "-g", "-fno-omit-frame-pointer", *flags]
    link_args += flags

setup(
    ext_modules=cythonize(
        [
            Extension(
                f"wsfast.{name}",
                [f"src/wsfast/{name.replace('.', '/')}.pyx"],
                depends=[str(header) for header in Path("src/wsfast").rglob("*.h")],
                include_dirs=["src/wsfast", "src/wsfast/transport"],
                extra_compile_args=compile_args,
                extra_link_args=link_args,
                define_macros=macros,
            )
            for name in ("_codec", "asyncio._channel", "topics._topics", "transport._socket", "transport._tls")
        ],
        include_path=["src"],
        compiler_directives={
            "language_level": 3,
            "binding": True,
            "embedsignature": False,
            # What is half made, as by `__new__` alone, raises where it is used, and cannot be copied.
            "nonecheck": True,
            "auto_pickle": False,
            "linetrace": coverage,
        },
        build_dir="build",
    )
)
