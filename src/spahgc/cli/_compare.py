"""``spahgc compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spahgc.cli._options import AsJson, Bank, Embedding, MissingContext, MissingEncoder, Overwrite, References, TableKey
from spahgc.cli._output import Printed, records, result

TABLE_ENDINGS = (".csv",)


def compare(
    target: Annotated[Path, typer.Option(help="The slide that is to be predicted, .h5ad or .zarr.")],
    reference: References = None,
    bank: Bank = None,
    embedding: Embedding = None,
    encoder: MissingEncoder = None,
    context: MissingContext = None,
    table_key: TableKey = None,
    output: Annotated[Path | None, typer.Option(help="The comparison as a table, .csv.")] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> Printed:
    """Compare the look of a slide with that of its references.

    Stain, brightness, sharpness, resolution and embedding, a row a reference and one for all. No count is read, and no slide is
    changed.

    Example:
      spahgc compare --target T.h5ad --reference A.h5ad --reference B.h5ad --output look.csv
    """
    import spahgc as sp
    from spahgc._files import write_text
    from spahgc.cli._slide_files import check_output, embed_missing, read_references, read_slide

    if output is not None:
        check_output(output, TABLE_ENDINGS, overwrite=overwrite)
    slide, refs = read_slide(target, "--target"), read_references(reference, bank)
    if refs is None:
        raise ValueError("no reference was given. Pass --reference with a measured slide, or --bank.")
    embed_missing([slide, *(refs if isinstance(refs, list) else [])], encoder, table_key, context=context)
    table = sp.pp.compare(slide, refs, embedding=embedding, table_key=table_key)
    if output is not None:
        write_text(output, table.to_csv())
    numbers = table.drop(columns=["large", "advice"])
    lines = [numbers.to_string(float_format=lambda value: f"{value:.3g}", na_rep="unknown"), ""]
    for name, row in table.iterrows():
        lines.append(f"{name}: {row['large']}: {row['advice']}" if row["large"] else f"{name}: nothing differs much")
    return result("\n".join(lines), {"target": target, "references": records(table)}, as_json)
