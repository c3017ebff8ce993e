"""``spahgc evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spahgc.cli._options import AsJson, Key, Overwrite, TableKey, UnitsOption
from spahgc.cli._output import Printed, records, result

TABLE_ENDINGS = (".csv",)


def evaluate(
    slide: Annotated[Path, typer.Argument(help="A measured slide with a prediction, .h5ad or .zarr.")],
    key: Key = "spahgc",
    layer: Annotated[str | None, typer.Option(help="Layer with the measured counts; X if left out.")] = None,
    units: UnitsOption = None,
    gene_sets: Annotated[Path | None, typer.Option(help="Pathways to compare as well, a GMT file.")] = None,
    table_key: TableKey = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The scores as a table, .csv.")] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> Printed:
    """Compare a prediction with the measurement, gene by gene.

    The best gene stands first. The slide itself is not changed.

    Example:
      spahgc evaluate OUT.h5ad --output scores.csv
    """
    import spahgc as sp
    from spahgc._files import write_text
    from spahgc._keys import UNS, Uns
    from spahgc._slides.tables import table_of
    from spahgc.cli._slide_files import check_output, read_slide

    if output is not None:
        check_output(output, TABLE_ENDINGS, overwrite=overwrite)
    data = read_slide(slide, "slide")
    scores = sp.tl.evaluate(data, key=key, layer=layer, units=units, gene_sets=gene_sets, table_key=table_key)
    scores = scores.sort_values("pearson", ascending=False, na_position="last")
    if output is not None:
        write_text(output, scores.to_csv())
    summary = table_of(data, table_key, "the slide").uns[UNS][Uns.evaluations][key]
    pathways = summary.pop("pathways", None)
    lines = [
        scores.to_string(float_format=lambda value: f"{value:.4f}", na_rep="undefined"),
        "",
        f"{summary['n_genes']} genes at {summary['n_spots']} spots, {summary['n_genes_constant']} of them constant; "
        f"mean PCC {summary['mean_pearson']:.4f}, median {summary['median_pearson']:.4f}",
    ]
    found = {"key": key, "summary": summary, "genes": records(scores)}
    if pathways is not None:
        shown = pathways.sort_values("pearson", ascending=False, na_position="last")
        lines += ["", shown.to_string(float_format=lambda value: f"{value:.4f}", na_rep="undefined")]
        found["pathways"] = records(shown)
    return result("\n".join(lines), found, as_json)
