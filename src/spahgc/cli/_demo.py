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
N_SLIDES, N_PATIENTS, N_SPOTS, N_GENES = 6, 3, 100, 120
"""A section of three patients is predicted from five others: one of the same patient, two of each other."""
STAIN_EFFECT, DEPTH = 0.4, 2000.0
"""Patients differ in stain and counts are few, as on measured slides: standard deviation of the dyes' log concentration, and
expected counts of a spot."""
N_SHOWN_GENES = 3
METHODS = ("spahgc", "ridge", "nearest", "mean")
"""What is compared."""
FOLLOWS = "morphology"
SLIDE, SCORES, FIGURE, REPORT = "target.h5ad", "scores.csv", "spatial_genes.png", "report.html"
NEXT = (
    "Open {report} in a browser: maps, how far each gene can be trusted, and the reference spots behind a spot.",
    "Read a run of your own: spahgc read visium RUN/outs --image IMAGE.tif --output A.h5ad",
    "Predict a slide from such runs: spahgc run SLIDE.svs --reference A.h5ad B.h5ad --output case",
)
"""What to do after the demo."""


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the slide, the scores, the figure and the report.")
    ],
    preset: Preset = "default",
    spots: Annotated[int, typer.Option(min=20, help="Spots of a slide.")] = N_SPOTS,
    seed: Seed = 0,
    device: Device = None,
    as_json: AsJson = False,
) -> Printed:
    """Run the main job on simulated slides; needs no network.

    It embeds, trains, predicts, evaluates, draws the genes that were predicted best, and writes a report.

    Example:
      spahgc demo --output demo
    """
    table = run_demo(output, preset=preset, n_spots=spots, seed=seed, device=device)
    files = [SCORES, FIGURE, SLIDE, REPORT]
    note(f"Written to {output}: {', '.join(files)}")
    report = output / REPORT
    steps = [step.format(report=report) for step in NEXT]
    scores = table.to_string(float_format=lambda value: f"{value:.3f}")
    text = "\n".join([scores, "", f"Report: {report}", "Next:", *(f"- {step}" for step in steps)])
    values = {"output": output, "files": files, "report": report, "methods": records(table), "next": steps}
    return result(text, values, as_json)


def run_demo(output: Path, *, preset: str, n_spots: int, seed: int, device: str | None) -> pd.DataFrame:
    """Simulate slides, embed them, train on all but one, predict that one, and compare with the truth.

    Parameters
    ----------
    output
        Folder for ``target.h5ad``, ``scores.csv``, the figure and the report; made if it is not there.
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
    target, *refs = sp.datasets.simulated(
        N_SLIDES,
        n_patients=N_PATIENTS,
        n_spots=n_spots,
        n_genes=N_GENES,
        depth=DEPTH,
        stain_effect=STAIN_EFFECT,
        seed=seed,
    )
    sp.pp.embed([target, *refs], encoder=ENCODER, device=device)
    with silence():  # the scores say it
        for method in METHODS:
            sp.tl.predict(target, refs, method=method, preset=preset, key_added=method, seed=seed, device=device)
    table = pd.DataFrame([_score(target, method) for method in METHODS]).set_index("method")
    write_h5ad(target, folder / SLIDE)
    write_text(folder / SCORES, table.to_csv())
    _draw(target, folder / FIGURE)
    sp.pl.report(target, folder / REPORT, refs=refs)
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
