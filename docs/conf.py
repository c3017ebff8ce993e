"""Configuration of the Sphinx build: ``sphinx-build -W --keep-going -b html docs docs/_build/html``."""

import builtins
import os
import shutil
import sys
from importlib.metadata import metadata
from pathlib import Path

from sphinx.util.nodes import make_refnode

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
    "sphinx-mathjax-offline",
    "sphinx.ext.napoleon",
    "sphinx_autodoc_typehints",
    "sphinx_copybutton",
    "cli_reference",
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
# be published sets SPAHGC_DOCS_ONLINE=1 and gets the links.
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

# Every reference to a name of this package must have a target; names of others have one online only. What stands below is
# all that may stay a plain name.
nitpicky = True
nitpick_ignore = [
    # The type of an attribute that is described, and is not itself for users.
    ("py:class", "spahgc.encoders._layout.Levels"),
]
nitpick_ignore_regex = [
    # Other packages: links where their inventory is loaded, and plain names where it is not.
    (
        "py:.*",
        r"(PIL|anndata|collections|dask|distributed|geopandas|matplotlib|numpy|os|pandas|pathlib|pooch|scanpy|scipy|spatialdata"
        r"|squidpy|torch|torch_geometric|tqdm|typing|xarray)(\..*)?",
    ),
    # Names of the language itself: types, and the errors of a Raises section.
    ("py:.*", rf"({'|'.join(vars(builtins))})"),
]

# Notebooks are shown with the output they were saved with: a build must not train a model.
nb_execution_mode = "off"
myst_enable_extensions = ["amsmath", "attrs_block", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# The first suffix is the one that autosummary gives the pages it writes, and it writes reStructuredText.
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb", ".ipynb": "myst-nb"}

html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_css_files = ["tables.css", "pages.css"]
html_title = project
html_theme_options = {
    "navbar_persistent": [],  # the sidebar has the search
    "path_to_docs": "docs/",
    "repository_branch": "main",
    "repository_url": "https://github.com/spahgc/spahgc",
    "use_issues_button": True,
    "use_repository_button": True,
}


def _drop_lone_colon(app, label, name, obj, options, lines):
    """Take back the ":" by which sphinx_autodoc_typehints keeps napoleon from reading types into a Returns section."""
    for place, line in enumerate(lines[:-2]):
        if line == "Returns" and set(lines[place + 1].strip()) == {"-"} and lines[place + 2] == ":":
            del lines[place + 2]
            return


class _AsWritten:
    """Keeps the docstrings of attributes from napoleon, which takes what stands before their first colon for a type."""

    def __init__(self):
        self.lines = None

    def take(self, app, label, name, obj, options, lines):
        sections = any(line and set(line) == {"-"} for line in map(str.strip, lines))
        if label in {"attribute", "property"} and not sections:
            self.lines, lines[:] = list(lines), []

    def give_back(self, app, label, name, obj, options, lines):
        if self.lines is not None:
            self.lines, lines[:] = None, self.lines


def _neighbour(app, env, node, contnode):
    """Find what a docstring calls by its last name, where a page shows its first sentence outside of its module."""
    name, python = node.get("reftarget"), env.get_domain("py")
    if node.get("refdomain") != "py" or "." in name:
        return None
    found = [full for full in python.objects if full.startswith("spahgc.") and full.endswith(f".{name}")]
    if len(found) != 1:
        return None
    place = python.objects[found[0]]
    return make_refnode(app.builder, node["refdoc"], place.docname, place.node_id, contnode, found[0])


def _copy_tutorials(app):
    """Bring the notebooks, which stand beside the sources, to where Sphinx looks for pages; git ignores the copies."""
    folder = Path(app.srcdir) / "tutorials"
    for old in folder.glob("*.ipynb"):
        old.unlink()
    for path in (Path(app.srcdir).parent / "tutorials").glob("*.ipynb"):
        shutil.copy2(path, folder)


def setup(app):
    app.connect("builder-inited", _copy_tutorials)
    # Before and after napoleon, which is connected at 500.
    attributes = _AsWritten()
    app.connect("autodoc-process-docstring", attributes.take, priority=498)
    app.connect("autodoc-process-docstring", attributes.give_back, priority=501)
    app.connect("missing-reference", _neighbour)
    # Connected after the extension at the same priority, so it runs after it and before napoleon (500).
    app.connect("autodoc-process-docstring", _drop_lone_colon, priority=499)
