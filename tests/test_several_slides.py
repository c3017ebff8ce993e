"""Several slides in one object: told apart by a column, or refused; and what joining slides loses."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csr_matrix

import spahgc as sp


def joined(slides: list[AnnData], column: str | None = None, **options) -> AnnData:
    """Slides one below the other without ``obs["slide"]``, as anndata.concat leaves those of scanpy."""
    names = [str(slide.obs["slide"].iloc[0]) for slide in slides]
    parts = []
    for slide in slides:
        part = slide.copy()
        part.obs = part.obs.drop(columns=["slide", "patient"])
        parts.append(part)
    return ad.concat(dict(zip(names, parts, strict=True)), label=column, index_unique="-", uns_merge="same", **options)


def panel(refs):
    return list(refs[0].var_names[:12])


# By a column.


def test_libraries_of_squidpy_are_slides(refs):
    expected = sp.pp.reference_bank(refs, genes=panel(refs))
    bank = sp.pp.reference_bank(joined(refs, "library_id"), genes=panel(refs))
    assert list(bank.obs["slide"]) == list(expected.obs["slide"])
    np.testing.assert_array_equal(bank.X.toarray(), expected.X.toarray())


def test_neighbours_in_the_plane_are_those_of_a_library(refs):
    both = joined(refs, "library_id")
    sp.pp.spatial_graph(both)
    rows, columns = both.obsp["spatial_connectivities"].nonzero()
    names = both.obs["library_id"].to_numpy()
    assert (names[rows] == names[columns]).all()


def test_a_library_that_is_empty_for_some_spots_is_refused(refs):
    both = joined(refs, "library_id")
    both.obs["library_id"] = both.obs["library_id"].astype(object)
    both.obs.loc[both.obs_names[:4], "library_id"] = np.nan
    with pytest.raises(ValueError, match='obs."library_id". of reference number 1 is empty for 4 of 210 spots'):
        sp.pp.reference_bank(both)


def test_an_own_slide_column_goes_before_the_library(refs):
    both = joined(refs, "library_id")
    both.obs["slide"] = [f"my {name}" for name in both.obs["library_id"]]
    assert sp.pp.reference_bank(both).uns["spahgc"]["bank"]["slides"] == ["my P1S2", "my P2S1", "my P2S2"]


@pytest.mark.parametrize("column", ["batch", "sample", "section_id", "orig.ident"])
def test_a_column_that_may_name_slides_is_named(refs, column):
    with pytest.raises(
        ValueError, match=rf'by obs\["{column}"\], lie on each other.*obs\["slide"\] = adata.obs\["{column}"'
    ):
        sp.pp.reference_bank(joined(refs, column))


def test_a_target_of_several_slides_is_refused(target, refs):
    for column, message in (
        ("library_id", 'holds 2 slides .*adata.obs."library_id". == "P1S1"'),
        ("batch", "lie on each"),
    ):
        with pytest.raises(ValueError, match=f"the target .*{message}"):
            sp.tl.predict(joined([target, refs[0]], column), refs[1:], method="ridge")


def test_a_target_with_two_names_of_slides_is_refused(target, refs, quick_default):
    model = sp.tl.fit(refs[1:], preset=quick_default)
    both = ad.concat([target, refs[0]], uns_merge="same")
    with pytest.raises(ValueError, match=r'the target holds 2 slides \("P1S1", "P2S1"\).*Predict one at a time'):
        model.predict(both)


# By what lies in uns.


def with_library(slide: AnnData) -> AnnData:
    slide.uns["spatial"] = {str(slide.obs["slide"].iloc[0]): {"scalefactors": {"tissue_hires_scalef": 1.0}}}
    return slide


def test_several_libraries_without_a_column_are_refused_and_a_column_with_their_names_is_named(refs):
    slides = [with_library(slide) for slide in refs]
    spread = [slide.copy() for slide in slides]
    for number, slide in enumerate(spread):  # far from each other, so that no spot lies on another
        slide.obsm["spatial"] = slide.obsm["spatial"] + 1e5 * number
    options = {"uns_merge": "unique"}
    for column, remedy in (("my_sample", r'adata.obs\["my_sample"\]'), (None, r"\.\.\. with the slide of every spot")):
        parts = {}
        for slide in spread:
            part = slide.copy()
            part.obs = part.obs[["array_row"]]
            parts[str(slide.obs["slide"].iloc[0])] = part
        both = ad.concat(parts, label=column, index_unique="-", **options)
        assert len(both.uns["spatial"]) == 3
        with pytest.raises(ValueError, match=rf'has the libraries "P2S1", "P1S2", "P2S2", .*Write .*{remedy}'):
            sp.pp.reference_bank(both)


def test_one_of_several_libraries_is_one_slide_of_that_name(refs):
    both = joined([with_library(slide) for slide in refs], "library_id")
    both.uns["spatial"] = {name: {} for name in ("P1S2", "P2S1", "P2S2")}
    one = both[both.obs["library_id"] == "P2S1"].copy()
    assert sp.pp.reference_bank(one).uns["spahgc"]["bank"]["slides"] == ["P2S1"]


# By how the spots lie.


def test_array_positions_that_occur_twice_on_each_other_are_refused(refs):
    both = joined(refs)
    both.obsm["spatial"] = both.obsm["spatial"] + np.repeat(np.arange(3), 70)[:, None] * 11.0
    with pytest.raises(ValueError, match="seems to hold several slides: .* have the array position .* of another"):
        sp.pp.reference_bank(both)


def test_spots_at_the_same_places_are_refused_without_any_column(refs):
    both = joined(refs)
    both.obs = both.obs[[]]
    with pytest.raises(ValueError, match="seems to hold several slides: .* of its 210 spots lie on another one"):
        sp.pp.reference_bank(both)


def test_a_slide_that_stands_in_it_twice_is_refused(refs):
    twice = joined([refs[0]])
    twice = ad.concat([twice, twice], index_unique="-", uns_merge="same")
    twice.obs = twice.obs[[]]
    with pytest.raises(ValueError, match="lie on another one.*of one slide, remove the spots that occur twice"):
        sp.pp.reference_bank(twice)


def one_slide(xy: np.ndarray, **columns) -> AnnData:
    rng = np.random.default_rng(0)
    adata = AnnData(
        csr_matrix(rng.poisson(3.0, (len(xy), 20)).astype(np.float32)),
        obs=pd.DataFrame(columns, index=[f"s{i}" for i in range(len(xy))]),
        obsm={"spatial": xy, "X_mine": rng.normal(size=(len(xy), 8)).astype(np.float32)},
    )
    return adata


def square(n: int, step: float = 29.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows, columns = (part.ravel() for part in np.mgrid[:n, :n])
    return rows, columns, np.column_stack([columns, rows]) * step


def test_bins_of_visium_hd_are_one_slide():
    rows, columns, xy = square(60)
    slide = one_slide(xy, array_row=rows, array_col=columns)
    assert sp.pp.reference_bank(slide, embedding="X_mine").n_obs == 3600


def test_single_cells_are_one_slide_whatever_their_distances():
    slide = one_slide(np.random.default_rng(0).random((2000, 2)) * 1e4)
    assert sp.pp.reference_bank(slide, embedding="X_mine").n_obs == 2000


def test_cores_of_a_microarray_are_one_slide():
    _, _, xy = square(20)
    cores = [f"core {core}" for core in np.arange(400) % 20 // 5]
    assert sp.pp.reference_bank(one_slide(xy, sample=cores), embedding="X_mine").n_obs == 400


def test_capture_areas_that_were_registered_into_one_plane_are_one_slide():
    rows, columns, xy = square(20)
    both = np.vstack([xy, xy + [700.0, 0]])
    slide = one_slide(both, array_row=np.tile(rows, 2), array_col=np.tile(columns, 2), batch=np.repeat(["a", "b"], 400))
    assert sp.pp.reference_bank(slide, embedding="X_mine").n_obs == 800


def test_tiles_of_a_plain_image_are_one_slide(refs, target):
    tiles = AnnData(
        obs=pd.DataFrame(index=[f"t{i}" for i in range(400)]),
        obsm={"spatial": square(20)[2], "X_sim": np.resize(target.obsm["X_sim"], (400, target.obsm["X_sim"].shape[1]))},
        uns=target.uns,
    )
    tiles.obsm["X_sim"] += np.random.default_rng(0).normal(0, 0.1, tiles.obsm["X_sim"].shape).astype(np.float32)
    sp.tl.predict(tiles, refs, method="ridge")
    assert np.isfinite(tiles.layers["spahgc"]).all()


# What joining loses.


def test_the_record_that_concat_dropped_is_named_and_how_to_keep_it(target, refs):
    for slide in refs:
        slide.obs["spahgc_patch_padded"] = False
    lost = ad.concat(refs)
    with pytest.raises(KeyError, match='obsm."X_sim". is there in .*anndata.concat, it dropped uns.*uns_merge="same"'):
        sp.tl.predict(target, lost, method="ridge")
    with pytest.raises(KeyError, match='uns_merge="same"'):
        sp.pp.reference_bank(lost)
    with pytest.raises(ValueError, match='carries no encoder record.*uns_merge="same"'):
        sp.tl.predict(target, lost, method="ridge", embedding="X_sim")


@pytest.mark.parametrize("merge", ["same", "unique"])
def test_slides_that_were_joined_as_the_message_says_predict_as_a_list_of_them(target, refs, merge):
    expected = sp.tl.predict(target, refs, method="ridge", copy=True).layers["spahgc"]
    found = sp.tl.predict(target, ad.concat(refs, uns_merge=merge), method="ridge", copy=True).layers["spahgc"]
    np.testing.assert_array_equal(found, expected)


def test_an_embedding_of_ones_own_without_a_record_is_asked_for_as_before(refs):
    for slide in refs:
        slide.uns.pop("spahgc")
    with pytest.raises(KeyError, match="no image embedding found .*Run spahgc.pp.embed"):
        sp.pp.reference_bank(refs)


def test_banks_that_were_joined_are_no_slides(refs):
    banks = [sp.pp.reference_bank(slide) for slide in refs]
    for given in (ad.concat(banks), banks):
        with pytest.raises(ValueError, match="comes from a bank of references .*whose values are no counts any more"):
            sp.pp.reference_bank(given, embedding="X_sim")


def test_an_embedding_of_a_joined_object_says_that_its_image_was_dropped(refs):
    both = ad.concat(refs[:1])
    with pytest.raises(ValueError, match='uns."spatial". is empty. If slides were joined with anndata.concat'):
        sp.pp.embed(both, encoder="efficientnet_lite0")
