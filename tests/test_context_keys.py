"""An embedding under two keys: who takes both, who takes the encoder's own columns alone, and what is no embedding."""

from __future__ import annotations

from dataclasses import replace

import anndata as ad
import numpy as np
import pytest
from tests.conftest import EMBEDDING, RECORD
from torch import nn

import spahgc as sp
from spahgc._parameters import PRESETS
from spahgc._validate import embedding_matrix, find_embedding
from spahgc.encoders import Encoder, EncoderRecord
from spahgc.encoders._layout import context_blocks
from spahgc.pp._embed.many import _describe_arguments
from spahgc.tl._baselines import BASELINES

CONTEXT_KEY = f"{EMBEDDING}_context"
CONTEXT = "widths 448,1344 um; levels none; rotations 1"
DIM = RECORD["dim"]
N_COLUMNS = 3 * DIM
PAPER = replace(PRESETS["paper"], width=16, layers=1, heads=2, epochs=2)
PLAIN_METHODS = ("hest", "hest_tuned", "deepspot")


class MeanColours(nn.Module):
    def forward(self, x):
        return nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)


COLOURS = Encoder(
    EncoderRecord("colours", "1", 12, 32, 0.5, (0.0,) * 3, (1.0,) * 3, "area", "mean", "fp32", "patch"), MeanColours()
)
COLOURS_KEY = "X_colours"


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch) -> None:
    monkeypatch.setattr(sp.settings, "device", "cpu")


def widened(slide: ad.AnnData) -> ad.AnnData:
    """The same slide, its embedding with two wider patches beside the encoder's own columns."""
    wide, z = slide.copy(), slide.obsm[EMBEDDING]
    rng = np.random.default_rng(len(z))
    around = [z[rng.permutation(len(z))] + rng.normal(size=z.shape) for _ in range(2)]
    wide.obsm[CONTEXT_KEY] = np.hstack(around).astype(np.float32)
    wide.uns["spahgc"] = {"embeddings": {EMBEDDING: RECORD | {"context": CONTEXT}}}
    wide.obs["spahgc_patch_padded"] = False
    wide.obs["spahgc_context_padded"] = False
    return wide


@pytest.fixture
def wide(cohort) -> list[ad.AnnData]:
    """The cohort with a context: the target, then its references."""
    return [widened(slide) for slide in cohort]


@pytest.fixture(scope="module")
def simulated() -> ad.AnnData:
    return sp.datasets.simulated(1, n_patients=1, n_spots=40, n_genes=12)[0]


@pytest.fixture
def slide(simulated) -> ad.AnnData:
    return simulated[:6].copy()


def columns(adata: ad.AnnData, key: str = EMBEDDING) -> np.ndarray:
    return embedding_matrix(adata, key, "the slide")


# --- who takes the encoder's own columns alone


def test_the_papers_preset_predicts_from_the_patch_alone(cohort, wide):
    for slides in (cohort, wide):
        sp.tl.predict(slides[0], slides[1:], preset=PAPER)
    np.testing.assert_array_equal(wide[0].layers["spahgc"], cohort[0].layers["spahgc"])
    for graph in ("spahgc_cs", "spahgc_attention"):
        np.testing.assert_array_equal(wide[0].obsm[graph].toarray(), cohort[0].obsm[graph].toarray())


def test_a_model_of_the_papers_preset_sees_the_patch_alone_also_when_it_was_saved(cohort, wide, tmp_path):
    plain, model = (sp.tl.fit(slides[1:], preset=PAPER) for slides in (cohort, wide))
    expected = plain.predict(cohort[0])
    np.testing.assert_array_equal(model.predict(wide[0]), expected)
    np.testing.assert_array_equal(
        model.bank.obsp["spahgc_rs_connectivities"].toarray(), plain.bank.obsp["spahgc_rs_connectivities"].toarray()
    )
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(sp.SpaHGC.load(tmp_path / "model").predict(wide[0]), expected)


@pytest.mark.parametrize("method", [*PLAIN_METHODS, "ridge"])
def test_methods_of_others_get_the_patch_alone_of_target_and_references(wide, monkeypatch, method):
    seen = {}

    def recorded(known, spots, seed):
        seen.update(known=known.z, spots=spots.z)
        return np.zeros((len(spots), known.y.shape[1]), np.float32)

    monkeypatch.setitem(BASELINES, method, recorded)
    sp.tl.predict(wide[0], wide[1:], method=method)
    expected = wide[0].obsm[EMBEDDING] if method in PLAIN_METHODS else columns(wide[0])
    np.testing.assert_array_equal(seen["spots"], expected)
    assert seen["known"].shape == (sum(each.n_obs for each in wide[1:]), expected.shape[1])


def test_the_regression_of_hest_predicts_from_the_patch_alone(cohort, wide):
    for slides in (cohort, wide):
        sp.tl.predict(slides[0], slides[1:], method="hest")
    np.testing.assert_array_equal(wide[0].layers["spahgc"], cohort[0].layers["spahgc"])


def test_our_own_methods_see_the_context(cohort, wide):
    for slides in (cohort, wide):
        sp.tl.predict(slides[0], slides[1:], method="ridge")
    assert not np.array_equal(wide[0].layers["spahgc"], cohort[0].layers["spahgc"])


def test_a_cross_validation_shows_each_method_what_it_sees(cohort, wide):
    methods = {"hest": {"method": "hest"}, "ridge": {"method": "ridge"}}
    plain, seen = (
        sp.tl.cross_validate(slides, methods=methods).scores.set_index("method")["pearson"] for slides in (cohort, wide)
    )
    np.testing.assert_array_equal(seen["hest"], plain["hest"])
    assert not np.array_equal(seen["ridge"], plain["ridge"])


def test_graphs_of_similarity_are_those_of_the_patch(cohort, wide, tmp_path):
    for slides in (cohort, wide):
        sp.pp.spatial_graph(slides[0])
    plain, bank = (sp.pp.reference_bank(slides[1:]) for slides in (cohort, wide))
    on_disk = sp.pp.reference_bank(wide[1:], path=tmp_path / "bank.zarr")
    sp.pp.cross_graph(cohort[0], plain)
    expected = sp.pp.hetero_data(cohort[0], plain)
    np.testing.assert_array_equal(
        bank.obsp["spahgc_rs_connectivities"].toarray(), plain.obsp["spahgc_rs_connectivities"].toarray()
    )
    for known in (bank, on_disk):
        sp.pp.cross_graph(wide[0], known)
        np.testing.assert_array_equal(wide[0].obsm["spahgc_cs"].indices, cohort[0].obsm["spahgc_cs"].indices)
        data = sp.pp.hetero_data(wide[0], known)
        np.testing.assert_array_equal(data["target"].x, expected["target"].x)
        np.testing.assert_allclose(data["reference"].x, expected["reference"].x, rtol=1e-3, atol=1e-3)
        assert data["reference"].x.shape[1] == DIM


# --- who takes both


def test_a_bank_holds_both_in_memory_and_on_disk(wide, tmp_path):
    refs = wide[1:]
    bank, on_disk = sp.pp.reference_bank(refs), sp.pp.reference_bank(refs[:2], path=tmp_path / "bank.zarr")
    on_disk = sp.pp.reference_bank(refs[2], path=tmp_path / "bank.zarr", append=True)
    for known in (bank, on_disk):
        assert known.obsm[EMBEDDING].shape == (bank.n_obs, N_COLUMNS)
        assert CONTEXT_KEY not in known.obsm
    assert find_embedding(bank, None, "the bank") == EMBEDDING


@pytest.mark.parametrize("stored", [False, True])
def test_a_bank_of_references_predicts_what_the_references_do(wide, tmp_path, stored):
    target, *refs = wide
    for each in refs:  # so that half precision of a bank on disk loses nothing
        for key in (EMBEDDING, CONTEXT_KEY):
            each.obsm[key] = each.obsm[key].astype(np.float16).astype(np.float32)
    bank = sp.pp.reference_bank(refs, path=tmp_path / "bank.zarr" if stored else None)
    expected = sp.tl.predict(target, refs, method="ridge", genes=list(bank.var_names), copy=True)
    sp.tl.predict(target, bank, method="ridge")
    np.testing.assert_allclose(target.layers["spahgc"], expected.layers["spahgc"], rtol=1e-4, atol=1e-5)


def test_the_default_predicts_the_same_from_a_model_that_was_saved(wide, quick_default, tmp_path):
    model = sp.tl.fit(wide[1:], preset=quick_default)
    expected = model.predict(wide[0])
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(sp.SpaHGC.load(tmp_path / "model").predict(wide[0]), expected)


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_both_survive_writing(slide, tmp_path, form):
    sp.pp.embed(slide, encoder=COLOURS)
    getattr(slide, f"write_{form}")(tmp_path / "slide")
    again = getattr(ad, f"read_{form}")(tmp_path / "slide")
    np.testing.assert_array_equal(columns(again, COLOURS_KEY), columns(slide, COLOURS_KEY))
    assert find_embedding(again, None, "the slide") == COLOURS_KEY


def test_spots_that_are_chosen_or_put_in_another_order_keep_both(slide):
    sp.pp.embed(slide, encoder=COLOURS)
    rows = [4, 1, 2]
    np.testing.assert_array_equal(columns(slide[rows], COLOURS_KEY), columns(slide, COLOURS_KEY)[rows])
    np.testing.assert_array_equal(columns(slide[rows].copy(), COLOURS_KEY), columns(slide, COLOURS_KEY)[rows])


def test_slides_joined_by_anndata_keep_both(wide):
    target, *refs = wide
    joined = ad.concat(refs, uns_merge="same")
    expected = sp.tl.predict(target, refs, method="ridge", copy=True)
    sp.tl.predict(target, joined, method="ridge")
    np.testing.assert_array_equal(target.layers["spahgc"], expected.layers["spahgc"])


def test_a_file_of_an_earlier_version_goes_with_one_of_this(wide, cohort):
    target, *refs = wide
    expected = sp.tl.predict(target, refs, method="ridge", copy=True)
    for old in (target, refs[1]):
        old.obsm[EMBEDDING] = np.hstack([old.obsm[EMBEDDING], old.obsm.pop(CONTEXT_KEY)])
    sp.tl.predict(target, refs, method="ridge")
    np.testing.assert_array_equal(target.layers["spahgc"], expected.layers["spahgc"])


def test_tiles_of_a_plain_image_get_both(simulated):
    (library,) = simulated.uns["spatial"].values()
    tiles = sp.pp.tile(library["images"]["hires"], mpp=2.0, spacing_um=400)
    sp.pp.embed(tiles, encoder=COLOURS)
    assert columns(tiles, COLOURS_KEY).shape == (tiles.n_obs, 36)


def test_the_table_of_a_spatialdata_gets_both(tmp_path):
    spatialdata = pytest.importorskip("spatialdata")
    from tests.test_embed_spatialdata import sdata_of

    sdata = sdata_of()
    sp.pp.embed(sdata, encoder=COLOURS, mpp=0.5)
    table = sdata.tables["table"]
    assert table.obsm[COLOURS_KEY].shape[1] == 12 and table.obsm[f"{COLOURS_KEY}_context"].shape[1] == 24
    sdata.write(tmp_path / "slide.zarr")
    again = spatialdata.read_zarr(tmp_path / "slide.zarr").tables["table"]
    np.testing.assert_array_equal(columns(again, COLOURS_KEY), columns(table, COLOURS_KEY))


# --- what is no embedding


def test_what_stands_beside_an_embedding_is_none_of_its_own(wide):
    assert find_embedding(wide[0], None, "the slide") == EMBEDDING
    with pytest.raises(ValueError, match=rf'"{CONTEXT_KEY}".*part of the embedding.*Pass embedding="{EMBEDDING}"'):
        sp.tl.predict(wide[0], wide[1:], embedding=CONTEXT_KEY)
    with pytest.raises(ValueError, match="part of the embedding"):
        sp.pp.reference_bank(wide[1:], embedding=CONTEXT_KEY)
    with pytest.raises(ValueError, match="part of the embedding"):
        sp.tl.cross_validate(wide, methods=["ridge"], embedding=CONTEXT_KEY)


def test_a_slide_with_two_embeddings_names_them_without_what_stands_beside_them(slide):
    sp.pp.embed(slide, encoder=COLOURS)
    sp.pp.embed(slide, encoder=COLOURS, key_added="X_again", context=False)
    with pytest.raises(ValueError, match='several embeddings: "X_colours", "X_again"'):
        find_embedding(slide, None, "the slide")


def test_an_embedding_whose_record_was_lost_is_named_by_its_own_key(wide):
    joined = ad.concat(wide[1:])
    # Files hold the keys in the order of the alphabet, in which this one may come first.
    joined.obsm = dict(sorted(joined.obsm.items(), reverse=True))
    with pytest.raises(KeyError, match=rf'obsm\["{EMBEDDING}"\] is there.*but the record.*uns_merge="same"'):
        find_embedding(joined, None, "the references")


def test_an_embedding_whose_record_was_lost_is_not_taken_by_half(wide):
    joined = ad.concat(wide[1:])
    with pytest.raises(KeyError, match=rf'"{CONTEXT_KEY}"\] is there.*record of obsm\["{EMBEDDING}"\].*is not'):
        sp.pp.reference_bank(joined, embedding=EMBEDDING)


def test_an_own_array_beside_an_own_embedding_is_nobodys_business(cohort):
    expected = columns(cohort[0]).copy()
    del cohort[0].uns["spahgc"]
    cohort[0].obsm[CONTEXT_KEY] = np.ones((cohort[0].n_obs, 3))
    np.testing.assert_array_equal(columns(cohort[0]), expected)
    assert find_embedding(cohort[0], CONTEXT_KEY, "the slide") == CONTEXT_KEY


@pytest.mark.parametrize("context", ["whole slide", "subspots 2", "scales of the tissue", "widths and levels"])
def test_the_context_of_another_package_is_all_under_one_key(cohort, context):
    slide = cohort[0]
    slide.obsm[CONTEXT_KEY] = np.ones((slide.n_obs, 2 * DIM))
    slide.uns["spahgc"]["embeddings"][EMBEDDING]["context"] = context
    np.testing.assert_array_equal(columns(slide), slide.obsm[EMBEDDING])


def test_a_record_written_by_hand_may_leave_out_the_number_of_columns(cohort):
    slide = cohort[0]
    slide.uns["spahgc"]["embeddings"][EMBEDDING] = {"name": "sim", "context": "whole slide"}
    np.testing.assert_array_equal(columns(slide), slide.obsm[EMBEDDING])


def test_nan_beside_an_embedding_is_said_of_both_keys(wide):
    wide[0].obsm[CONTEXT_KEY][3, 5] = np.nan
    with pytest.raises(ValueError, match=rf'"{EMBEDDING}"\] with obsm\["{CONTEXT_KEY}"\] .*NaN .* in 1 of'):
        columns(wide[0])


# --- records given by hand


def test_a_record_of_both_keys_is_given_again(wide):
    joined = ad.concat(wide[1:])
    sp.pp.use_embedding(joined, EMBEDDING, record=RECORD | {"context": CONTEXT})
    assert columns(joined).shape[1] == N_COLUMNS
    without_dim = {name: value for name, value in RECORD.items() if name != "dim"} | {"context": CONTEXT}
    sp.pp.use_embedding(joined, EMBEDDING, record=without_dim)
    record = joined.uns["spahgc"]["embeddings"][EMBEDDING]
    assert record["dim"] == DIM and len(context_blocks(record, N_COLUMNS)) == 3


def test_a_record_that_says_nothing_of_what_stands_beside_is_refused(wide):
    with pytest.raises(ValueError, match=rf'"{CONTEXT_KEY}"\] is there.*pass its "context".*"context": "patch"'):
        sp.pp.use_embedding(wide[0], EMBEDDING, record={"name": "own"})


def test_a_record_of_the_patch_makes_it_the_patch_alone(wide):
    sp.pp.use_embedding(wide[0], EMBEDDING, record={"name": "own", "context": "patch"})
    assert wide[0].uns["spahgc"]["embeddings"][EMBEDDING]["dim"] == DIM
    np.testing.assert_array_equal(columns(wide[0]), wide[0].obsm[EMBEDDING])


def test_a_record_of_other_columns_than_stand_beside_is_refused(wide):
    three = "widths 200,448,1344 um; levels none; rotations 1"
    with pytest.raises(ValueError, match=f"tells of {4 * DIM} columns .* has {N_COLUMNS}"):
        sp.pp.use_embedding(wide[0], EMBEDDING, record=RECORD | {"context": three})


# --- keys of several embeddings


def test_an_embedding_does_not_take_the_place_of_a_part_of_another_one(slide):
    sp.pp.embed(slide, encoder=COLOURS)
    with pytest.raises(ValueError, match=r'"X_colours_context"\] of slide .* part of the embedding.*key_added='):
        sp.pp.embed(slide, encoder=COLOURS, context=False, key_added="X_colours_context")


def test_a_context_does_not_take_the_place_of_an_embedding(slide):
    sp.pp.embed(slide, encoder=COLOURS, context=False, key_added="X_colours_context")
    with pytest.raises(ValueError, match=r'"X_colours_context"\] .* embedding of its own.*key_added='):
        sp.pp.embed(slide, encoder=COLOURS)
    before = slide.obsm["X_colours_context"].copy()
    sp.pp.embed(slide, encoder=COLOURS, context=False)
    np.testing.assert_array_equal(slide.obsm["X_colours_context"], before)


def test_what_told_of_a_context_goes_with_the_last_one(slide):
    sp.pp.embed(slide, encoder=COLOURS)
    sp.pp.embed(slide, encoder=COLOURS, key_added="X_again")
    sp.pp.embed(slide, encoder=COLOURS, context=False)
    assert "spahgc_context_padded" in slide.obs and "X_colours_context" not in slide.obsm
    sp.pp.embed(slide, encoder=COLOURS, key_added="X_again", context=False)
    assert "spahgc_context_padded" not in slide.obs


def test_a_plain_embedding_leaves_an_own_array_of_that_name_alone(slide):
    slide.obsm["X_colours_context"] = np.ones((slide.n_obs, 3))
    sp.pp.embed(slide, encoder=COLOURS, context=False)
    sp.pp.embed(slide, encoder=COLOURS, context=False)
    np.testing.assert_array_equal(slide.obsm["X_colours_context"], 1)


# --- many slides on disk


def statuses(slide: ad.AnnData, folder, **arguments) -> list[str]:
    """What becomes of one slide on disk."""
    path = folder / "slide.h5ad"
    if not path.exists():
        slide.write_h5ad(path)
    return list(sp.pp.embed_many([path], folder / "embedded", **{"encoder": COLOURS} | arguments)["status"])


def test_many_slides_are_embedded_with_the_default(slide, tmp_path):
    assert statuses(slide, tmp_path) == ["written"]
    written = ad.read_zarr(tmp_path / "embedded" / "slide.zarr")
    sp.pp.embed(slide, encoder=COLOURS)
    np.testing.assert_array_equal(columns(written, COLOURS_KEY), columns(slide, COLOURS_KEY))
    assert statuses(slide, tmp_path) == ["kept"]


def test_predictions_of_many_slides_take_both(wide, tmp_path):
    target, *refs = wide
    linear = replace(PRESETS["default"], experts=("line",))
    sp.tl.fit(refs, preset=linear).save(tmp_path / "model")
    target.write_h5ad(tmp_path / "target.h5ad")
    sp.tl.predict_many([tmp_path / "target.h5ad"], tmp_path / "predicted", model=tmp_path / "model")
    written = ad.read_zarr(tmp_path / "predicted" / "target.zarr")
    sp.tl.predict(target, model=sp.SpaHGC.load(tmp_path / "model"))
    np.testing.assert_array_equal(written.layers["spahgc"], target.layers["spahgc"])


def test_an_encoder_with_a_context_of_its_own_has_no_other_default(slide, tmp_path):
    own = replace(COLOURS, record=replace(COLOURS.record, context="whole slide"))
    assert statuses(slide, tmp_path, encoder=own) == ["written"]
    assert statuses(slide, tmp_path, encoder=own, context=False) == ["kept"]


def test_the_patch_alone_is_not_taken_for_the_default(slide, tmp_path):
    assert statuses(slide, tmp_path, context=False) == ["written"]
    with pytest.raises(FileExistsError, match="arguments"):
        statuses(slide, tmp_path)


@pytest.mark.parametrize(
    ("context", "written"),
    [
        (False, "Context(scales=(1.0,), depths=0, rotations=1)"),
        (True, "Context(scales=(1.0, 2.0, 4.0), depths=None, rotations=4)"),
        (sp.pp.Context(scales=(1, 2)), "Context(scales=(1.0, 2.0), depths=None, rotations=4)"),
    ],
)
def test_what_an_earlier_version_embedded_is_kept(context, written):
    chosen = {"context": context, "stain_normalization": None}
    assert f'"{written}"' in _describe_arguments(chosen, COLOURS.record)
