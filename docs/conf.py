"""Configuration of the Sphinx build: ``sphinx-build -W --keep-going -b html docs docs/_build/html``."""

import os
import sys
from importlib.metadata import metadata
from pathlib import Path

# Extensions of these pages.
sys.path.insert(0, str(Path(__file__).parent / "_ext"))

info = metadata("spahgc")
project = "spahgc"
author = "the spahgc developers"
copyright = f"2026, {author}"
version = release = info["Version"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_autodoc_typehints",
    "sphinx_copybutton",
    "cohort_table",
    "encoder_table",
]

templates_path = ["_templates"]
exclude_patterns = ["_build", "Thumbs.db", ".DS_Store", "**.ipynb_checkpoints"]
# autosummary writes a page per object into generated/; the pages are not kept in the repository.
autosummary_generate = True
autodoc_member_order = "bysource"
default_role = "literal"

napoleon_google_docstring = False
napoleon_numpy_docstring = True
napoleon_use_param = True
# A "Returns" section holds sentences and lists, not one entry a value: its type comes from the signature.
napoleon_custom_sections = ["Returns"]
# Attributes become fields of the class; as objects of their own they would be described a second time by :members:.
napoleon_use_ivar = True

# Types and defaults stand in the signatures only, so that the docstrings cannot contradict them.
typehints_defaults = "braces"
typehints_document_rtype = False  # the signature says it
always_use_bars_union = True
suppress_warnings = [
    # Imports that stand under TYPE_CHECKING in other packages may need what is not installed here; the type is then
    # printed by its name. Neither is a fault in these pages.
    "sphinx_autodoc_typehints.forward_reference",
    "sphinx_autodoc_typehints.guarded_import",
]

# Intersphinx fetches an inventory from every project named here. Without a network each failed fetch is a warning, and
# -W turns it into an error. So a plain build links nothing outside itself and passes offline; a build that is going to
# be published sets SPAHGC_DOCS_ONLINE=1 and gets the links. References that stay unresolved are printed as plain names
# in both cases, which is also why the build does not run with nitpicky = True.
online = os.environ.get("SPAHGC_DOCS_ONLINE", "") not in {"", "0"}
intersphinx_timeout = 30
intersphinx_mapping = (
    {
        "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
        "matplotlib": ("https://matplotlib.org/stable/", None),
        "numpy": ("https://numpy.org/doc/stable/", None),
        "pandas": ("https://pandas.pydata.org/docs/", None),
        "python": ("https://docs.python.org/3/", None),
        "scanpy": ("https://scanpy.readthedocs.io/en/stable/", None),
        "scipy": ("https://docs.scipy.org/doc/scipy/", None),
        "squidpy": ("https://squidpy.readthedocs.io/en/stable/", None),
        "torch": ("https://docs.pytorch.org/docs/stable/", None),
    }
    if online
    else {}
)

# Notebooks are shown with the output they were saved with: a build must not train a model.
nb_execution_mode = "off"
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# The first suffix is the one that autosummary gives the pages it writes, and it writes reStructuredText.
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb", ".ipynb": "myst-nb"}

html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_title = project
html_theme_options = {
    "path_to_docs": "docs/",
    "repository_branch": "main",
    "repository_url": "https://github.com/spahgc/spahgc",
    "use_issues_button": True,
    "use_repository_button": True,
}


def _drop_lone_colon(app, what, name, obj, options, lines):
    """Take back the ":" by which sphinx_autodoc_typehints keeps napoleon from reading types into a Returns section."""
    for place, line in enumerate(lines[:-2]):
        if line == "Returns" and set(lines[place + 1].strip()) == {"-"} and lines[place + 2] == ":":
            del lines[place + 2]
            return


def setup(app):
    # Connected after the extension at the same priority, so it runs after it and before napoleon (500).
    app.connect("autodoc-process-docstring", _drop_lone_colon, priority=499)
