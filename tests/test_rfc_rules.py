"""Each rule of an RFC that the code quotes is one whose tests can be found: ``pytest -k 7.1.7``."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import SECTION

TESTS = Path(__file__).parent
SOURCES = TESTS.parent / "src" / "wsfast"
_ID = re.compile(r"(?:\d{1,2}(?:\.\d{1,2}){1,3}[ -])+(?:\d{1,2}(?:\.\d{1,2})*[ -])*")


def quoted_rules(text: str) -> set[str]:
    """Return the sections that comments with a MUST name; sections of one number are too short to be looked for."""
    found: set[str] = set()
    for block in re.findall(r"(?:^[ \t]*#.*\n)+", text, re.MULTILINE):
        for rule in re.split(r"(?=RFC \d{4})", re.sub(r"\s*\n\s*# ?", " ", block)):
            if "MUST" in rule:
                found.update(SECTION.findall(rule))
    return found


def sections_with_tests() -> Iterator[str]:
    """Yield the sections by which `pytest -k` finds tests: from docstrings, as `conftest` does, and from ids."""
    for path in TESTS.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) or (
                isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test")
            ):
                doc = ast.get_docstring(node) or ""
                if "RFC" in doc:
                    yield from SECTION.findall(doc)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                beginning = _ID.match(node.value + " ")
                if beginning is not None:
                    yield from SECTION.findall(beginning[0])


def test_every_quoted_rule_has_tests_that_name_its_section() -> None:
    quoted = {
        (path.relative_to(SOURCES).as_posix(), section)
        for path in SOURCES.rglob("*")
        if path.suffix in (".py", ".pyx", ".pxd", ".pxi", ".h")
        for section in quoted_rules(path.read_text())
    }
    assert len({section for _, section in quoted}) > 15
    tested = set(sections_with_tests())
    missing = sorted((section, file) for file, section in quoted if section not in tested)
    assert not missing, "name the section in the docstring, or the id, of a test that proves the rule"


@pytest.mark.parametrize(
    ("text", "sections"),
    [
        ('    # RFC 6455, 7.1.7: it\n    # "MUST NOT" go on\n', {"7.1.7"}),
        ('# RFC 6455, 4.2.1 is a hint. RFC 9110, 7.8: "MUST"\n', {"7.8"}),
        ("x = 1  # RFC 6455, 7.1.7\n# MUST, 1.25 of nothing\n", {"1.25"}),
        ("# RFC 6455, 7.1.7: no duty\n", set()),
    ],
)
def test_what_counts_as_a_quoted_rule(text: str, sections: set[str]) -> None:
    assert quoted_rules(text) == sections
