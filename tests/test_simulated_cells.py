"""Simulated cells: nuclei where the image shows them, expression of the same fields, truth at any place."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from anndata import AnnData

import spahgc as sp

SIZES = {"n_slides": 2, "n_patients": 2, "n_spots": 60, "n_genes": 40, "seed": 4}
MPP = 0.8


@pytest.fixture(scope="module")
def spots() -> list[AnnData]:
    return sp.datasets.simulated(**SIZES)


@pytest.fixture(scope="module")
def cells() -> list[AnnData]:
    return sp.datasets.simulated(cells=True, **SIZES)


def picture(slide: AnnData) -> np.ndarray:
    (record,) = slide.uns["spatial"].values()
    return record["images"]["hires"]


def test_cells_and_spots_are_of_one_slide(spots: list[AnnData], cells: list[AnnData]) -> None:
    for slide, of_cells in zip(spots, cells, strict=True):
        np.testing.assert_array_equal(picture(slide), picture(of_cells))
        assert slide.obs["slide"].iloc[0] == of_cells.obs["slide"].iloc[0]
        assert list(slide.var_names) == list(of_cells.var_names)
        for key in ("loadings", "batch", "baseline", "field"):
            np.testing.assert_array_equal(slide.uns["truth"][key], of_cells.uns["truth"][key])


def test_a_nucleus_is_darker_than_what_lies_beside_it(cells: list[AnnData]) -> None:
    for slide in cells:
        x, y = slide.obsm["spatial"].astype(int).T
        red = picture(slide)[..., 0].astype(float)
        beside = red[y, np.minimum(x + round(8 / MPP), red.shape[1] - 1)]
        assert np.mean(red[y, x] < beside) > 0.7
        assert red[y, x].mean() < red.mean() - 30


def test_the_same_seed_gives_the_same_cells(cells: list[AnnData]) -> None:
    again = sp.datasets.simulated(cells=True, **SIZES)
    for slide, other in zip(cells, again, strict=True):
        np.testing.assert_array_equal(slide.X.toarray(), other.X.toarray())
        np.testing.assert_array_equal(slide.obsm["spatial"], other.obsm["spatial"])


def test_truth_at_a_spot_is_what_the_spot_says(spots: list[AnnData], cells: list[AnnData]) -> None:
    for slide, of_cells in zip(spots, cells, strict=True):
        at_spots = sp.datasets.simulated_truth(slide, diameter_um=55)
        np.testing.assert_allclose(at_spots, slide.layers["truth"], rtol=1e-5)
        at_cells = sp.datasets.simulated_truth(of_cells)
        np.testing.assert_allclose(at_cells, of_cells.layers["truth"], rtol=1e-5)
        # The fields of a slide are those of its cells.
        from_spots = sp.datasets.simulated_truth(slide, points=of_cells.obsm["spatial"])
        np.testing.assert_allclose(from_spots, at_cells, rtol=1e-6)


def test_the_mean_of_fine_truth_over_a_spot_is_near_that_of_the_spot(spots: list[AnnData]) -> None:
    slide = spots[0]
    steps = np.linspace(-0.5, 0.5, 9)
    disc = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    disc = disc[np.hypot(*disc.T) <= 0.5] * 55 / MPP
    fine = np.mean(
        [np.expm1(sp.datasets.simulated_truth(slide, points=slide.obsm["spatial"] + step)) for step in disc], axis=0
    )
    coarse = np.expm1(slide.layers["truth"])
    follows = (slide.var["truth_kind"] == "morphology").to_numpy()
    found = [np.corrcoef(fine[:, gene], coarse[:, gene])[0, 1] for gene in np.flatnonzero(follows)]
    assert min(found) > 0.95


def test_the_truth_survives_files(cells: list[AnnData], tmp_path: Path) -> None:
    slide = cells[0]
    slide.write_h5ad(tmp_path / "cells.h5ad")
    slide.write_zarr(tmp_path / "cells.zarr")
    for read in (ad.read_h5ad(tmp_path / "cells.h5ad"), ad.read_zarr(tmp_path / "cells.zarr")):
        np.testing.assert_allclose(sp.datasets.simulated_truth(read), sp.datasets.simulated_truth(slide))


def test_a_gene_subset_has_the_truth_of_all_genes(cells: list[AnnData]) -> None:
    fewer = cells[0][:, [7, 3, 30]].copy()
    whole = sp.datasets.simulated_truth(cells[0])
    np.testing.assert_array_equal(sp.datasets.simulated_truth(fewer), whole.iloc[:, [7, 3, 30]])


def test_bad_questions_for_the_truth_are_named(cells: list[AnnData], cohort: list[AnnData]) -> None:
    with pytest.raises(ValueError, match=r"points are of shape .2, 3."):
        sp.datasets.simulated_truth(cells[0], points=np.zeros((2, 3)))
    with pytest.raises(ValueError, match="pass microns of at least 0"):
        sp.datasets.simulated_truth(cells[0], diameter_um=-1)
    renamed = cells[0][:, :3].copy()
    renamed.var_names = ["a", "b", "c"]
    with pytest.raises(KeyError, match='genes "a", "b", "c" are none of those'):
        sp.datasets.simulated_truth(renamed)
    del renamed.uns["truth"]
    with pytest.raises(KeyError, match="pass a slide of spahgc.datasets.simulated"):
        sp.datasets.simulated_truth(renamed)
