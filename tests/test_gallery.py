"""The gallery shows every figure, with pictures that are there and code that can be run."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import spahgc as sp

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "gallery.md"
PICTURES = ROOT / "docs" / "_static" / "gallery"
MOST_BYTES = 3_000_000
"""Of all pictures together: they travel with every checkout."""


def _gallery() -> Any:
    """The script that draws the pictures."""
    path = ROOT / "docs" / "_figures" / "gallery.py"
    spec = importlib.util.spec_from_file_location("gallery_figures", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["gallery_figures"] = module
    spec.loader.exec_module(module)
    return module


gallery = _gallery()
PARTS = gallery.parts(PAGE.read_text(encoding="utf-8"))


def called(code: str) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)}


def test_every_figure_function_is_in_the_gallery() -> None:
    shown = set().union(*(called(part.code) for part in PARTS))
    assert {f"sp.pl.{name}" for name in sp.pl.__all__} <= shown


def test_every_block_after_the_first_has_a_picture() -> None:
    assert PARTS[0].picture is None
    assert all(part.picture for part in PARTS[1:])
    assert len({part.picture for part in PARTS[1:]}) == len(PARTS) - 1 >= len(sp.pl.__all__)


def test_pictures_are_there_and_no_others() -> None:
    assert {path.name for path in PICTURES.iterdir()} == {part.picture for part in PARTS[1:]}


def test_pictures_are_small_png_files_with_something_on_them() -> None:
    paths = sorted(PICTURES.iterdir())
    assert sum(path.stat().st_size for path in paths) < MOST_BYTES
    for path in paths:
        with Image.open(path) as picture:
            assert picture.format == "PNG" and min(picture.size) > 150, path.name
            assert len(picture.convert("RGB").getcolors(maxcolors=picture.width * picture.height)) > 5, path.name


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.picture or "slides")
def test_the_code_compiles_and_names_what_the_package_has(part: Any) -> None:
    compile(part.code, PAGE.name, "exec")
    for name in called(part.code):
        first, *rest = name.split(".")
        if first == "sp":
            assert callable(reduce(getattr, rest, sp)), name


def test_names_of_a_block_are_made_by_those_before_it() -> None:
    known = {"sp"}
    for part in PARTS:
        tree = ast.parse(part.code)
        names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
        made = {node.id for node in names if isinstance(node.ctx, ast.Store)}
        made |= {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        builtins = set(vars(__import__("builtins")))
        assert {node.id for node in names} <= known | made | builtins, part.picture
        known |= made


def test_every_picture_says_what_is_seen_on_it() -> None:
    blocks = re.findall(r"^```\{figure\} .*?\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == len(PARTS) - 1
    assert all(re.search(r"^:alt: \S.{15,}$", block, re.MULTILINE) for block in blocks)


def test_a_picture_belongs_to_the_block_below_it() -> None:
    text = "```python\na = 1\n```\n\n```{figure} _static/gallery/one.png\n:alt: one\n```\n\n```bash\nls\n```\n\n```python\nb\n```\n"
    assert gallery.parts(text) == [("a = 1\n", None), ("b\n", "one.png")]


def test_made_up_slides_have_the_genes_that_the_page_draws() -> None:
    genes = gallery.genes_of(PARTS[1:])
    assert "ERBB2" in genes
    slide = gallery.made_up_slide("made up", 50, genes, 0)
    assert set(genes) <= set(slide.var_names) and slide.n_obs == 50
    assert slide.X.sum() > 0 and "cluster" in slide.obs


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_gallery_is_linked(page: str) -> None:
    assert "gallery" in (ROOT / page).read_text(encoding="utf-8")
