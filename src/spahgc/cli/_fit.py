"""``spahgc fit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spahgc.cli._options import (
    AsJson,
    Bank,
    Device,
    Embedding,
    Genes,
    Group,
    Preset,
    ReferenceLayer,
    References,
    Seed,
    TableKey,
    Trust,
    UnitsOption,
    chosen_genes,
)
from spahgc.cli._output import Printed, result


def fit(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the model.")],
    reference: References = None,
    bank: Bank = None,
    gene: Genes = None,
    embedding: Embedding = None,
    layer: ReferenceLayer = None,
    units: UnitsOption = None,
    table_key: TableKey = None,
    group: Group = None,
    trust: Trust = True,
    preset: Preset = "default",
    seed: Seed = 0,
    device: Device = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a model that lies there, and nothing else.")
    ] = False,
    as_json: AsJson = False,
) -> Printed:
    """Train a model on measured slides, and keep it.

    The slides need an embedding. The model predicts any number of slides with the same embedding.

    Example:
      spahgc fit --reference C2.h5ad --reference C3.h5ad --output breast-model
    """
    import spahgc as sp
    from spahgc._training.model_files import check_model_folder
    from spahgc._validate import check_new_name, check_writable_folder
    from spahgc.cli._slide_files import read_references

    check_writable_folder(output.parent)
    check_new_name(output, f"--output {output}")
    check_model_folder(output, f"--output {output}", "--overwrite", overwrite=overwrite)
    refs = read_references(reference, bank)
    if refs is None:
        raise ValueError("no reference was given. Pass --reference with a measured slide, or --bank.")
    model = sp.tl.fit(
        refs,
        genes=chosen_genes(gene),
        embedding=embedding,
        layer=layer,
        units=units,
        group=group,
        trust=trust,
        preset=preset,
        seed=seed,
        device=device,
        table_key=table_key,
    )
    model.save(output, overwrite=overwrite)
    values = {
        "output": output,
        "genes": model.genes,
        "references": model.references,
        "spots": model.bank.n_obs,
        "embedding": model.embedding,
        "preset": model.preset,
        "seed": model.seed,
    }
    n_slides = model.bank.obs["slide"].nunique()
    text = f"{output}: a model of {len(model.genes)} genes from {model.bank.n_obs} spots of {n_slides} slides"
    return result(text, values, as_json)
