"""The documentation site: `make docs` builds it into build/docs, and stops at the first warning."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parents[1]))

project = "gankernels"
author = "the gankernels authors"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["results"]

html_theme = "furo"
html_title = "gankernels"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_math_renderer = "mathml"

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the notebook is committed as it was executed

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signature has them, the docstring says what they mean
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_preserve_defaults = True
napoleon_use_rtype = False
napoleon_use_ivar = True


def _mathml(tex: str, display: str) -> str:
    return convert(tex.replace(r"\log ", r"\log\, "), display=display)  # it sets log p as logp


def _inline(self: Any, node: nodes.math) -> None:
    self.body.append(_mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def _display(self: Any, node: nodes.math_block) -> None:
    self.body.append(f'<div class="math">{_mathml(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def _without_links_outside(_app: Sphinx, _name: str, source: list[str]) -> None:
    """Links to files of the repository that are no pages: their text alone."""
    source[0] = re.sub(r"\[([^\]]+)\]\(\.\./[^)]+\)", r"\1", source[0])


def setup(app: Sphinx) -> None:
    app.connect("source-read", _without_links_outside)
    # MathML needs no script and no network; every current browser sets it.
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))
