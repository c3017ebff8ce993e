"""The reference is complete: every public name, and every key that a run writes."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
from anndata import AnnData

import spahgc as sp

ROOT = Path(__file__).parents[1]
API = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
LISTED = set(re.findall(r"^   ((?:\w+\.)?\w+)$", API, re.MULTILINE))
"""Lines of the tables of functions, below the package."""
README = (ROOT / "README.md").read_text(encoding="utf-8")
TABLE = README.partition("<!-- keys-table -->")[2].partition("<!-- /keys-table -->")[0]
MODULES = sorted(sp._MODULES)


def public_names() -> set[str]:
    top = set(sp.__all__) - set(MODULES) - {"__version__"}
    return top | {f"{name}.{each}" for name in MODULES for each in import_module(f"spahgc.{name}").__all__}


def test_every_public_name_stands_in_the_reference() -> None:
    assert not public_names() - LISTED


def test_the_reference_lists_nothing_that_is_not_public() -> None:
    assert not LISTED - public_names()


@pytest.mark.parametrize("name", MODULES)
def test_every_public_module_can_be_linked_to(name: str) -> None:
    assert f".. py:module:: spahgc.{name}\n" in API


def test_the_page_of_keys_shows_the_table_of_the_readme() -> None:
    page = (ROOT / "docs" / "reference" / "keys.md").read_text(encoding="utf-8")
    assert ':start-after: "<!-- keys-table -->"' in page and ':end-before: "<!-- /keys-table -->"' in page
    assert README.count("<!-- keys-table -->") == README.count("<!-- /keys-table -->") == 1
    assert "| operation | key | shape and units |" in TABLE


def keys_of(slide: AnnData) -> set[str]:
    """What is written in a slide, as the table names it."""
    written = {f'{part}["{key}"]' for part in ("layers", "obsm", "obsp") for key in getattr(slide, part)}
    written |= {f'obs["{key}"]' for key in slide.obs} | {f'var["{key}"]' for key in slide.var}
    for entry, value in slide.uns.get("spahgc", {}).items():
        keys = value if entry in {"predictions", "evaluations", "domains", "embeddings", "patch_um"} else ()
        written |= {f'uns["spahgc"]["{entry}"]["{key}"]' for key in keys} or {f'uns["spahgc"]["{entry}"]'}
    return {re.sub(r"X_[a-z]\w*", "X_<encoder>", key) for key in written}


def test_every_key_that_a_run_writes_stands_in_the_table(
    target: AnnData, refs: list[AnnData], quick_default: sp.Parameters
) -> None:
    before = keys_of(target)
    sp.pp.spatial_graph(target)
    sp.tl.predict(target, refs, preset=quick_default)
    sp.tl.evaluate(target)
    sp.tl.domains(target, n_domains=2)
    written = keys_of(target) - before
    assert {'layers["spahgc"]', 'obs["spahgc_support"]', 'var["spahgc_cv_pcc"]', 'obs["spahgc_domain"]'} <= written
    assert not {key for key in written if f"`{key}`" not in TABLE}
