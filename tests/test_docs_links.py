"""No page of the documentation points to what is not there, and every page can be reached."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest


def _docs_pages() -> Any:
    """The helper beside this file; pytest's import mode does not put the folder on the path."""
    spec = importlib.util.spec_from_file_location("docs_pages", Path(__file__).with_name("docs_pages.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["docs_pages"] = module
    spec.loader.exec_module(module)
    return module


docs = _docs_pages()

LINK = re.compile(r"!?\[[^\]\[]*(?:\[[^\]]*\][^\]\[]*)?\]\(<?([^)\s>]+)>?(?: \"[^\"]*\")?\)")
ROLE = re.compile(r"\{doc\}`(?:[^`<]*<)?([^`<>]+)>?`")
OPTION = re.compile(r"^:file: +(\S+)$|^```\{(?:image|figure|include|literalinclude)\} +(\S+)$", re.MULTILINE)
COPIED = docs.DOCS / "tutorials"
"""The folder into which a build copies the notebooks."""
TOCTREE = re.compile(r"^```\{toctree\}\n(.*?)^```", re.MULTILINE | re.DOTALL)


def linked(page: Path) -> list[str]:
    """Relative links of a page, roles and files of directives included, as ``path#anchor`` from its folder."""
    prose = docs.prose_of(page)
    prose = re.sub(r"`[^`\n]+`", lambda code: code[0] if prose[: code.start()].endswith("{doc}") else "", prose)
    links = [target for target in LINK.findall(prose) if not re.match(r"[a-z]+:", target)]
    links += [f"{target}.md" for target in ROLE.findall(prose)]
    return links + [first or second for first, second in OPTION.findall(docs.text_of(page))]


def dead(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = page if not path else (docs.DOCS / path[1:] if path.startswith("/") else page.parent / path).resolve()
    if target.parent == COPIED and not target.exists():
        target = docs.ROOT / "tutorials" / target.name
    if not target.exists():
        return True
    return bool(anchor) and target.suffix == ".md" and anchor not in docs.anchors_of(target)


@pytest.mark.parametrize("page", docs.PAGES, ids=docs.name_of)
def test_no_link_of_a_page_is_dead(page: Path) -> None:
    assert not [link for link in linked(page) if dead(page, link)]


def test_links_are_found_and_dead_ones_are_noticed() -> None:
    """Rules that find nothing would pass everything above."""
    concepts = docs.DOCS / "concepts" / "graph.md"
    assert "masks.md" in linked(concepts)
    assert "../_static/graph.svg" in linked(concepts)
    assert any(not link.endswith(".md") for link in linked(docs.ROOT / "README.md"))
    assert dead(concepts, "no_such_page.md")
    assert dead(concepts, "masks.md#no-such-heading")
    assert not dead(concepts, "masks.md#two-masked-views")
    assert not dead(concepts, "/tutorials/01_quick_start.md")
    assert dead(concepts, "/tutorials/no_such_notebook.md")


def test_every_page_stands_in_a_table_of_contents() -> None:
    listed = set()
    for page in docs.PAGES:
        for block in TOCTREE.findall(docs.text_of(page)):
            entries = [line.strip() for line in block.splitlines() if line.strip() and not line.startswith(":")]
            listed |= {(page.parent / f"{entry}.md").resolve() for entry in entries}
    pages = {page.resolve() for page in docs.PAGES} - {docs.ROOT / "README.md", docs.DOCS / "index.md"}
    assert not {docs.name_of(page) for page in pages - listed}
