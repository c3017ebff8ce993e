"""The main job on a simulated cohort, from image to figure: what ``spahgc demo`` runs."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from anndata import AnnData

from spahgc._files import write_h5ad
from spahgc._validate import check_writable_folder

N_SLIDES, N_PATIENTS, N_SPOTS, N_GENES = 4, 2, 200, 120
N_SHOWN_GENES = 3
METHODS = ("spahgc", "ridge", "nearest", "mean")
FOLLOWS = "morphology"


def run_demo(
    output: str | Path,
    *,
    encoder: str = "efficientnet_lite0",
    preset: str = "default",
    n_spots: int = N_SPOTS,
    seed: int = 0,
    device: str | None = None,
) -> pd.DataFrame:
    """Simulate slides, embed them, train on all but one, predict that one, and compare with the truth.

    Parameters
    ----------
    output
        Folder for ``target.h5ad``, ``scores.csv`` and the figures; made if it is not there.
    encoder
        Encoder of the patches.
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
    import spahgc as sp

    folder = check_writable_folder(output)
    target, *refs = sp.datasets.simulated(N_SLIDES, n_patients=N_PATIENTS, n_spots=n_spots, n_genes=N_GENES, seed=seed)
    sp.pp.embed([target, *refs], encoder=encoder, device=device)
    for method in METHODS:
        sp.tl.predict(target, refs, method=method, preset=preset, key_added=method, seed=seed, device=device)
    table = pd.DataFrame([_score(target, method) for method in METHODS]).set_index("method")
    write_h5ad(target, folder / "target.h5ad")
    table.to_csv(folder / "scores.csv")
    _draw(target, folder / "spatial_genes.png")
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
