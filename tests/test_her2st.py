"""The main job on measured slides, as the README prints it."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

import spahgc as sp


@pytest.mark.data
def test_the_main_job_runs_on_measured_slides_as_printed(her2st: Path, tmp_path: Path) -> None:
    target, *refs = (
        sp.io.st(her2st / f"{name}.tsv.gz", her2st / f"{name}_selection.tsv", her2st / f"{name}.jpg")
        for name in ("C2", "C3", "C4")
    )
    # One half of the tissue, which lies on the three sections alike, with the neighbours of its spots.
    target, *refs = (adata[: adata.n_obs // 2].copy() for adata in (target, *refs))
    measured = target.X.copy()
    target.X.data[:] = np.nan  # the prediction must not look

    for adata in [target, *refs]:
        sp.pp.embed(adata, encoder="efficientnet_lite0")
    sp.tl.predict(target, refs)

    target.X = measured
    panel = target.var_names[target.var["spahgc_panel"]]
    assert len(panel) > 50
    scores = sp.tl.evaluate(target)
    assert scores["pearson"].mean() > 0.15, "nothing was learned"
    trusted = scores.index.isin(sp.tl.trusted_genes(target))
    assert scores["pearson"][trusted].mean() > scores["pearson"][~trusted].mean() + 0.05, "the trust is misplaced"
    assert target.obs["spahgc_support"].between(0, 1).all()
    assert len(sp.tl.attribution(target, 0)) == sp.Parameters.preset("default").n_sources
    axes = sp.pl.spatial_genes(target, ["ERBB2", "CD74"], show=False, save=tmp_path / "genes.png")
    assert len(axes) == 4
    assert (tmp_path / "genes.png").stat().st_size > 10_000
    plt.close("all")
    target.write_h5ad(tmp_path / "target.h5ad")


@pytest.mark.data
def test_a_slide_that_was_never_measured_gets_the_genes_of_the_panel(her2st: Path) -> None:
    """An H&E image and spots, no counts: what the package is for."""
    target = sp.io.st(None, her2st / "C2_selection.tsv", her2st / "C2.jpg")[::4].copy()
    reference = sp.io.st(her2st / "C3.tsv.gz", her2st / "C3_selection.tsv", her2st / "C3.jpg")[::4].copy()
    sp.pp.embed([target, reference], encoder="efficientnet_lite0")
    sp.tl.predict(target, reference, genes=["ERBB2", "CD74", "FASN"], method="ridge")
    assert list(target.var_names) == ["ERBB2", "CD74", "FASN"]
    assert np.isfinite(target.layers["spahgc"]).all()
