"""The directive ``cohort-table``: the registry of cohorts as a table, made anew by every build."""

from __future__ import annotations

import pandas as pd
from sphinx.util.docutils import SphinxDirective


def label(row: pd.Series) -> dict[str, str]:
    return {
        "function": f"{{func}}`~spahgc.datasets.{row.name}`",
        "tissue": row["title"],
        "sections": str(row["sections"]),
        "patients": "unknown" if pd.isna(row["patients"]) else str(row["patients"]),
        "platform": row["platform"],
        "mean PCC in the paper": "" if pd.isna(row["paper_pcc"]) else f"{row['paper_pcc']:.4f}",
    }


def terms(row: pd.Series) -> dict[str, str]:
    return {
        "function": f"`{row.name}`",
        "source": row["source"],
        "licence": row["licence"],
        "note": row["note"],
    }


def papers(row: pd.Series) -> dict[str, str]:
    return {"function": f"`{row.name}`", "to cite": row["citation"]}


TABLES = {"what": label, "terms": terms, "papers": papers}


def markdown(table: pd.DataFrame, kind: str) -> str:
    """One of the tables, a row a cohort."""
    rows = [TABLES[kind](row) for _, row in table.iterrows()]
    header = list(rows[0])
    lines = [header, ["---"] * len(header), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


class CohortTable(SphinxDirective):
    """``cohort-table`` with one of the names of :data:`TABLES`."""

    required_arguments = 1

    def run(self):
        from spahgc.datasets import cohorts

        return self.parse_text_to_nodes(markdown(cohorts(), self.arguments[0]))


def setup(app):
    app.add_directive("cohort-table", CohortTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
