"""``spahgc plot``: figures of a prediction as files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from spahgc.cli._choices import choice
from spahgc.cli._options import AsJson, Key, Overwrite, TableKey, refuse
from spahgc.cli._output import Printed, result

FIGURE_ENDINGS = (".png", ".pdf", ".svg", ".jpg", ".jpeg", ".tif", ".tiff")
KINDS = {
    "genes": "spatial_genes",
    "domains": "domains",
    "support": "support",
    "scores": "gene_scores",
    "abundance": "score_vs_abundance",
}
"""Functions of :mod:`spahgc.pl` by the name that the shell has for them."""


def figure_names() -> Iterable[str]:
    """Figures that can be drawn."""
    return KINDS


def plot(
    slide: Annotated[Path, typer.Argument(help="A slide with a prediction, .h5ad or .zarr.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The figure: .png, .pdf, .svg, .jpg or .tif.")],
    kind: Annotated[
        str, choice("genes on the tissue; domains, support; scores of an evaluation, abundance.", figure_names)
    ] = "genes",
    gene: Annotated[
        list[str] | None, typer.Option(help="Genes to draw; the three most trusted of the prediction if left out.")
    ] = None,
    key: Key = "spahgc",
    spread: Annotated[bool, typer.Option("--spread", help="With genes: also how far a value may be off.")] = False,
    table_key: TableKey = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> Printed:
    """Draw a prediction into a file.

    Genes are drawn measured beside predicted where they were measured.

    Example:
      spahgc plot OUT.h5ad --gene ERBB2 --gene CD74 -o genes.png
      spahgc plot OUT.h5ad --kind domains -o domains.pdf
    """
    import matplotlib

    import spahgc as sp
    from spahgc.cli._slide_files import check_output, read_slide

    if kind != "genes":
        refuse({"--gene": gene, "--spread": spread}, "goes with --kind genes. Leave it out.")
    check_output(output, FIGURE_ENDINGS, overwrite=overwrite)
    data = read_slide(slide, "slide")
    options: dict[str, Any] = {"key": key, "table_key": table_key, "show": False, "save": output}
    genes = (gene or trusted(data, key, table_key)) if kind == "genes" else []
    with matplotlib.rc_context({"backend": "agg"}):
        if kind == "genes":
            sp.pl.spatial_genes(data, genes, spread=spread, **options)
        else:
            getattr(sp.pl, KINDS[kind])(data, **options)
    return result(f"{output}: {', '.join(genes) or kind}", {"output": output, "kind": kind, "genes": genes}, as_json)


N_GENES = 3
"""Genes that are drawn where none are named."""


def trusted(data: Any, key: str, table_key: str | None) -> list[str]:
    """The genes of the panel that the references predict best, or its first ones where nothing is known of that."""
    from spahgc._keys import Var
    from spahgc._slides.tables import table_of
    from spahgc.tl._prediction import prediction_and_panel

    table = table_of(data, table_key, "the slide")
    _, panel = prediction_and_panel(table, key)
    genes = table.var_names[panel]
    if Var.cv_pcc(key) in table.var:
        genes = table.var.loc[genes, Var.cv_pcc(key)].sort_values(ascending=False, kind="stable").index
    return [str(name) for name in genes[:N_GENES]]
