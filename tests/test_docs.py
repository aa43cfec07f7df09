"""The documentation: its code runs, its commands exist, its reference has every public name, and it builds.

Every block of Python in README.md and docs/ runs as it stands, from top to bottom of its page. The blocks of a page
share their names, as in one program, and may await; a block with `asyncio.run(` is a program of its own, and one that
begins with a comment such as `# chat.py` is a file. What a page says about its code is checked by further code, in
comments of HTML: `<!-- test ... -->`. Port 8765 stands for a free one.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import enum
import importlib
import inspect
import json
import logging
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import types
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import wsfast
import wsfast.bus
import wsfast.sync
import wsfast.testing
import wsfast.trio
from wsfast.cli import _parser

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
MEASUREMENTS = {"docs/comparison.md", "docs/performance.md"}
"""Pages that name commands of the day on which they were measured."""
FRAGMENTS = {"docs/migrating.md", "docs/asgi.md"}
"""Pages whose code is in pieces, for the reader's own program; what they say is held by the tests of their parts."""

_BLOCK = re.compile(
    r"^( *)(`{3,}|:{3,}) *\{?(\w[\w-]*)?\}?[^\n]*\n(.*?)^\1\2 *$|<!-- test\n(.*?)-->", re.MULTILINE | re.DOTALL
)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, *languages: str) -> list[tuple[str, str]]:
    """Return the fenced blocks of a page, and its tests, as (language, text); a test's language is "test"."""
    found = []
    for _, _, language, text, test in _BLOCK.findall(path.read_text()):
        if test:
            found.append(("test", test))
        elif language in languages:
            found.append((language, textwrap.dedent(text)))
    return found


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def running(file: str | Path, *arguments: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program until it says that it is ready; stop it by Ctrl-C, which must end it without a word."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *(["-u", str(file)] if str(file).endswith(".py") else ["-um", str(file)]), *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(60):
            line = await process.stdout.readline()
            if not line:
                raise AssertionError((await process.stderr.read()).decode())
            yield process
            if process.returncode is None:
                process.send_signal(signal.SIGINT)
            errors = (await process.stderr.read()).decode()
            assert "Traceback" not in errors, errors
            assert await process.wait() == 0, errors
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


@contextlib.asynccontextmanager
async def workers(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `python -m wsfast run` until its workers are ready; SIGTERM must end it in order."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "wsfast", "run", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert process.stderr is not None
    log = ""
    try:
        async with asyncio.timeout(60):
            while " ready" not in log:
                line = await process.stderr.readline()
                assert line, log
                log += line.decode()
            yield process
            process.terminate()
            log += (await process.stderr.read()).decode()
            assert "Traceback" not in log, log
            assert await process.wait() == 0, log
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def run(path: Path, directory: Path) -> int:
    """Run the code of a page, and return how many blocks there were."""
    port = str(unused_port())
    module = types.ModuleType("page")  # dataclasses look their module up
    sys.modules["page"] = module
    names: dict[str, Any] = module.__dict__
    names |= {"running": running, "workers": workers, "port": int(port), "HERE": directory, "ROOT": ROOT}
    names["__file__"] = str(directory / "page.py")
    count = 0
    for language, text in blocks(path, "python"):
        source = text.replace("8765", port)
        count += 1
        where = f"{name_of(path)}, block {count}"
        saved = re.match(r"# ([\w/]+\.py)\b", source)
        if saved:
            file = directory / saved[1]
            file.parent.mkdir(exist_ok=True)
            file.write_text(source)
            sys.modules.pop(saved[1].removesuffix(".py").replace("/", "."), None)
            importlib.invalidate_caches()
            compile(source, where, "exec")
        elif language == "python" and "asyncio.run(" in source:
            file = directory / f"program{count}.py"
            file.write_text(source)
            async with running(file):
                pass
        else:
            code = compile(source, where, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            if code.co_flags & inspect.CO_COROUTINE:
                async with asyncio.timeout(60):
                    await eval(code, names)
            else:
                exec(code, names)
    return count


WITH_CODE = [path for path in PAGES if blocks(path, "python") and name_of(path) not in FRAGMENTS]


def loggers() -> list[logging.Logger]:
    known = logging.root.manager.loggerDict.values()
    return [logging.root, *(logger for logger in known if isinstance(logger, logging.Logger))]


@pytest.fixture
def _logging_as_before() -> Iterator[None]:
    """A page about logging sets it up for its process, which is that of other tests too."""
    before = {logger: (logger.level, logger.propagate, logger.handlers[:]) for logger in loggers()}
    yield
    for logger in loggers():
        level, logger.propagate, logger.handlers[:] = before.get(logger, (logging.NOTSET, True, []))
        logger.setLevel(level)


@pytest.mark.usefixtures("_logging_as_before")
@pytest.mark.parametrize("path", WITH_CODE, ids=name_of)
def test_the_code_of_a_page_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    try:
        assert asyncio.run(run(path, tmp_path))
    finally:
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
                del sys.modules[name]


@pytest.mark.parametrize("path", [path for path in PAGES if name_of(path) in FRAGMENTS], ids=name_of)
def test_pieces_of_code_are_python(path: Path) -> None:
    for number, (_, text) in enumerate(blocks(path, "python"), 1):
        compile(text, f"{name_of(path)}, block {number}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_code_is_marked_as_what_it_is(path: Path) -> None:
    """So that no block escapes the tests by the name of its language."""
    known = {
        *("python", "javascript", "html", "console", "sh", "json", "text", "toml", "ini", "yaml", "nginx", "haproxy"),
        *("apache", "caddy", "dockerfile", "toctree", "eval-rst", "include", "raw"),
    }
    for _, fence, language, _, test in _BLOCK.findall(path.read_text()):
        assert test or language in known, f"{name_of(path)}: a block is marked as {language!r}"
        assert fence or test


def test_no_code_hides_as_an_indented_paragraph() -> None:
    """A block without fences has no language, no colours, no button to copy it, and no test."""
    for path in (ROOT / "docs").rglob("*.md"):
        text = _BLOCK.sub(lambda found: re.sub(r"[^\n]+", "x", found[0]), path.read_text())
        for before, line in re.findall(r"^([^\n]*)\n(?: *\n)+ {4}(\S[^\n]*)$", text, re.MULTILINE):
            assert re.match(r" *([-*]|\d+\.) |  ", before), f"{name_of(path)}: {line}"


RUFF = [sys.executable, "-m", "ruff", "check", "--quiet", "--isolated"]


@pytest.mark.parametrize("path", WITH_CODE, ids=name_of)
def test_what_the_code_of_a_page_uses_is_on_the_page(path: Path) -> None:
    """A reader does not have what the comments with tests import and define."""
    pieces: list[str] = []
    programs: list[str] = []
    for language, text in blocks(path, "python"):
        if language == "python":
            alone = "asyncio.run(" in text or re.match(r"# [\w/]+\.py\b", text)
            (programs if alone else pieces).append(text)
    for source in ["\n".join(pieces), *programs]:
        done = subprocess.run(
            [*RUFF, "--select=F821", "--output-format=concise", "-"],
            input=source,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
@pytest.mark.parametrize("path", [path for path in PAGES if blocks(path, "javascript")], ids=name_of)
def test_javascript_can_be_parsed(path: Path) -> None:
    for _, text in [found for found in blocks(path, "javascript") if found[0] == "javascript"]:
        with tempfile.NamedTemporaryFile("w", suffix=".mjs") as file:
            file.write(text)
            file.flush()
            done = subprocess.run(["node", "--check", file.name], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def commands(path: Path) -> list[list[str]]:
    """Return the arguments of each `python -m wsfast` that a page names in its code."""
    found = []
    for line in re.findall(r"(?:python3?|-um?|-m) wsfast((?: [^\n`│|]+)?)", path.read_text()):
        words = shlex.split(line.split(" #")[0].split(" |")[0].split(" >")[0].split(" && ")[0].strip(), comments=False)
        if words and words[0] not in ("…", "..."):
            found.append(words)
    return found


@pytest.mark.parametrize("path", [p for p in PAGES if commands(p) and name_of(p) not in MEASUREMENTS], ids=name_of)
def test_commands_can_be_parsed(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser, names = _parser()
    for words in commands(path):
        if any("…" in word or word.isupper() for word in words):
            continue  # a placeholder
        given = words if words[0] in names or words[0] in ("--help", "--version") else ["connect", *words]
        with contextlib.suppress(SystemExit):
            parser.parse_args(given)
        assert capsys.readouterr().err == "", f"{name_of(path)}: {' '.join(words)}"


_BEGINS = """
import importlib, importlib.util, pathlib, sys
path, folders = [*sys.path], tuple(str(pathlib.Path(name).resolve()) for name in ("tests", "benchmarks"))
for name in sys.argv[1:]:
    sys.path[:] = path  # as at the start of `python -m`, which knows the project's folder and no other
    for known, module in [*sys.modules.items()]:
        if (getattr(module, "__file__", None) or "").startswith(folders):
            del sys.modules[known]
    main = f"{name}.__main__"
    importlib.import_module(main if importlib.util.find_spec(name).submodule_search_locations else name)
"""


def test_commands_of_the_tests_and_benchmarks_begin() -> None:
    """Pytest finds what is beside a test; a command finds it only where the module adds the folder first."""
    pages = [*LINKED, *ROOT.glob("tests/**/*.py")]
    found = {name for page in pages for name in re.findall(r"python -m ((?:tests|benchmarks)\.\w+)", page.read_text())}
    assert len(found) > 15
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environ["PYTHONPATH"] = str(Path(wsfast.__file__).parent.parent)
    command = [sys.executable, "-c", _BEGINS, *sorted(found)]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- Links ---------------------------------------------------------------------------------------------------

LINKED = sorted({*PAGES, *ROOT.glob("*.md"), *(ROOT / "tests").rglob("README.md"), ROOT / "benchmarks" / "README.md"})


def prose(path: Path) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^(`{3,}).*?^\1", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """Return the names by which the headings of a page can be linked to."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", LINKED, ids=name_of)
def test_links_within_the_repository_lead_somewhere(path: Path) -> None:
    """Also where Sphinx does not look: README and its like, as they are read in the repository."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if re.match(r"[a-z]+:", target):
            continue  # another site's: `python -m docs --links` looks it up
        file, _, anchor = target.partition("#")
        found = (path.parent / file) if file else path
        assert found.exists(), target
        if anchor and found.suffix == ".md":
            assert anchor in anchors(found), target


def test_files_that_the_design_names_are_there() -> None:
    there = {
        each.relative_to(ROOT).as_posix()
        for folder in ("src", "tests", "benchmarks", "docs", "examples", ".ci", ".github")
        for each in (ROOT / folder).rglob("*")
    }
    named = re.findall(r"`([\w./-]+\.(?:py|pyi|pyx|pxd|h|c|md|json|yml))`", (ROOT / "docs" / "design.md").read_text())
    assert {path.name for path in (ROOT / "src").rglob("*.pyi")} <= set(named), "all twins"
    for name in named:
        assert any(f"/{each}".endswith(f"/{name}") for each in {*there, *os.listdir(ROOT)}), name


# --- The site -----------------------------------------------------------------------------------------------


REFERENCE = "\n".join(path.read_text() for path in (ROOT / "docs" / "reference").glob("*.md"))
PUBLIC = ["wsfast", "wsfast.sync", "wsfast.trio", "wsfast.testing", "wsfast.metrics", "wsfast.uvicorn", "wsfast.bus"]
PUBLIC += ["wsfast.handshake"]


@pytest.mark.parametrize("module", PUBLIC)
def test_the_reference_has_every_public_name(module: str) -> None:
    names = set(importlib.import_module(module).__all__) - {"__version__", "Side"}
    if module in ("wsfast.bus", "wsfast.handshake"):
        names -= {*wsfast.__all__, "Origins"}  # they are there by that name, and `Origins` is only an annotation
    found = set(re.findall(rf"^\.\. (?:auto\w+|py:data):: {re.escape(module)}\.(\w+)$", REFERENCE, re.MULTILINE))
    assert names <= found, f"not in docs/reference/: {sorted(names - found)}"


def test_the_reference_has_nothing_else() -> None:
    for what in re.findall(r"^\.\. auto(?!module)\w+:: (\S+)$", REFERENCE, re.MULTILINE):
        module, _, name = what.rpartition(".")
        assert name in importlib.import_module(module).__all__, what


def referred_to() -> Iterator[tuple[str, Any]]:
    """Return the calls of the reference, each with its name: functions, classes, and the methods that it shows."""
    for what, options in re.findall(r"^\.\. auto(?:class|function):: (\S+)\n((?: +:.*\n)*)", REFERENCE, re.MULTILINE):
        module, _, name = what.rpartition(".")
        call = getattr(importlib.import_module(module), name)
        yield what, call
        if not isinstance(call, type) or ":no-members:" in options:
            continue
        shown = re.search(r":members: (.+)", options)
        for each in shown[1].split(", ") if shown else [*vars(call)]:
            method = inspect.getattr_static(call, each)
            if not each.startswith("_") and not isinstance(method, property) and callable(getattr(call, each)):
                yield f"{what}.{each}", getattr(call, each)


REFERRED_TO = dict(referred_to())
_OF_ARGS = re.compile(r"^    ((?:\*{0,2}\w+(?:, )?)+): (.*(?:\n {8}.*)*)", re.MULTILINE)


@pytest.mark.parametrize("name", REFERRED_TO)
def test_every_option_tells_its_default(name: str) -> None:
    """The reference is made of the docstrings: each argument that one explains is there with its default."""
    call = REFERRED_TO[name]
    text = inspect.getdoc(call) or ""
    assert text, "has no docstring"
    told = {}
    for names, what in _OF_ARGS.findall(re.split(r"\n(?=\S)", text.partition("Args:\n")[2])[0]):
        told.update(dict.fromkeys(re.findall(r"\w+", names), what))
    try:
        parameters = inspect.signature(call).parameters.values()
    except ValueError:  # of another package's type in C
        return
    optional = {each.name for each in parameters if each.default is not each.empty} - {"task_status"}
    if told and not isinstance(call, type(enum.Enum)):
        assert optional - set(told) == set(), "without a word of explanation"
    silent = {each for each in optional & set(told) if not re.search(r"[Dd]efault|\bthose of\b|\bsee\b", told[each])}
    assert silent == set()


def test_the_faq_has_what_it_promises() -> None:
    questions = re.findall(r"^### (.+)$", (ROOT / "docs" / "faq.md").read_text(), re.MULTILINE)
    assert len(questions) >= 30
    assert len(set(questions)) == len(questions)
    assert all(question.endswith("?") for question in questions)


@pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="needs Sphinx: pip install -e '.[docs]'")
def test_it_builds_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "docs", str(tmp_path / "site")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    site = tmp_path / "site"
    assert json.dumps(wsfast.__version__)[1:-1] in (site / "index.html").read_text()
    assert "ping_interval" in (site / "reference" / "client.html").read_text()
    server = (site / "reference" / "server.html").read_text()
    assert "The listening sockets, of all addresses: <code" in server, "not taken for the property's type"
    assert 'role="heading" aria-level="2"' in server
    for page in (site / "reference").glob("*.html"):
        for filler in ("Alias for field number", "str(object="):  # what Python says of a thing without a docstring
            assert filler not in page.read_text(), page


# --- The figures --------------------------------------------------------------------------------------------


def test_a_run_of_all_scenarios_measures_every_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.compare.scenarios import SCENARIOS, TARGETS

    peers = {scenario.name: set(scenario.peers) for scenario in SCENARIOS.values()}
    for target in TARGETS:
        assert {target.ours, *target.peers} <= peers[target.scenario], target


def test_the_figures_of_readme_and_docs_are_written_by_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.compare.publish import PUBLISHED, SERVERS, missing, publish
    from benchmarks.compare.results import Results

    meta: dict[str, Any] = {
        "command": "python -m benchmarks.compare --publish",
        "machine": "a machine",
        "date": "2026-11-28",
    }
    meta |= {"commit": "abc", "load": "0.1", "rounds": 3, "seconds": 1.0, "notes": []}
    meta |= {"versions": {"Python": "3.11.7", "wsfast": "0.1.0", "aiohttp": "3.14.5"}}
    figure: dict[str, float] = {"cpu_us": 1.25, "per_cpu_s": 4512.0}
    results = Results(meta, {}, {name: {server: [figure] * 3 for server in SERVERS} for name in PUBLISHED})
    results.records["pingpong-4k"] = {"raw/uvloop": [figure]}
    assert missing(results) == []
    (tmp_path / "docs" / "figures").mkdir(parents=True)
    readme = tmp_path / "README.md"
    readme.write_text((ROOT / "README.md").read_text())
    drawn = {}
    written = publish(results, tmp_path, lambda shown, path: drawn.update({path.name: set(shown.records)}))
    assert {path.relative_to(tmp_path).as_posix() for path in written} == {
        *("README.md", "docs/comparison.md", "docs/comparison.png", "docs/figures/peers.svg")
    }
    assert drawn == {"peers.svg": set(PUBLISHED), "comparison.png": {*PUBLISHED, "pingpong-4k"}}
    once = readme.read_text()
    assert "| echo of 64 B, 100 connections | 1.2 µs | 1.2 µs | 1.2 µs | 1.2 µs |" in once
    assert "| handshakes in a second of CPU time | 4,512 | 4,512 | 4,512 | 4,512 |" in once
    assert once.count("docs/figures/peers.svg") == 1
    assert "Python 3.11.7, wsfast 0.1.0, aiohttp 3.14.5." in once
    assert once.endswith((ROOT / "README.md").read_text().partition("<!-- end of figures -->")[2])
    publish(results, tmp_path, lambda shown, path: None)
    assert readme.read_text() == once
    assert "### pingpong-4k" in (tmp_path / "docs" / "comparison.md").read_text()
    del results.records["handshake"]
    assert missing(results) == [f"handshake of {server}" for server in SERVERS]
    readme.write_text("no place")
    with pytest.raises(ValueError, match=r"README\.md has no"):
        publish(results, tmp_path, lambda shown, path: None)
