"""``spahgc predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spahgc.cli._choices import choice, method_names
from spahgc.cli._options import (
    AsJson,
    Bank,
    Device,
    Embedding,
    Genes,
    Group,
    MissingContext,
    MissingEncoder,
    Overwrite,
    Preset,
    ReferenceLayer,
    References,
    Seed,
    TableKey,
    Trust,
    UnitsOption,
    chosen_genes,
)
from spahgc.cli._output import Printed, note, result


def predict(
    target: Annotated[Path, typer.Option(help="The slide to predict, .h5ad or .zarr, with an embedding.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The slide with its prediction, .h5ad or .zarr.")],
    reference: References = None,
    bank: Bank = None,
    model: Annotated[Path | None, typer.Option(help="Folder of a saved model, instead of references.")] = None,
    method: Annotated[
        str, choice("spahgc, or a baseline: ridge_components, deepspot, hest, mlp, ...", method_names)
    ] = "spahgc",
    gene: Genes = None,
    embedding: Embedding = None,
    encoder: MissingEncoder = None,
    context: MissingContext = None,
    layer: ReferenceLayer = None,
    units: UnitsOption = None,
    measured: Annotated[
        str | None,
        typer.Option(help="Column of the target's obs, true where it was measured: these spots become a reference."),
    ] = None,
    n_references: Annotated[
        int | None, typer.Option(help="Take only so many references, those that look most like the target.")
    ] = None,
    conserve: Annotated[
        bool,
        typer.Option(
            "--conserve",
            help="Of a target finer than its references: means over areas as large as their spots stay what is predicted of these.",
        ),
    ] = False,
    table_key: TableKey = None,
    group: Group = None,
    trust: Trust = True,
    intervals: Annotated[float | None, typer.Option(help="Level of intervals of the values, such as 0.9.")] = None,
    preset: Preset = "default",
    key_added: Annotated[str, typer.Option(help="Name of the layer that is written.")] = "spahgc",
    panel_only: Annotated[
        bool,
        typer.Option(
            "--panel-only", help="Write the predicted genes alone; others of the target are left out of the file."
        ),
    ] = False,
    seed: Seed = 0,
    device: Device = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> Printed:
    """Predict the expression of a slide from measured slides.

    All of them need the same H&E embedding, or --encoder makes it first.

    Example:
      spahgc predict --target T.h5ad --reference A.h5ad --reference B.h5ad --output OUT.h5ad
      spahgc predict --target T.h5ad --reference "refs/*.h5ad" -o OUT.h5ad
      spahgc predict --target T.h5ad --model breast-model --output OUT.h5ad
      spahgc predict --target T.h5ad --model breast-model --output OUT.h5ad --panel-only
      spahgc predict --target grid-of-25-um.h5ad --model breast-model --conserve --intervals 0.9 --output OUT.h5ad
      spahgc predict --target T.h5ad --measured was_measured --reference A.h5ad --output OUT.h5ad
    """
    if target.exists():
        note(f"Reading {target} and what it is predicted from ...")  # what comes next loads for seconds
    import spahgc as sp
    from spahgc._keys import Uns
    from spahgc._settings import silence
    from spahgc._slides.tables import table_of
    from spahgc.cli._slide_files import (
        SLIDE_ENDINGS,
        check_container,
        check_output,
        embed_missing,
        read_references,
        read_slide,
        with_panel_alone,
        write_slide,
    )
    from spahgc.tl._prediction import prediction_record
    from spahgc.tl._trust_record import trust_record

    check_output(output, SLIDE_ENDINGS, overwrite=overwrite)
    trained = sp.SpaHGC.load(model) if model is not None else None
    slide = read_slide(target, "--target")
    check_container(slide, output)
    refs = read_references(reference, bank, target=target)
    embed_missing(
        [slide, *(refs if isinstance(refs, list) else [])], encoder, table_key, context=context, device=device
    )
    with silence():  # the same lines come on stdout, once the file is written
        sp.tl.predict(
            slide,
            refs,
            model=trained,
            method=method,
            genes=chosen_genes(gene),
            embedding=embedding,
            layer=layer,
            units=units,
            measured=measured,
            group=group,
            trust=trust,
            intervals=intervals,
            n_references=n_references,
            conserve=conserve,
            preset=preset,
            key_added=key_added,
            seed=seed,
            device=device,
            table_key=table_key,
        )
    if panel_only:
        slide = with_panel_alone(slide, key_added, table_key)
    write_slide(slide, output)
    table = table_of(slide, table_key, "the target")
    said = trust_record(table, key_added)
    part = prediction_record(table, key_added).get(Uns.measured, {})
    beside = f", {int(part['n_measured'])} measured ones used as reference" if part else ""
    first, *others = said.lines()
    text = "\n".join([f'{output}: {first}, in layers["{key_added}"]{beside}', *others])
    values = {"output": output, "key": key_added, "method": method, "genes": said.n_genes, "spots": said.n_spots}
    values |= {"trusted": said.n_trusted, "for_whom": said.for_whom, "unknown": said.n_unknown}
    values |= {"measured": int(part["n_measured"])} if part else {}
    return result(text, values, as_json)
