"""``spahgc demo``: the main job on a simulated cohort, from image to figure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spahgc.cli._options import AsJson, Device, Preset, Seed
from spahgc.cli._output import Printed, note, records, result

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

ENCODER = "efficientnet_lite0"
"""Its weights come with the installation."""
N_SLIDES, N_PATIENTS, N_SPOTS, N_GENES = 4, 2, 200, 120
N_SHOWN_GENES = 3
METHODS = ("spahgc", "ridge", "nearest", "mean")
"""What is compared."""
FOLLOWS = "morphology"
SLIDE, SCORES, FIGURE = "target.h5ad", "scores.csv", "spatial_genes.png"


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the slide, the scores and the figures.")],
    preset: Preset = "default",
    spots: Annotated[int, typer.Option(min=20, help="Spots of a slide.")] = N_SPOTS,
    seed: Seed = 0,
    device: Device = None,
    as_json: AsJson = False,
) -> Printed:
    """Run the main job on simulated slides; needs no network.

    It embeds, trains, predicts, evaluates, and draws the genes that were predicted best.

    Example:
      spahgc demo --output demo
    """
    table = run_demo(output, preset=preset, n_spots=spots, seed=seed, device=device)
    files = [SCORES, FIGURE, SLIDE]
    note(f"Written to {output}: {', '.join(files)}")
    text = table.to_string(float_format=lambda value: f"{value:.3f}")
    return result(text, {"output": output, "files": files, "methods": records(table)}, as_json)


def run_demo(output: Path, *, preset: str, n_spots: int, seed: int, device: str | None) -> pd.DataFrame:
    """Simulate slides, embed them, train on all but one, predict that one, and compare with the truth.

    Parameters
    ----------
    output
        Folder for ``target.h5ad``, ``scores.csv`` and the figure; made if it is not there.
    preset
        Parameters of the network.
    n_spots
        Spots of a slide.
    seed
        Seed of the cohort and of the training.
    device
        Where to compute.

    Returns
    -------
    One row a method: mean PCC over the genes that follow the morphology, over those that do not, and the number of
    genes for which no correlation is defined.
    """
    import pandas as pd

    import spahgc as sp
    from spahgc._files import write_h5ad, write_text
    from spahgc._settings import silence
    from spahgc._validate import check_writable_folder

    folder = check_writable_folder(output)
    target, *refs = sp.datasets.simulated(N_SLIDES, n_patients=N_PATIENTS, n_spots=n_spots, n_genes=N_GENES, seed=seed)
    sp.pp.embed([target, *refs], encoder=ENCODER, device=device)
    with silence():  # the scores say it
        for method in METHODS:
            sp.tl.predict(target, refs, method=method, preset=preset, key_added=method, seed=seed, device=device)
    table = pd.DataFrame([_score(target, method) for method in METHODS]).set_index("method")
    write_h5ad(target, folder / SLIDE)
    write_text(folder / SCORES, table.to_csv())
    _draw(target, folder / FIGURE)
    return table


def _score(target: AnnData, method: str) -> dict[str, object]:
    import spahgc as sp

    scores = sp.tl.evaluate(target, key=method)
    follows = (target.var.loc[scores.index, "truth_kind"] == FOLLOWS).to_numpy()
    return {
        "method": method,
        "PCC, genes that follow the tissue": scores["pearson"][follows].mean(),
        "PCC, other genes": scores["pearson"][~follows].mean(),
        "genes": len(scores),
        "undefined": int(scores["pearson"].isna().sum()),
    }


def _draw(target: AnnData, path: Path) -> None:
    import matplotlib

    import spahgc as sp

    scores = target.var.loc[target.var["truth_kind"] == FOLLOWS, "spahgc_pearson"]
    genes = list(scores.sort_values(ascending=False).index[:N_SHOWN_GENES])
    with matplotlib.rc_context({"backend": "agg"}):
        sp.pl.spatial_genes(target, genes, show=False, save=path)
