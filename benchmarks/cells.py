"""Cells predicted from cells on simulated slides, beside plain methods and what the truth itself would allow.

    OMP_NUM_THREADS=1 python benchmarks/cells.py --seed 0 --seed 1 --seed 2

Of each seed the first slide, of a patient of its own, is predicted from the others, cell by cell; so many cells of each slide are drawn
at random. ``true field, ridge`` is a ridge regression that sees the shares of the tissue's domains at the cell's centre in the place of
an embedding: all that an image could tell of it. Scores are means of the genes' PCC with the counts of the cells held out, over the genes
that follow the morphology and over all; ``share`` is the first over that of the true field.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
import pandas as pd
from _cohorts import ENCODER, log, made_with, markdown
from anndata import AnnData

import spahgc as sp

METHODS = ("spahgc", "ridge", "ridge_components", "mlp", "nearest")
TRUE_FIELD = "true field, ridge"
TRUTH_KEY = "X_truth"
SIZES = {"n_slides": 3, "n_patients": 3, "n_spots": 40, "n_genes": 80, "n_domains": 4}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, action="append", help="of a cohort; repeat (default: 0, 1, 2)")
    parser.add_argument("--cells", type=int, default=150, help="cells of each slide (default: 150)")
    parser.add_argument("--patch", action="store_true", help="embed the patch alone, without the default context")
    arguments = parser.parse_args()
    sp.settings.progress = False
    warnings.simplefilter("ignore", UserWarning)
    rows = []
    for seed in arguments.seed or [0, 1, 2]:
        slides = make_slides(seed, arguments.cells, patch=arguments.patch)
        for method, scores in predicted(slides).items():
            rows.append({"seed": str(seed), "method": method, **scores})
            log(
                f"seed {seed}, {method}: {scores['morphology']:.3f} of the morphology genes, {scores['all']:.3f} of all"
            )
    print(markdown(table(pd.DataFrame(rows))))
    print(f"\n{made_with()}")


def make_slides(seed: int, n_cells: int, *, patch: bool) -> list[AnnData]:
    """Embedded cells of every slide, the target first."""
    slides = []
    for place, whole in enumerate(sp.datasets.simulated(cells=True, seed=seed, **SIZES)):
        rng = np.random.default_rng([seed, place])
        chosen = np.sort(rng.choice(whole.n_obs, min(n_cells, whole.n_obs), replace=False))
        slide = whole[chosen].copy()
        sp.pp.embed(slide, encoder=ENCODER, **({"context": False} if patch else {}))
        slide.obsm[TRUTH_KEY] = np.asarray(slide.obsm["truth_domains"], dtype=np.float32)
        log(f"seed {seed}: {slide.n_obs} of {whole.n_obs} cells of slide {place + 1} embedded")
        slides.append(slide)
    return slides


def predicted(slides: list[AnnData]) -> dict[str, dict[str, float]]:
    """Scores of every method on the first slide."""
    target, *refs = slides
    follows = (target.var["truth_kind"] == "morphology").to_numpy()
    found = {}
    for method in (*METHODS, TRUE_FIELD):
        name, key = ("ridge", TRUTH_KEY) if method == TRUE_FIELD else (method, f"X_{ENCODER}")
        sp.tl.predict(target, refs, method=name, genes="all", embedding=key)
        pearson = sp.tl.evaluate(target)["pearson"]
        found[method] = {
            "morphology": float(pearson.reindex(target.var_names[follows]).mean()),
            "all": float(pearson.mean()),
        }
    return found


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """A row a method: the scores of each seed, their mean, and the share of what the true field allows."""
    scores = rows.pivot(index="method", columns="seed", values="morphology").loc[[*METHODS, TRUE_FIELD]]
    shown = scores.rename(columns="seed {}".format)
    shown["mean"] = scores.mean(axis=1)
    shown["share"] = shown["mean"] / shown.loc[TRUE_FIELD, "mean"]
    shown["mean, all genes"] = rows.groupby("method")["all"].mean()
    return shown.map("{:.3f}".format)


if __name__ == "__main__":
    main()
