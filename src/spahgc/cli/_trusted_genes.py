"""``spahgc trusted-genes``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spahgc.cli._options import AsJson, Key, TableKey
from spahgc.cli._output import Printed, result


def trusted_genes(
    slide: Annotated[Path, typer.Argument(help="A slide with a prediction, .h5ad or .zarr.")],
    min_pcc: Annotated[
        float | None, typer.Option(help="Least correlation with what would be measured; 0.2 if left out.")
    ] = None,
    fdr: Annotated[
        float | None, typer.Option(help="Share of the genes, 0 to 1, that may be expected to have less than that.")
    ] = None,
    key: Key = "spahgc",
    table_key: TableKey = None,
    as_json: AsJson = False,
) -> Printed:
    """List the genes that can be trusted, best first.

    What references held out reached tells so; nothing that was measured on the slide itself is looked at.

    Example:
      spahgc trusted-genes OUT.h5ad --fdr 0.1
    """
    import spahgc as sp
    from spahgc.cli._slide_files import read_slide

    data = read_slide(slide, "slide")
    asked = {} if min_pcc is None else {"min_pcc": min_pcc}
    genes = sp.tl.trusted_genes(data, key=key, fdr=fdr, table_key=table_key, **asked)
    return result("\n".join(genes), {"genes": genes, "n_genes": len(genes), "fdr": fdr}, as_json)
