"""Sphinx' configuration; `python -m docs` builds the site.

Sphinx generates the reference from the docstrings, MyST lets pages be Markdown that also reads well in a repository's
browser, and furo works on phones, in the dark and without JavaScript.
"""

import os
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))
# The Python twins have the same names and texts as the extensions, and signatures that can be read.
os.environ["WSFAST_PURE_PYTHON"] = "1"

import sphinx.ext.napoleon  # noqa: E402
from pygments.lexers.special import TextLexer  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402
from sphinx.highlighting import lexers  # noqa: E402

import wsfast  # noqa: E402

project = "wsfast"
author = "The wsfast developers"
copyright = "the wsfast developers, Apache-2.0"  # noqa: A001
version = release = wsfast.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
templates_path = ["_templates"]
exclude_patterns = ["_build", "__main__.py"]
nitpicky = False
default_role = "py:obj"
# A name such as WebSocket has two homes, and a docstring means the one of its own module.
suppress_warnings = ["ref.python"]

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 4

autodoc_member_order = "groupwise"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Attributes", "params_style")]
python_maximum_signature_line_length = 88

# Pygments does not know it; such a block has no colours.
lexers["haproxy"] = TextLexer()

html_theme = "furo"
html_title = f"wsfast {version}"
html_static_path = ["_static"]
html_css_files = ["wsfast.css"]
html_js_files = ["wsfast.js"]
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b6e4f", "color-brand-content": "#0b6e4f"},
    "dark_css_variables": {"color-brand-primary": "#4cc38a", "color-brand-content": "#4cc38a"},
}
html_show_sourcelink = False
copybutton_exclude = ".linenos, .gp, .go"
copybutton_prompt_text = "$ "


class _Docstring(sphinx.ext.napoleon.GoogleDocstring):
    """A property's docstring is read like a method's: else what stands before a colon would be taken for its type."""

    def __init__(self, docstring: Any, config: Any = None, app: Any = None, what: str = "", *rest: Any) -> None:
        super().__init__(docstring, config, app, "method" if what in ("attribute", "property") else what, *rest)


sphinx.ext.napoleon.GoogleDocstring = _Docstring  # type: ignore[misc]


def _mend_navigation(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Give the headings of the navigation a level, which a screen reader tells, and furo leaves out."""
    tree = context.get("furo_navigation_tree", "")
    context["furo_navigation_tree"] = tree.replace('role="heading"', 'role="heading" aria-level="2"')


def _mend_markup(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Mend what a screen reader would stumble over: an empty header of a table, and a list whose terms are missing."""
    body = re.sub(r"<th [^>]*>(?:<p></p>)?</th>", "<td></td>", context.get("body", ""))
    context["body"] = re.sub(r'<dt class="sig .*?</dt>', _mend_signature, body, flags=re.DOTALL)


def _mend_signature(found: re.Match[str]) -> str:
    """Sphinx makes each parameter a definition of nothing."""
    text = found[0].replace("<dl>", '<div class="sig-parameters">').replace("</dl>", "</div>")
    return text.replace("<dd>", "<div>").replace("</dd>", "</div>")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("html-page-context", _mend_navigation, priority=900)
    app.connect("html-page-context", _mend_markup)


linkcheck_timeout = 20
linkcheck_ignore = [r"https?://(127\.0\.0\.1|localhost|example\.com|chat\.example\.com)"]
