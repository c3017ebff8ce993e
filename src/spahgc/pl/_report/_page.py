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
from spahgc.pl._report._pack import Block

STYLES = ("base", "stage", "tables")
SCRIPTS = (
    "dom",
    "data",
    "state",
    "views",
    "places",
    "maps",
    "keys",
    "legend",
    "search",
    "table",
    "spot",
    "provenance",
    "export",
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


def page(title: str, content: Mapping[str, object], blocks: Sequence[Block]) -> str:
    """Join the parts of a page.

    Parameters
    ----------
    title
        Title, any text.
    content
        What the scripts read as ``content``; the licence of Leaflet is added.
    blocks
        Numbers and pictures.
    """
    style = "\n".join(
        [NAMES_A_FILE.sub("", _part(f"{LEAFLET}leaflet.css")), *(_part(f"css/{name}.css") for name in STYLES)]
    )
    leaflet = SOURCE_MAP.sub("", _part(f"{LEAFLET}leaflet.js"))
    script = "(() => {\n" + "\n".join(['"use strict";', *(_part(f"js/{name}.js") for name in SCRIPTS)]) + "})();\n"
    licence = _part(f"{LEAFLET}LICENSE")
    parts = {
        "policy": html.escape(policy(scripts=[leaflet, script], styles=[style])),
        "version": html.escape(__version__),
        "title": html.escape(title),
        "style": style,
        "leaflet": leaflet,
        "script": script,
        "blocks": "\n".join([_data(dict(content) | {"licence": licence}), *map(_block, blocks)]),
    }
    # In one pass, so that no name of a gene is taken for a place.
    return PLACE.sub(lambda found: parts[found[1]], _part("template.html"))


def policy(*, scripts: Sequence[str], styles: Sequence[str]) -> str:
    """Content security policy: these scripts and styles and no others, pictures from the page, no connection."""
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {' '.join(map(_hash, scripts))}",
            f"style-src {' '.join(map(_hash, styles))}",
            "img-src data: blob:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _data(content: Mapping[str, object]) -> str:
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    for letter, escape in ESCAPES.items():
        text = text.replace(letter, escape)
    return f'<script type="application/json" id="content">{text}</script>'


def _block(block: Block) -> str:
    return (
        f'<script type="text/plain" id="block-{block.name}" data-kind="{block.kind}" data-packed="{block.packed}">'
        f"{block.text}</script>"
    )


def _part(name: str) -> str:
    """A file of the page; browsers count every line end as one character, and so does the hash."""
    return files("spahgc.pl._report").joinpath("page", *name.split("/")).read_text("utf-8").replace("\r\n", "\n")
