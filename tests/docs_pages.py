"""The pages of the documentation as text: which there are, their headings, code blocks and links."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MADE = {"_build", "generated", "jupyter_execute"}
"""Folders of docs/ that a build fills."""
PAGES = [
    ROOT / "README.md",
    *sorted(path for path in DOCS.rglob("*.md") if not MADE & set(path.relative_to(DOCS).parts)),
]

FENCE = re.compile(r"^(`{3,}|:{3,})([^\n]*)\n(.*?)^\1[ \t]*$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)


def name_of(page: Path) -> str:
    """Path of a page from the root of the documentation, ``README.md`` for the README."""
    return page.name if page.parent == ROOT else page.relative_to(DOCS).as_posix()


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose_of(page: Path) -> str:
    """The page without its blocks of code."""
    return re.sub(r"^```.*?^```[ \t]*$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)


def anchors_of(page: Path) -> set[str]:
    """Anchors of the headings, as GitHub and MyST make them."""
    prose = prose_of(page)
    named = set(re.findall(r"^\(([\w-]+)\)=$", prose, re.MULTILINE))
    slugs = (re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", heading).lower()) for heading in HEADING.findall(prose))
    return named | {slug.replace(" ", "-") for slug in slugs}
