"""Files of predictions are no larger than what they say."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pytest
from anndata import AnnData
from scipy.sparse import random_array

import spahgc as sp
from spahgc import cli
from spahgc._files import _least_bytes, write_h5ad

N_SPOTS, N_GENES, N_PANEL = 200, 15_000, 280


@pytest.fixture(scope="module")
def bloated() -> AnnData:
    """A prediction of few genes among those of a whole transcriptome, with its spread."""
    rng = np.random.default_rng(0)
    counts = random_array((N_SPOTS, N_GENES), density=0.02, format="csr", dtype=np.float32, rng=rng)
    slide = AnnData(counts)
    slide.obsm["spatial"] = rng.uniform(0, 5_000, (N_SPOTS, 2))
    panel = np.arange(N_GENES) % (N_GENES // N_PANEL) == 0
    slide.var["spahgc_panel"] = panel
    for key in ("spahgc", "spahgc_std"):
        layer = np.full(slide.shape, np.nan, dtype=np.float32)
        layer[:, panel] = rng.normal(size=(N_SPOTS, panel.sum()))
        slide.layers[key] = layer
    return slide


def test_layers_that_are_mostly_nan_take_little_more_than_their_panel(bloated: AnnData, tmp_path: Path) -> None:
    write_h5ad(bloated, tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad") as file:
        stored = sum(file[f"layers/{key}"].id.get_storage_size() for key in bloated.layers)
    of_panel = 2 * N_SPOTS * int(bloated.var["spahgc_panel"].sum()) * 4
    assert stored < 2 * of_panel < bloated.layers["spahgc"].nbytes / 10


def test_what_was_written_compact_is_read_bit_by_bit_by_anndata(bloated: AnnData, tmp_path: Path) -> None:
    write_h5ad(bloated, tmp_path / "a.h5ad")
    for backed in (None, "r"):
        found = ad.read_h5ad(tmp_path / "a.h5ad", backed=backed)
        for key in bloated.layers:
            assert np.asarray(found.layers[key]).tobytes() == bloated.layers[key].tobytes()
    np.testing.assert_array_equal(ad.read_h5ad(tmp_path / "a.h5ad").X.toarray(), bloated.X.toarray())


def test_the_compression_is_one_that_every_reader_of_hdf5_knows(bloated: AnnData, tmp_path: Path) -> None:
    write_h5ad(bloated, tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad") as file:
        assert file["layers/spahgc"].compression == "gzip"  # of HDF5 itself; lzf comes with h5py alone
        assert file["obsm/spatial"].compression is None


@pytest.mark.parametrize("kind", ["sparse", "integers", "no spots", "view"])
def test_other_layers_are_written_as_they_are(bloated: AnnData, tmp_path: Path, kind: str) -> None:
    slide = bloated[:50, :400].copy()
    slide.layers["counts"] = slide.X.copy() if kind == "sparse" else np.ones(slide.shape, dtype=np.int32)
    slide = {"no spots": slide[:0].copy(), "view": slide[5:20]}.get(kind, slide)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ad.ImplicitModificationWarning)
        write_h5ad(slide, tmp_path / "a.h5ad")
    found = ad.read_h5ad(tmp_path / "a.h5ad").layers["counts"]
    expected = slide.layers["counts"]
    assert found.shape == expected.shape and found.dtype == expected.dtype and abs(found - expected).sum() == 0


def test_room_on_the_disk_is_asked_for_what_is_written(bloated: AnnData) -> None:
    of_panel = 2 * N_SPOTS * int(bloated.var["spahgc_panel"].sum()) * 4
    layers = _least_bytes(bloated) - (bloated.X.data.nbytes + bloated.X.indices.nbytes + bloated.obsm["spatial"].nbytes)
    assert 0 < layers < of_panel


@pytest.mark.parametrize("ending", [".h5ad", ".zarr"])
def test_the_shell_writes_the_panel_alone_where_that_is_asked_for(
    cohort: list[AnnData], tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    paths = [tmp_path / f"{place}.h5ad" for place in range(3)]
    for slide, path in zip(cohort, paths, strict=False):
        slide.write_h5ad(path)
    out, genes = tmp_path / f"out{ending}", list(cohort[0].var_names[[3, 8]])
    with pytest.raises(SystemExit) as stopped:
        cli.main(
            ["predict", "--target", str(paths[0]), "--reference", str(paths[1]), str(paths[2]), "--method", "ridge",
             *(part for gene in genes for part in ("--gene", gene)), "--panel-only", "-o", str(out), "--json"]
        )  # fmt: skip
    assert not stopped.value.code and json.loads(capsys.readouterr().out)["genes"] == 2
    found = ad.read_h5ad(out) if ending == ".h5ad" else ad.read_zarr(out)
    expected = sp.tl.predict(cohort[0], cohort[1:3], method="ridge", genes=genes, copy=True)
    assert list(found.var_names) == genes
    np.testing.assert_array_equal(found.layers["spahgc"], expected[:, genes].layers["spahgc"])
    # Totals over all genes are remembered, so that the scores are those of the whole slide.
    np.testing.assert_allclose(
        sp.tl.evaluate(found)["pearson"], sp.tl.evaluate(expected).loc[genes, "pearson"], rtol=1e-6
    )
