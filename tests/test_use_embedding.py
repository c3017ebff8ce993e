"""Embeddings of other tools: used with a record given by hand, and kept apart by it."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import spahgc as sp
from spahgc.encoders import describe_encoder

KEY = "X_resnet50"
RECORD = {"name": "resnet50", "input_px": 224, "mpp": 0.5}


def slide(n: int = 10) -> ad.AnnData:
    rng = np.random.default_rng(0)
    adata = ad.AnnData(np.ones((n, 4), np.float32), obsm={"spatial": rng.normal(size=(n, 2))})
    adata.obsm[KEY] = rng.normal(size=(n, 12))
    return adata


def written(adata: ad.AnnData) -> dict:
    return adata.uns["spahgc"]["embeddings"][KEY]


@pytest.fixture
def foreign(target, refs) -> list[ad.AnnData]:
    """Slides whose embedding lies there without a word about it."""
    slides = [target, *refs]
    for adata in slides:
        adata.obsm[KEY] = adata.obsm.pop("X_sim").astype(np.float64)
        del adata.uns["spahgc"]
    return slides


def test_slides_with_records_given_by_hand_are_predicted(foreign, quick):
    for adata in foreign:
        sp.pp.use_embedding(adata, KEY, record=RECORD)
    sp.tl.predict(foreign[0], foreign[1:], preset=quick)
    record = foreign[0].uns["spahgc"]["predictions"]["spahgc"]
    assert record["embedding"] == KEY and record["encoder"]["name"] == "resnet50"
    assert np.isfinite(foreign[0].layers["spahgc"][:, foreign[0].var["spahgc_panel"]]).all()


def test_another_record_keeps_a_slide_apart(foreign):
    for adata in foreign:
        sp.pp.use_embedding(adata, KEY, record=RECORD)
    sp.pp.use_embedding(foreign[0], KEY, record=RECORD | {"mpp": 0.25})
    with pytest.raises(ValueError, match=r"different encoders \(mpp: 0\.25 and 0\.5\)"):
        sp.pp.cross_graph(foreign[0], sp.pp.reference_bank(foreign[1:]))


def test_what_is_missing_is_filled_in_from_the_columns():
    adata = slide()
    before = adata.obsm[KEY].copy()
    assert sp.pp.use_embedding(adata, KEY, record=RECORD) is None
    assert written(adata) == RECORD | {"dim": 12, "context": "patch"}
    np.testing.assert_array_equal(adata.obsm[KEY], before)


def test_a_record_of_the_package_is_taken_whole():
    adata = slide()
    adata.obsm[KEY] = np.arange(10240.0).reshape(10, 1024)
    sp.pp.use_embedding(adata, KEY, record=describe_encoder("uni"))
    assert written(adata) == describe_encoder("uni").to_uns()


def test_the_context_tells_the_columns():
    adata = slide()
    context = "scales 1,2; levels none; rotations 4"
    sp.pp.use_embedding(adata, KEY, record={"name": "own", "dim": 6, "context": context})
    assert written(adata)["dim"] == 6
    with pytest.raises(ValueError, match="tells of 24 columns .* has 12"):
        sp.pp.use_embedding(adata, KEY, record={"name": "own", "dim": 12, "context": context})


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_the_record_survives_writing(tmp_path, form):
    adata = slide()
    record = {"name": "own", "mpp": np.float32(0.5), "mean": np.array([0.1, 0.2, 0.3]), "input_px": np.int64(224)}
    sp.pp.use_embedding(adata, KEY, record=record)
    getattr(adata, f"write_{form}")(tmp_path / "slide")
    again = getattr(ad, f"read_{form}")(tmp_path / "slide")
    assert {name: np.asarray(value).tolist() for name, value in written(again).items()} == written(adata)


def test_other_records_stay_and_a_copy_leaves_the_original_alone():
    adata = slide()
    adata.uns["spahgc"] = {"slide_mpp": 0.5, "embeddings": {"X_other": {"name": "other"}}}
    changed = sp.pp.use_embedding(adata, KEY, record=RECORD, copy=True)
    assert set(changed.uns["spahgc"]["embeddings"]) == {KEY, "X_other"} and changed.uns["spahgc"]["slide_mpp"] == 0.5
    assert set(adata.uns["spahgc"]["embeddings"]) == {"X_other"}


def test_a_data_frame_is_an_embedding():
    adata = slide()
    adata.obsm[KEY] = pd.DataFrame(adata.obsm[KEY], index=adata.obs_names).rename(columns=str)
    sp.pp.use_embedding(adata, KEY, record=RECORD)
    assert written(adata)["dim"] == 12


@pytest.mark.parametrize(
    ("record", "error", "match"),
    [
        ({"name": "own", "npp": 0.5}, ValueError, 'unknown fields "npp".*mpp'),
        ({"mpp": 0.5}, ValueError, "names no encoder"),
        ("uni", TypeError, "record is of type str"),
        ({"name": "own", "dim": 11}, ValueError, "has 12 columns, but the record says dim 11"),
        ({"name": "own", "mpp": -1}, ValueError, "mpp of the record is -1; it must be a positive number"),
        ({"name": "own", "mpp": "0.5um"}, ValueError, "mpp of the record is '0.5um'"),
        ({"name": "own", "input_px": 22.4}, ValueError, "input_px of the record is 22.4; it must be a whole number"),
        ({"name": "own", "mean": 0.5}, ValueError, "mean of the record is 0.5; it must be a list of numbers"),
    ],
)
def test_records_that_are_none_are_refused(record, error, match):
    adata = slide()
    with pytest.raises(error, match=match):
        sp.pp.use_embedding(adata, KEY, record=record)
    assert "spahgc" not in adata.uns


def test_an_embedding_that_is_none_is_refused():
    adata = slide()
    with pytest.raises(KeyError, match=r'obsm\["X_uni"\] not found.*Put the embedding there first'):
        sp.pp.use_embedding(adata, "X_uni", record=RECORD)
    adata.obsm[KEY][3, 3] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite numbers in 1 of 10 spots"):
        sp.pp.use_embedding(adata, KEY, record=RECORD)


def test_the_table_of_a_spatialdata_is_written():
    spatialdata = pytest.importorskip("spatialdata")
    sdata = spatialdata.SpatialData(tables={"table": slide()})
    changed = sp.pp.use_embedding(sdata, KEY, record=RECORD, copy=True)
    assert "spahgc" not in sdata.tables["table"].uns
    sp.pp.use_embedding(sdata, KEY, record=RECORD)
    assert written(sdata.tables["table"]) == written(changed.tables["table"])
