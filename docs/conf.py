"""How Sphinx makes the site; `make docs` runs it. Nothing here needs a network."""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from docs.extensions import pages  # noqa: E402
from fedjax_mrl import __version__  # noqa: E402

project = "fedjax_mrl"
author = "the authors of fedjax_mrl"
project_copyright = "the authors of fedjax_mrl, Apache-2.0"
release = version = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # notebooks are run by a test, not while pages are made
exclude_patterns = ["generated/README.md"]

# Docstrings are written for readers of the source: backticks are code.
default_role = "code"
smartquotes_action = "D"  # quotes stay as they are
toc_object_entries = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_use_ivar = True
python_use_unqualified_type_names = True

html_theme = "sphinx_book_theme"
html_title = "fedjax_mrl"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_toc_level": 2,
    "navbar_persistent": [],
}


def setup(app: object) -> None:
    """Writes the pages that follow from the code, before pages are looked for."""
    app.connect("builder-inited", lambda _: pages.write())  # type: ignore[attr-defined]
