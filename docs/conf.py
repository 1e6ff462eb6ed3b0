"""Settings of Sphinx for these pages: `make docs` builds them without a network and fails on a warning.

Pages are Markdown that GitHub shows, too. What only the built pages have is added as a page is read: the references that
follow from the code (`generated.py`), and links to files of the repository, which are taken along.
"""

import re
import sys
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.insert(0, str(DOCS))
sys.path.insert(0, str(ROOT / "src"))

import generated  # noqa: E402

from hf_maskssl.version import __version__  # noqa: E402

project = "hf_maskssl"
author = "The hf_maskssl authors"
copyright = "the hf_maskssl authors, Apache-2.0"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
exclude_patterns = ["_build"]
# Some pages begin with a part of another file, whose headings go on where that file's title stood.
suppress_warnings = ["myst.header"]

html_theme = "furo"
html_title = f"hf_maskssl {release}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False
templates_path: list[str] = []

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False  # transformers' are written for its own pages
autodoc_class_signature = "mixed"
napoleon_use_ivar = True
default_role = "code"
copybutton_exclude = ".linenos, .gp, .go"

MARKER = re.compile(r"^<!-- generated:(\w+) -->$", re.MULTILINE)
ANCHOR = re.compile(r'^<a id="([\w-]+)"></a>$', re.MULTILINE)
LINK = re.compile(r"(?<!!)\[([^\]\n]+)\]\((\.\.?/[^)#\s]+)\)")


def read_page(app: Sphinx, name: str, source: list[str]) -> None:
    """Fill in what is generated, and make of a page as GitHub reads it one that Sphinx does."""
    text = MARKER.sub(lambda found: generated.PARTS[found[1]](), source[0])
    text = ANCHOR.sub(r"(\1)=", text)
    here = (DOCS / name).parent
    source[0] = LINK.sub(lambda found: _link(found, here), text)


def _link(found: re.Match[str], here: Path) -> str:
    """A link to a page as it is, to another file as a download, to a folder of the repository as its name."""
    path = (here / found[2]).resolve()
    is_page = path.suffix == ".md" and path.is_relative_to(DOCS)
    if is_page or not path.is_relative_to(ROOT):
        return found[0]
    if path.is_dir():
        return f"`{path.relative_to(ROOT)}/`"
    return f"{{download}}`{found[1].strip('`')} <{found[2]}>`"


def inline_math(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def display_math(translator: HTML5Translator, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Formulas become MathML, which browsers draw by themselves: a page loads nothing."""
    app.add_html_math_renderer("mathml", (inline_math, None), (display_math, None))
    app.connect("source-read", read_page)
