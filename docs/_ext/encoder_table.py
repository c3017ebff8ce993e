"""The directive ``encoder-table``: the registry of encoders as tables, made anew by every build."""

from __future__ import annotations

import math

import pandas as pd
from sphinx.util.docutils import SphinxDirective

HUB = "https://huggingface.co"
COMMIT_DIGITS = 7


def yes(value: bool) -> str:
    return "yes" if value else "no"


def terms(row: pd.Series) -> dict[str, str]:
    hub = f"[{row['hub_id']}]({HUB}/{row['hub_id']})" if row["hub_id"] else row["weights"]
    return {
        "name": f"`{row['name']}`",
        "weights": hub,
        "licence": row["licence"],
        "gated": yes(row["gated"]),
        "commercial use": yes(row["commercial_use"]),
    }


def papers(row: pd.Series) -> dict[str, str]:
    return {"name": f"`{row['name']}`", "to cite": row["citation"]}


def numbers(row: pd.Series) -> dict[str, str]:
    native = math.isnan(row["mpp"])
    return {
        "name": f"`{row['name']}`",
        "patch, px": str(row["input_px"]),
        "um a pixel": "any" if native else f"{row['mpp']:.3g}",
        "patch, um": "any" if native else f"{row['mpp'] * row['input_px']:.4g}",
        "numbers": str(row["dim"]),
        "pooling": row["pooling"],
        "authors' precision": row["precision"],
    }


def preprocessing(row: pd.Series) -> dict[str, str]:
    mean, std = (", ".join(f"{value:.3f}" for value in row[key]) for key in ("mean", "std"))
    return {"name": f"`{row['name']}`", "resized": row["interpolation"], "mean": mean, "standard deviation": std}


def checks(row: pd.Series) -> dict[str, str]:
    revision = row["revision"][:COMMIT_DIGITS] if row["hub_id"] else row["revision"]
    return {"name": f"`{row['name']}`", "revision": f"`{revision}`", "verified": row["verified"]}


TABLES = {"terms": terms, "numbers": numbers, "preprocessing": preprocessing, "checks": checks, "papers": papers}


def markdown(table: pd.DataFrame, kind: str) -> str:
    """One of the tables, a row an encoder."""
    rows = [TABLES[kind](row) for _, row in table.iterrows()]
    header = list(rows[0])
    lines = [header, ["---"] * len(header), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


class EncoderTable(SphinxDirective):
    """``encoder-table`` with one of the names of :data:`TABLES`."""

    required_arguments = 1

    def run(self):
        from spahgc.encoders import list as list_encoders

        return self.parse_text_to_nodes(markdown(list_encoders(), self.arguments[0]))


def setup(app):
    app.add_directive("encoder-table", EncoderTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
