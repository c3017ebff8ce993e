"""The 200 measured cells of a lung: a part held out in blocks, from the file to figures and the report."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import scanpy as sc
from anndata import AnnData
from PIL import Image
from scipy.stats import pearsonr

import spahgc as sp

BLOCK_PX = 350
PANEL = 60
KEY = "X_efficientnet_lite0"

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def lung(her2st: Path) -> Path:
    folder = her2st.parent / "files" / "xenium_cells"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return folder


def read(folder: Path) -> AnnData:
    measured = sc.read_h5ad(folder / "NCBI858.h5ad")
    # The table of this sample calls the row x and the column y.
    return sp.io.cells(measured, measured.obs, folder / "NCBI858.jpg", columns=("y_pixel", "x_pixel"), mpp=1.0)


@pytest.fixture(scope="module")
def cells(lung: Path, quick_default: sp.Parameters) -> AnnData:
    """Cells of every other block of the slide predicted from the others; the most abundant genes as the panel."""
    cells = read(lung)
    sp.pp.embed(cells, encoder="efficientnet_lite0", context=False, allow_upsampling=True)
    blocks = np.floor(cells.obsm["spatial"] / BLOCK_PX).astype(int)
    cells.obs["was_measured"] = blocks.sum(axis=1) % 2 == 0
    panel = list(cells.var_names[np.argsort(-np.asarray(cells.X.sum(axis=0)).ravel())[:PANEL]])
    sp.tl.predict(cells, measured="was_measured", genes=panel, preset=quick_default)
    return cells


def test_another_reader_finds_the_same_counts_places_and_pixels(lung: Path) -> None:
    cells = read(lung)
    with h5py.File(lung / "NCBI858.h5ad") as file:
        counts, obs = file["X"][()], file["obs"]
        names = [name.decode() for name in obs[obs.attrs["_index"]][()]]
        centres = np.column_stack([obs["y_pixel"][()], obs["x_pixel"][()]])
        genes = [name.decode() for name in file["var"][file["var"].attrs["_index"]][()]]
    assert list(cells.obs_names) == names and list(cells.var_names) == genes and cells.shape == (200, 338)
    np.testing.assert_array_equal(cells.X.toarray(), counts)
    np.testing.assert_allclose(cells.obsm["spatial"], centres)
    (library,) = cells.uns["spatial"].values()
    factor, picture = library["scalefactors"]["tissue_hires_scalef"], library["images"]["hires"]
    with Image.open(lung / "NCBI858.jpg") as image:
        smaller = np.asarray(image.resize(picture.shape[1::-1], Image.Resampling.BOX), dtype=float)
    x, y = np.minimum((centres * factor).astype(int), np.array(picture.shape[1::-1]) - 1).T
    shown = picture[y, x] * (255 if picture.dtype.kind == "f" else 1)
    assert np.corrcoef(shown.ravel(), smaller[y, x].ravel())[0, 1] > 0.95


def test_cells_in_blocks_held_out_are_predicted_and_no_others(cells: AnnData) -> None:
    measured = cells.obs["was_measured"].to_numpy()
    values = cells.layers["spahgc"][:, cells.var["spahgc_panel"]]
    assert values.shape[1] == PANEL
    assert 60 < measured.sum() < 140
    assert np.isnan(values[measured]).all() and np.isfinite(values[~measured]).all()
    assert np.ptp(values[~measured], axis=0).min() > 0
    assert cells.obs["spahgc_support"][~measured].between(0, 1).all()


def test_the_scores_are_those_of_scanpy_and_scipy(cells: AnnData) -> None:
    scores = sp.tl.evaluate(cells)
    held_out = ~cells.obs["was_measured"].to_numpy()
    other = AnnData(cells.X.copy(), obs=cells.obs[[]], var=cells.var[[]])
    sc.pp.normalize_total(other, target_sum=1e4)
    sc.pp.log1p(other)
    assert (scores["n_spots"] == held_out.sum()).all()
    for gene in scores.index[:20]:
        column = cells.var_names.get_loc(gene)
        predicted, measured = cells.layers["spahgc"][held_out, column], other.X[held_out, column].toarray().ravel()
        assert scores.loc[gene, "pearson"] == pytest.approx(pearsonr(predicted, measured)[0], abs=1e-5)


def test_counts_of_the_blocks_held_out_have_no_part(cells: AnnData, lung: Path, quick_default: sp.Parameters) -> None:
    other = read(lung)
    other.obsm[KEY], other.uns["spahgc"]["embeddings"] = cells.obsm[KEY], cells.uns["spahgc"]["embeddings"]
    other.obs["was_measured"] = cells.obs["was_measured"]
    held_out = ~other.obs["was_measured"].to_numpy()
    counts = other.X.toarray()
    counts[held_out] = np.random.default_rng(0).permutation(counts[held_out].ravel()).reshape(counts[held_out].shape)
    other.X = counts
    panel = list(cells.var_names[cells.var["spahgc_panel"]])
    sp.tl.predict(other, measured="was_measured", genes=panel, preset=quick_default, method="ridge", key_added="a")
    sp.tl.predict(cells, measured="was_measured", genes=panel, preset=quick_default, method="ridge", key_added="a")
    np.testing.assert_array_equal(other.layers["a"], cells.layers["a"])


def test_figures_and_report_of_the_cells_are_made(cells: AnnData, tmp_path: Path) -> None:
    genes = list(cells.var_names[cells.var["spahgc_panel"]][:2])
    sp.pl.spatial_genes(cells, genes, save=tmp_path / "genes.png")
    sp.pl.support(cells, save=tmp_path / "support.png")
    with Image.open(tmp_path / "genes.png") as figure:
        assert len(np.unique(np.asarray(figure.convert("RGB")).reshape(-1, 3), axis=0)) > 1000
    assert (tmp_path / "support.png").stat().st_size > 0
    page = sp.pl.report(cells, tmp_path / "cells.html")
    text = Path(page).read_text(encoding="utf-8")
    assert "NCBI858" in text and genes[0] in text


def test_cell_types_of_measured_and_predicted_cells_are_told(cells: AnnData) -> None:
    pytest.importorskip("decoupler")
    markers = {
        "macrophage": ["CD68", "MRC1", "MARCO", "C1QC", "CD14", "FCER1G", "LYZ", "AIF1", "MS4A7"],
        "endothelium": ["PECAM1", "CLDN5", "RAMP2", "EPAS1", "KDR", "FCN3", "CA4", "PLVAP", "GNG11"],
        "epithelium": ["EPCAM", "KRT8", "KRT18", "NKX2-1", "SFTPC", "NAPSA", "SFTPD", "AGER", "RTKN2"],
    }
    sp.tl.cell_types(cells, markers, key=None)
    labels = cells.obs["measured_cell_types"]
    assert set(labels) == {*markers, "unknown"}
    counts = cells.X.toarray()
    for name, genes in markers.items():
        share = counts[:, cells.var_names.get_indexer(genes)].sum(axis=1) / counts.sum(axis=1)
        assert share[labels == name].mean() > 2 * share[labels != name].mean()
    sp.tl.cell_types(cells, markers, min_genes=2)
    predicted = cells.obs["spahgc_cell_types"]
    assert predicted[cells.obs["was_measured"]].isna().all() and predicted[~cells.obs["was_measured"]].notna().all()
