"""What is distributed: the sdist, the wheel made of it, and an installation of that in an empty environment."""

from __future__ import annotations

import ast
import itertools
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import wsfast

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WORKFLOW = ROOT / ".github/workflows/wheels.yml"
EXTENSIONS = {
    "_codec",
    "asyncio/_channel",
    "bus/_frames",
    "handshake/_head",
    "topics/_topics",
    "transport/_socket",
    "transport/_timers",
    "transport/_tls",
}
"""Paths in the package, without an ending."""


def run(*command: str | Path, **environment: str) -> str:
    """Run a program as from an empty directory and environment, and return what it printed."""
    strange = ("PYTHON", "VIRTUAL_ENV", "WSFAST")
    env = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
    done = subprocess.run(
        [str(word) for word in command],
        cwd="/",
        env={**env, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    return done.stdout


def test_the_versions_agree() -> None:
    assert PROJECT["project"]["version"] == wsfast.__version__
    changes = (ROOT / "CHANGELOG.md").read_text()
    newest = re.search(r"^## (\S+)", changes, re.MULTILINE)
    assert newest is not None
    assert newest[1] == wsfast.__version__


def test_the_extensions_are_those_that_are_built() -> None:
    """What the package imports by default is the Cython code, unless it was told otherwise."""
    expected = "python" if os.environ.get("WSFAST_PURE_PYTHON") == "1" else "cython"
    assert expected == wsfast.IMPLEMENTATION
    package = ROOT / "src/wsfast"
    assert {path.relative_to(package).with_suffix("").as_posix() for path in package.rglob("*.pyx")} == EXTENSIONS


def test_the_dev_extra_has_what_the_tests_import() -> None:
    """So that its installation is all the set-up that the tests need."""
    project = PROJECT["project"]
    requirements = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    named = {re.split(r"[\[<>=; ]", requirement)[0].lower().replace("-", "_") for requirement in requirements}
    named |= {"nats"} & {name.removesuffix("_py") for name in named}  # nats-py is imported as nats
    local = {path.stem for path in (ROOT / "tests").iterdir()} | {"benchmarks", "tests", "wsfast"}
    imported = set()
    for path in (ROOT / "tests").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    assert not imported - local - named - set(sys.stdlib_module_names)


def sources(target: Path) -> Path:
    """Copy what is packed, without what was built in the tree."""
    skipped = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "node_modules", "__pycache__", "*.so")
    shutil.copytree(ROOT, target, ignore=skipped)
    return target


@pytest.mark.package
@pytest.mark.parametrize("how", ["missing", "broken", "another's", "of another build"])
@pytest.mark.parametrize("name", sorted(EXTENSIONS))
def test_an_unusable_extension_is_an_error(name: str, how: str, tmp_path: Path) -> None:
    """Never is the Python code used instead without being asked for."""
    shutil.copytree(Path(wsfast.__file__).parent, tmp_path / "wsfast")
    (extension,) = (tmp_path / "wsfast").glob(f"{name}.*.so")
    if how == "missing":
        extension.unlink()
    elif how == "broken":
        extension.write_bytes(b"not a shared library")
    elif how == "another's":
        (other,) = (tmp_path / "wsfast").glob("_codec.*.so" if name != "_codec" else "topics/_topics.*.so")
        extension.write_bytes(other.read_bytes())
    else:
        extension.rename(extension.with_name(f"{Path(name).name}.cpython-39-x86_64-linux-gnu.so"))
    program = (
        "import importlib\n"
        "names = ('', '.handshake', '.transport.tls', '.transport.sockets', '.topics.index')\n"
        "try: [importlib.import_module(f'wsfast{name}') for name in names]\n"
        "except ImportError as exc: print(exc)\n"
        "else: print('imported')"
    )
    lines = run(sys.executable, "-c", program, PYTHONPATH=str(tmp_path)).splitlines()
    # One that imports another may be the first that fails.
    assert re.match(rf"the extension wsfast[\w.]+ cannot be imported by cpython {sys.version.split()[0]}: ", lines[0])
    assert Path(name).name in lines[0]
    assert "Install wsfast again" in lines[1]
    assert "WSFAST_PURE_PYTHON=1" in lines[2]
    assert len(lines) == 3
    if how == "missing":
        pure = {"PYTHONPATH": str(tmp_path), "WSFAST_PURE_PYTHON": "1"}
        assert run(sys.executable, "-c", program, **pure) == "imported\n"


@pytest.mark.package
@pytest.mark.skipif(not WORKFLOW.exists(), reason="the sdist has no workflows")
def test_the_workflow_makes_wheels_for_every_interpreter_and_platform(tmp_path: Path) -> None:
    """As cibuildwheel understands its options and the configuration: each release of it that the workflow installs."""
    workflow = WORKFLOW.read_text()
    archs: dict[str, list[str]] = {"ubuntu": [], "macos": [], "windows": []}
    for system, named in re.findall(r'- { os: (\w+)-\S+, archs: "?([\w ]+)"? }', workflow):
        archs[system] += named.split()
    said: list[str] = []
    steps = re.findall(
        r'- run: python -m pip install "(cibuildwheel.*)"\n'
        r" +- run: python -m cibuildwheel .*\n"
        r"(?: +env:\n)?((?: +CIBW_.*\n)*)",
        workflow,
    )
    for number, (requirement, variables) in enumerate(steps):
        folder = tmp_path / str(number)
        venv.create(folder, with_pip=True)
        python = folder / "bin" / "python"
        run(python, "-m", "pip", "install", "-q", requirement)
        environment = dict(re.findall(r'(CIBW_\w+): "?([^"\n]*)', variables))
        for system, named in archs.items():
            platform = "linux" if system == "ubuntu" else system
            command = (python, "-m", "cibuildwheel", "--print-build-identifiers", "--platform", platform)
            said += run(*command, "--archs", " ".join(named), ROOT, **environment).split()
    linux = ("x86_64", "i686", "aarch64", "armv7l", "ppc64le", "s390x")
    platforms = [f"{libc}_{arch}" for libc in ("manylinux", "musllinux") for arch in linux]
    platforms += ["macosx_x86_64", "macosx_arm64", "win_amd64", "win_arm64"]
    interpreters = ("cp311", "cp312", "cp313", "cp313t", "cp314", "cp314t", "cp315", "cp315t")
    assert sorted(said) == sorted(f"{each}-{platform}" for each in interpreters for platform in platforms)


@pytest.mark.package
def test_no_compiler_is_three_lines(tmp_path: Path) -> None:
    """That say what to install, before anything was built."""
    source = sources(tmp_path / "wsfast")
    for command in ("bdist_wheel", "build_ext", "editable_wheel"):
        done = subprocess.run(
            [sys.executable, "setup.py", command],
            cwd=source,
            env={"PATH": "/nonexistent"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        lines = done.stderr.splitlines()
        assert lines[0].startswith("wsfast's extensions cannot be compiled: there is no ")
        assert "C compiler" in lines[1]
        assert "WSFAST_PURE_PYTHON=1 pip install" in lines[2]
        assert len(lines) == 3


@pytest.mark.package
def test_a_wheel_without_extensions(tmp_path: Path) -> None:
    """Asked for at installation, it is for any Python and platform, and says what it is."""
    source = sources(tmp_path / "source")
    command = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation")
    run(*command, "--wheel-dir", tmp_path / "wheel", source, WSFAST_PURE_PYTHON="1", PATH="/nonexistent")
    (pure,) = (tmp_path / "wheel").iterdir()
    assert pure.name == f"wsfast-{wsfast.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(pure) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "installed")
    assert not [name for name in names if name.endswith((".so", ".pyd", ".c", ".h", ".pyx", ".pxd", ".pxi"))]
    for value in ("", "0", "1"):
        environment = {"PYTHONPATH": str(tmp_path / "installed"), "WSFAST_PURE_PYTHON": value}
        assert run(sys.executable, "-c", "import wsfast; print(wsfast.IMPLEMENTATION)", **environment) == "python\n"


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # From a copy: what building leaves behind must not get into the tree that is tested.
    source = sources(tmp_path_factory.mktemp("source") / "wsfast")
    target = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "build", "--sdist", "--outdir", target, source)
    (path,) = target.iterdir()
    return path


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """From the sdist, as pip does it, with the build dependencies of pyproject.toml and no others."""
    target = tmp_path_factory.mktemp("wheel")
    # It is not about speed, and optimising takes most of the time.
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", target, sdist, CFLAGS="-O0")
    (path,) = target.iterdir()
    return path


@pytest.mark.package
def test_the_sdist(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "setup.py", "docs/design.md"} <= names
    assert {f"src/wsfast/{name}.pyx" for name in EXTENSIONS} <= names
    others = {
        f"src/wsfast/{name}"
        for name in ("_codec.pxd", "transport/_poller.pxi", "_codec_bytes.h", "_codec_utf8.h", "cli/page.html")
    }
    assert others <= names
    assert {"tests/conftest.py", "tests/node/package.json", "examples/server_echo.py"} <= names
    for path in (ROOT / "src/wsfast").rglob("*.py"):
        assert str(path.relative_to(ROOT)) in names
    for path in (ROOT / "docs").rglob("*"):  # so that the site can be built of it
        assert path.is_dir() or path.suffix == ".pyc" or str(path.relative_to(ROOT)) in names
    assert not [name for name in names if name.endswith((".so", ".pyc")) or name.startswith(("build/", ".venv"))]
    assert not [name for name in names if name.startswith("src/") and name.endswith(".c")]


@pytest.mark.package
def test_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(name for name in names if name.endswith("/METADATA"))).decode()
    for name in EXTENSIONS:
        assert [found for found in names if re.fullmatch(rf"wsfast/{name}\.[\w-]+\.(so|pyd)", found)]
        assert f"wsfast/{name}.pyi" in names
    assert {"wsfast/py.typed", "wsfast/cli/page.html", "wsfast/_codec_py.py"} <= names
    for path in (ROOT / "src/wsfast").rglob("*.py"):
        assert str(path.relative_to(ROOT / "src")) in names
    assert not [name for name in names if name.endswith((".c", ".h", ".pyx", ".pxd", ".pxi", ".pyc"))]
    assert {name.partition("/")[0] for name in names} == {"wsfast", f"wsfast-{wsfast.__version__}.dist-info"}
    assert any(name.endswith("/LICENSE") for name in names)
    assert "License-Expression: Apache-2.0" in metadata
    required = re.findall(r"^Requires-Dist: ([\w-]+)(?!.*extra ==)", metadata, re.MULTILINE)
    assert sorted(required) == ["h11", "multidict"]


@pytest.mark.package
def test_it_works_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    """With what it depends on and nothing else."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", wheel)
    installed = run(python, "-m", "pip", "list", "--format=freeze")
    assert {line.partition("==")[0] for line in installed.split() if "==" in line} <= {
        *("h11", "multidict", "pip", "setuptools", "wsfast"),
        "typing_extensions",  # multidict's, on Python 3.11
    }
    program = tmp_path / "echo.py"
    program.write_text(
        """
import asyncio, wsfast

async def echo(ws):
    async for message in ws:
        await ws.send(message)

async def main():
    async with wsfast.serve(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with wsfast.connect(f"ws://127.0.0.1:{port}/") as ws:
            for message in ("text", b"binary", "x" * 100_000):
                await ws.send(message)
                assert await ws.recv() == message
    print(wsfast.IMPLEMENTATION)

asyncio.run(main())
"""
    )
    assert run(python, "-W", "error", program) == "cython\n"
    assert run(python, "-W", "error", program, WSFAST_PURE_PYTHON="1") == "python\n"
    assert run(tmp_path / "venv" / "bin" / "wsfast", "--version") == f"wsfast {wsfast.__version__}\n"
    assert "serve" in run(python, "-m", "wsfast", "--help")
