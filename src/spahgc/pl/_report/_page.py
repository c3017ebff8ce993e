"""The page itself: its parts joined into one file that asks for nothing and runs nothing but them."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files

from spahgc import __version__
from spahgc._aliases import alias_table
from spahgc.pl._report._pack import Block

STYLES = ("base", "stage", "tables", "parts", "print")
SCRIPTS = (
    "dom",
    "data",
    "state",
    "names",
    "views",
    "pair",
    "contrast",
    "places",
    "shapes",
    "tiles",
    "maps",
    "drawing",
    "region",
    "annotations",
    "keys",
    "legend",
    "search",
    "sets",
    "table",
    "spot",
    "provenance",
    "export",
    "print",
    "slides",
    "theme",
    "main",
)
"""Files of the page in the order in which they are joined: each uses what stands before it."""
LEAFLET = "vendor/leaflet/"
NAMES_A_FILE = re.compile(r"^.*\burl\((?!#).*$\n?", re.MULTILINE)
"""Lines of a style sheet that would load a file."""
SOURCE_MAP = re.compile(r"^//# sourceMappingURL=.*$", re.MULTILINE)
PLACE = re.compile(r"\{\{(\w+)\}\}")
ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}
"""What could end a block of data, or begin markup in it. json.dumps writes all but ASCII as escapes anyway."""


def page(
    title: str, contents: Sequence[Mapping[str, object]], blocks: Sequence[Sequence[Block]], *, has_files: bool = False
) -> str:
    """Join the parts of a page.

    Parameters
    ----------
    title
        Title, any text.
    contents
        What the scripts read as ``content``, one a slide; the licence of Leaflet and the other names of genes are added.
    blocks
        Numbers and pictures of each.
    has_files
        Whether pictures lie beside the page, which the policy then allows.
    """
    style = "\n".join(
        [NAMES_A_FILE.sub("", _part(f"{LEAFLET}leaflet.css")), *(_part(f"css/{name}.css") for name in STYLES)]
    )
    leaflet = SOURCE_MAP.sub("", _part(f"{LEAFLET}leaflet.js"))
    script = "(() => {\n" + "\n".join(['"use strict";', *(_part(f"js/{name}.js") for name in SCRIPTS)]) + "})();\n"
    licence = _part(f"{LEAFLET}LICENSE")
    shared = {"licence": licence, "aliases": alias_table()}
    data = [dict(content) | (shared if number == 0 else {}) for number, content in enumerate(contents)]
    parts = {
        "policy": html.escape(policy(scripts=[leaflet, script], styles=[style], has_files=has_files)),
        "version": html.escape(__version__),
        "title": html.escape(title),
        "style": style,
        "leaflet": leaflet,
        "script": script,
        "blocks": "\n".join(
            [
                *(_data(content, number) for number, content in enumerate(data)),
                *(_block(block, number) for number, own in enumerate(blocks) for block in own),
            ]
        ),
    }
    # In one pass, so that no name of a gene is taken for a place.
    return PLACE.sub(lambda found: parts[found[1]], _part("template.html"))


def policy(*, scripts: Sequence[str], styles: Sequence[str], has_files: bool = False) -> str:
    """Content security policy: these scripts and styles and no others, pictures from the page, no connection.

    With files beside the page pictures come from its own place as well: ``file:`` where it is opened by a double click.
    """
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {' '.join(map(_hash, scripts))}",
            f"style-src {' '.join(map(_hash, styles))}",
            "img-src data: blob: 'self' file:" if has_files else "img-src data: blob:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _named(name: str, number: int) -> str:
    """Name of a part of a slide; the first one needs no number."""
    return name if number == 0 else f"{name}-{number}"


def _data(content: Mapping[str, object], number: int) -> str:
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    for letter, escape in ESCAPES.items():
        text = text.replace(letter, escape)
    return f'<script type="application/json" id="{_named("content", number)}">{text}</script>'


def _block(block: Block, number: int) -> str:
    return (
        f'<script type="text/plain" id="{_named(f"block-{block.name}", number)}" data-kind="{block.kind}" data-packed="{block.packed}">'
        f"{block.text}</script>"
    )


def _part(name: str) -> str:
    """A file of the page; browsers count every line end as one character, and so does the hash."""
    return files("spahgc.pl._report").joinpath("page", *name.split("/")).read_text("utf-8").replace("\r\n", "\n")
