"""``spahgc regions``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spahgc.cli._options import AsJson, Key, Overwrite, TableKey
from spahgc.cli._output import Printed, columns, records, result

TABLE_ENDINGS = (".csv",)


def regions(
    slide: Annotated[Path, typer.Argument(help="A slide with a prediction, .h5ad or .zarr.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The table, .csv.")],
    by: Annotated[
        str,
        typer.Option(
            help="Column of obs that names the region of every spot; domain: those of spahgc domains. Or .geojson with regions "
            "that were drawn, as QuPath exports its annotations."
        ),
    ] = "domain",
    gene: Annotated[
        list[str] | None, typer.Option(help="A gene of the table; repeat. All predicted ones if left out.")
    ] = None,
    net: Annotated[Path | None, typer.Option(help="Pathways, a GMT file: their means as well.")] = None,
    level: Annotated[float, typer.Option(help="Share of intervals that should hold the measured mean.")] = 0.9,
    key: Key = "spahgc",
    table_key: TableKey = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> Printed:
    """Means of genes over regions, with intervals.

    Of pathways as well, with --net. The slide is not changed.

    Example:
      spahgc regions OUT.h5ad --by domain --gene ERBB2 --gene CD74 -o regions.csv
    """
    import spahgc as sp
    from spahgc._files import write_text
    from spahgc.cli._slide_files import check_output, read_slide

    check_output(output, TABLE_ENDINGS, overwrite=overwrite)
    data = read_slide(slide, "slide")
    table = sp.tl.regions(data, by=by, key=key, genes=gene, net=net, level=level, table_key=table_key)
    write_text(output, table.to_csv(index=False))
    sizes = table.drop_duplicates("region")[["region", "n_spots", "n_unknown"]]
    names = {"region": "region", "n_spots": "spots", "n_unknown": "of unknown tissue"}
    text = f"{output}: {table['feature'].nunique()} genes and pathways in {len(sizes)} regions\n{columns(sizes, names)}"
    return result(text, {"output": output, "by": by, "level": level, "regions": records(table)}, as_json)
