"""``spahgc domains``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spahgc.cli._options import AsJson, Key, Overwrite, Seed, TableKey
from spahgc.cli._output import Printed, result


def domains(
    slide: Annotated[Path, typer.Argument(help="A slide with a prediction, .h5ad or .zarr.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The slide with its domains, .h5ad or .zarr.")],
    n_domains: Annotated[int | None, typer.Option(help="Number of domains; found if left out.")] = None,
    resolution: Annotated[float, typer.Option(help="Where the number is found: the higher, the more.")] = 1.0,
    label: Annotated[
        str | None, typer.Option(help="Column of obs with an annotation to compare with, such as a pathologist's.")
    ] = None,
    key: Key = "spahgc",
    key_added: Annotated[
        str | None, typer.Option(help="Column of obs that is written; KEY_domain if left out.")
    ] = None,
    seed: Seed = 0,
    table_key: TableKey = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> Printed:
    """Cluster spots by their predicted expression.

    The largest domain is called 0, the next 1, and so on.

    Example:
      spahgc domains OUT.h5ad --n-domains 4 -o OUT.h5ad --overwrite
    """
    import spahgc as sp
    from spahgc._keys import UNS, Obs, Uns
    from spahgc._slides.tables import table_of
    from spahgc.cli._slide_files import SLIDE_ENDINGS, check_container, check_output, read_slide, write_slide

    check_output(output, SLIDE_ENDINGS, overwrite=overwrite)
    data = read_slide(slide, "slide")
    check_container(data, output)
    sp.tl.domains(
        data,
        key=key,
        n_domains=n_domains,
        resolution=resolution,
        label=label,
        key_added=key_added,
        seed=seed,
        table_key=table_key,
    )
    write_slide(data, output)
    table = table_of(data, table_key, "the slide")
    column = key_added or Obs.domain(key)
    sizes = {str(name): int(count) for name, count in table.obs[column].value_counts().sort_index().items()}
    record = dict(table.uns[UNS][Uns.domains]).get(key_added or key, {})
    text = "\n".join(
        [f"{output}: {len(sizes)} domains, in obs/{column}", *(f"  {name:<4} {n} spots" for name, n in sizes.items())]
    )
    return result(text, {"output": output, "column": column, "spots": sizes, "record": record}, as_json)
