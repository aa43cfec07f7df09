"""Build the documentation: `python -m docs [DIRECTORY] [--links]`, from the root of the checkout.

Warnings are errors, so that a link that leads nowhere, or a docstring that cannot be read, fails. `--links` looks up
the links to other sites instead, which takes the network. The pages are put into build/docs/, unless another directory
is named.
"""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Build, and say where the first page is."""
    parser = argparse.ArgumentParser(prog="python -m docs", description="Build the documentation.")
    parser.add_argument("directory", nargs="?", default=HERE.parent / "build" / "docs", help="default: build/docs")
    parser.add_argument("--links", action="store_true", help="check the links to other sites instead")
    options = parser.parse_args()
    try:
        from sphinx.cmd.build import main as build
    except ImportError:
        print("Sphinx is not installed: pip install -e '.[docs]'", file=sys.stderr)
        return 1
    kind = "linkcheck" if options.links else "html"
    # Doctrees do not go where the pages are: what is in that directory is what is published.
    trees = HERE.parent / "build" / "doctrees"
    arguments = [
        "-q",
        "-E",
        "-W",
        "--keep-going",
        "-b",
        kind,
        "-d",
        trees,
        HERE,
        Path(options.directory) / ("." if kind == "html" else "links"),
    ]
    status = build([str(argument) for argument in arguments])
    if not status:
        print(f"built: {Path(options.directory) / 'index.html'}" if kind == "html" else "the links are good")
    return status


if __name__ == "__main__":
    sys.exit(main())
