"""The benchmark's own environment: a venv with the Python peers, Node's peers, the load generator, a certificate.

All of it is in the user's cache directory; the checkout is only read. wsfast is built from a copy of the checkout's
sources and installed as a user would have it, again whenever they change.
"""

import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Environment", "EnvironmentFailedError", "build_wsload", "cache_directory", "checkout_state", "prepare"]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


class EnvironmentFailedError(Exception):
    """Something that the benchmark needs could not be made; the text says what and why."""


@dataclass
class Environment:
    """Where things are; what is missing is named in `notes`, for the report.

    Args:
        python: the interpreter that has the peers.
        wsload: the load generator.
        node: Node's executable, or None.
        node_path: NODE_PATH for its peers.
        uws: words that run uWebSockets' server without Node, but for its arguments, or None.
        uws_node: whether uWebSockets' binding for Node can be loaded.
        tls: the directory of cert.pem and key.pem, or None when the load generator has no TLS.
        variables: the environment of every measured process.
        versions: name and version of all that takes part.
        notes: what is left out, and why.
        wsfast: whether wsfast is installed in it.
    """

    python: str
    wsload: str
    node: str | None = None
    node_path: str | None = None
    uws: str | None = None
    uws_node: bool = False
    tls: str | None = None
    variables: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    wsfast: bool = True


def _run(command: list[str], **options: object) -> str:
    """Run a command; its standard output. Raises EnvironmentFailedError with the end of what it said."""
    done = subprocess.run(command, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-12:]
        raise EnvironmentFailedError(f"{' '.join(map(str, command))}\n  " + "\n  ".join(said))
    return str(done.stdout)


def cache_directory() -> Path:
    """Name the benchmark's directory in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "wsfast-benchmarks"


def _digest(*paths: Path) -> str:
    """Sum up the contents and names of files."""
    sum_ = hashlib.sha256()
    for path in paths:
        sum_.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return sum_.hexdigest()[:16]


def _sources() -> list[Path]:
    """List what wsfast is built from, generated files left out."""
    kept = (".py", ".pyx", ".pxd", ".pxi", ".pyi", ".h", ".html", ".typed")
    found = [path for path in (ROOT / "src").rglob("*") if path.suffix in kept or path.name == "py.typed"]
    names = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in")
    found += [path for name in names if (path := ROOT / name).exists()]
    return sorted(path for path in found if ".egg-info" not in str(path))


def _build() -> str:
    """Tell one build of an interpreter from another of the same version, which may run the same code a third slower."""
    return hashlib.sha256(f"{sys.version} {sys.base_prefix}".encode()).hexdigest()[:8]


def _make_venv(directory: Path, upgrade: bool, say: Callable[[str], None]) -> str:
    python = directory / "bin/python"
    if not python.exists():
        say(f"making the environment {directory}")
        _run([sys.executable, "-m", "venv", str(directory)])
    stamp, wanted = directory / "requirements.stamp", _digest(HERE / "requirements.txt")
    if upgrade or not stamp.exists() or stamp.read_text() != wanted:
        say("installing the Python peers")
        more = ["--upgrade"] if upgrade else []
        _run([str(python), "-m", "pip", "install", "-q", *more, "-r", str(HERE / "requirements.txt")])
        stamp.write_text(wanted)
    return str(python)


def _install_wsfast(directory: Path, python: str, say: Callable[[str], None]) -> None:
    sources = _sources()
    stamp, wanted = directory / "wsfast.stamp", _digest(*sources)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    say("building wsfast from this checkout")
    copy = directory / "wsfast-sources"
    shutil.rmtree(copy, ignore_errors=True)
    for path in sources:
        target = copy / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    stamp.unlink(missing_ok=True)
    _run([python, "-m", "pip", "install", "-q", "--force-reinstall", "--no-deps", "--no-build-isolation", str(copy)])
    shutil.rmtree(copy)
    stamp.write_text(wanted)


def _make_node(directory: Path, upgrade: bool, say: Callable[[str], None]) -> str:
    modules = directory / "node_modules"
    stamp, wanted = directory / "package.stamp", _digest(HERE / "package.json")
    if upgrade or not modules.exists() or not stamp.exists() or stamp.read_text() != wanted:
        say("installing Node's peers")
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE / "package.json", directory)
        _run(["npm", "update" if upgrade and modules.exists() else "install", "--no-audit", "--no-fund"], cwd=directory)
        stamp.write_text(wanted)
    return str(modules)


def _compiler() -> list[str]:
    """Return the words that call the C compiler; $CC may have several, as in "ccache gcc"."""
    found = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if found is None:
        raise EnvironmentFailedError("the load generator needs a C compiler (cc, gcc, clang or $CC); none was found")
    return shlex.split(found)


def build_wsload(directory: Path, notes: list[str], say: Callable[[str], None]) -> tuple[str, bool]:
    """Compile the load generator, with TLS where OpenSSL's headers are; its path and whether it has TLS."""
    source = HERE / "wsload.c"
    directory.mkdir(parents=True, exist_ok=True)
    compiler = _compiler()
    with_tls, without = (directory / f"wsload-{kind}-{_digest(source)}" for kind in ("tls", "plain"))
    if with_tls.exists():
        return str(with_tls), True
    say("compiling the load generator")
    try:
        flags = ["-O2", "-DWSLOAD_TLS", "-o", str(with_tls), str(source), "-lssl", "-lcrypto"]
        _run([*compiler, *flags])
        return str(with_tls), True
    except EnvironmentFailedError as failed:
        if not without.exists():
            _run([*compiler, "-O2", "-o", str(without), str(source)])
        reason = str(failed).splitlines()[-1].strip()
        notes.append(f"TLS scenarios left out: OpenSSL 3's headers are missing (Debian: libssl-dev): {reason}")
        return str(without), False


def _make_uws(directory: Path, python: str, variables: dict[str, str]) -> str:
    """Compile the server around socketify's library of uWebSockets; the words that run it."""
    code = (
        "import importlib.util as u; s = u.find_spec('socketify'); print(s.submodule_search_locations[0] if s else '')"
    )
    package = _run([python, "-c", code], env=variables).strip()
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    library = Path(package) / f"libsocketify_linux_{machine}.so"
    if not package or not library.exists():
        raise EnvironmentFailedError(f"the Python package socketify has no library of it for Linux on {machine}")
    source = HERE / "servers/uws.c"
    program = directory / f"uws-{_digest(source)}"
    if not program.exists():
        _run([*_compiler(), "-O2", "-o", str(program), str(source), "-ldl"])
    _run([str(program), str(library), "--try"])
    return shlex.join([str(program), str(library)])


_VERSIONS = """
import importlib.metadata as m, json, platform, ssl, sys
names = "wsfast uvloop picows websockets aiohttp aiofastnet httptools multidict isal socketify".split()
built = f"{platform.python_compiler()}, {platform.python_build()[1]}"
found = {"Python": platform.python_version(), "built with": built, "OpenSSL of Python": ssl.OPENSSL_VERSION}
for n in names:
    try: found[n] = m.version(n)
    except m.PackageNotFoundError: pass
try:
    import wsfast.codec
    found["wsfast codec"] = wsfast.codec.IMPLEMENTATION
except ImportError as exc:
    found["wsfast missing"] = f"{type(exc).__name__}: {exc}"
print(json.dumps(found))
"""

_NODE_VERSIONS = """
const v = {Node: process.version};
for (const n of ['ws', 'bufferutil', '@btc-vision/uwebsockets.js'])
  for (const p of process.env.NODE_PATH.split(':'))
    try { v[n] = JSON.parse(require('fs').readFileSync(`${p}/${n}/package.json`)).version; break; } catch {}
console.log(JSON.stringify(v));
"""

_NODE_TRY = """
try { require('@btc-vision/uwebsockets.js') }
catch (e) { console.error(e.message.trim().split('\\n').pop()); process.exit(1) }
"""


def prepare(
    say: Callable[[str], None],
    *,
    python: str | None = None,
    node_path: str | None = None,
    upgrade: bool = False,
    need_wsfast: bool = True,
    need_uws: bool = True,
    need_node: bool = True,
) -> Environment:
    """Make whatever is missing of the environment.

    Args:
        say: told what is being done.
        python: use this interpreter as it is, with wsfast from the checkout's src if it was built in place there;
            nothing is installed.
        node_path: use Node's packages from this directory as they are.
        upgrade: bring the peers to their newest releases.
        need_wsfast: whether wsfast takes part.
        need_uws: whether uWebSockets without Node takes part.
        need_node: whether peers on Node take part.

    Raises:
        EnvironmentFailedError: a part without which nothing can be measured is missing.
    """
    if sys.platform != "linux":
        raise EnvironmentFailedError("the comparison needs Linux: epoll, core pinning, /proc")
    base = cache_directory()
    notes: list[str] = []
    wsload, has_tls = build_wsload(base / "bin", notes, say)
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    variables["PYTHONSAFEPATH"] = "1"  # no file in the current directory may shadow a package
    if python is None:
        directory = base / f"venv-{sys.version_info.major}.{sys.version_info.minor}-{_build()}"
        python = _make_venv(directory, upgrade, say)
        if need_wsfast:
            _install_wsfast(directory, python, say)
    else:
        variables["PYTHONPATH"] = f"{ROOT}:{ROOT / 'src'}"
    environment = Environment(python, wsload, notes=notes, variables=variables)
    versions = json.loads(_run([python, "-c", _VERSIONS], env=variables))
    missing = versions.pop("wsfast missing", None)
    environment.wsfast = missing is None
    if missing is not None and need_wsfast:
        raise EnvironmentFailedError(f"{python} cannot import wsfast: {missing}")
    if has_tls:
        tls = base / "tls"
        if not (tls / "cert.pem").exists():
            tls.mkdir(parents=True, exist_ok=True)
            _run([wsload, "-m", "cert", "-C", str(tls)])
        environment.tls = str(tls)
    if need_uws:
        try:
            environment.uws = _make_uws(base / "bin", python, variables)
        except EnvironmentFailedError as failed:
            notes.append(f"uws/c (uWebSockets) left out: {failed}")
    if need_node:
        environment.node = shutil.which("node")
        if environment.node is None:
            notes.append("uws/node and ws/node left out: Node is not installed")
        else:
            try:
                if node_path is None and shutil.which("npm") is None:
                    raise EnvironmentFailedError("npm is not installed")
                environment.node_path = node_path or _make_node(base / "node", upgrade, say)
                variables["NODE_PATH"] = environment.node_path
                versions |= json.loads(_run([environment.node, "-e", _NODE_VERSIONS], env=variables))
            except EnvironmentFailedError as failed:
                environment.node = None
                notes.append(f"uws/node and ws/node left out: {failed}")
    if environment.node is not None:
        try:
            _run([environment.node, "-e", _NODE_TRY], env=variables)
            environment.uws_node = True
        except EnvironmentFailedError as failed:
            reason = str(failed).splitlines()[-1].strip().replace(str(environment.node_path), "node_modules")
            notes.append(f"uws/node left out: {reason}")
    environment.versions = versions
    return environment


def checkout_state() -> str:
    """Name the checkout's commit, and whether it has changes; empty outside of git."""
    try:
        commit = _run(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT).strip()
        dirty = _run(
            ["git", "status", "--porcelain", "--untracked-files=no", "--", "src", "setup.py"], cwd=ROOT
        ).strip()
    except (EnvironmentFailedError, OSError):
        return ""
    return commit + (" with changes" if dirty else "")
