"""``spahgc encoders`` and ``spahgc cohorts``: what is known by name."""

from __future__ import annotations

from spahgc.cli._options import AsJson
from spahgc.cli._output import Printed, columns, records, result

ENCODER_COLUMNS = {
    "name": "name",
    "licence": "licence",
    "gated": "gated",
    "commercial_use": "commercial",
    "dim": "numbers",
    "input_px": "pixels",
    "mpp": "um/px",
    "weights": "weights",
}
COHORT_COLUMNS = {
    "name": "name",
    "title": "tissue",
    "sections": "sections",
    "patients": "patients",
    "platform": "platform",
    "paper_pcc": "PCC, paper",
    "licence": "licence",
}
"""Columns that a terminal is shown, and how it calls them."""


def encoders(as_json: AsJson = False) -> Printed:
    """List the encoders that are known by name.

    --json has all that is known of them: normalisation, revision, citation.

    Example:
      spahgc encoders
    """
    import spahgc as sp

    table = sp.encoders.list()
    weights = table["hub_id"].where(table["hub_id"] != "", table["weights"])
    shown = table.assign(weights=weights, mpp=table["mpp"].map("{:.3g}".format).replace("nan", "any"))
    return result(columns(shown, ENCODER_COLUMNS), records(table), as_json)


def cohorts(as_json: AsJson = False) -> Printed:
    """List the cohorts of the paper, and small open ones.

    --json has sources, citations and notes as well.

    Example:
      spahgc cohorts
    """
    import spahgc as sp

    table = sp.datasets.cohorts()
    shown = table.reset_index().assign(paper_pcc=table["paper_pcc"].map("{:.4f}".format).replace("nan", "").to_list())
    return result(columns(shown, COHORT_COLUMNS), records(table), as_json)
