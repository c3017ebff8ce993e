"""The bank of references and the panel: what they hold, that no order matters, and what they refuse."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from scipy.sparse import csc_matrix, csr_matrix
from sklearn.neighbors import NearestNeighbors

import spahgc as sp
from spahgc._slides.measured import measured_slides
from spahgc._training.graphs import bank_spots
from spahgc.pp._genes import seen_genes

EMBEDDING = "X_sim"
TRANSCRIPTOME = "spahgc_transcriptome"


@pytest.fixture
def panel(refs: list[AnnData]) -> list[str]:
    return list(refs[0].var_names[::4])


def bank_of(refs, **options) -> AnnData:
    """A bank that nothing was warned of."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # deprecations inside pandas and anndata are theirs
        return sp.pp.reference_bank(refs, **options)


def log_cp10k(slide: AnnData) -> np.ndarray:
    other = AnnData(slide.X.astype(np.float64))
    sc.pp.normalize_total(other, target_sum=1e4)
    sc.pp.log1p(other)
    return other.X.toarray()


def assert_same_bank(a: AnnData, b: AnnData) -> None:
    assert list(a.obs_names) == list(b.obs_names)
    assert list(a.var_names) == list(b.var_names)
    np.testing.assert_allclose(a.X.toarray(), b.X.toarray(), atol=1e-6)
    np.testing.assert_array_equal(a.obsm[EMBEDDING], b.obsm[EMBEDDING])
    np.testing.assert_array_equal(a.obsm["spatial"], b.obsm["spatial"])
    np.testing.assert_allclose(a.obsm[TRANSCRIPTOME].toarray(), b.obsm[TRANSCRIPTOME].toarray(), atol=1e-6)
    graphs = [bank.obsp["spahgc_rs_connectivities"] for bank in (a, b)]
    np.testing.assert_array_equal(graphs[0].indices, graphs[1].indices)
    assert a.uns["spahgc"]["bank"] == b.uns["spahgc"]["bank"]


def shuffled(slide: AnnData, seed: int) -> AnnData:
    rng = np.random.default_rng(seed)
    return slide[rng.permutation(slide.n_obs), rng.permutation(slide.n_vars)].copy()


def test_bank_holds_every_spot_with_log_counts_per_ten_thousand_of_all_genes(refs, panel):
    bank = bank_of(refs, genes=panel)
    assert bank.shape == (sum(slide.n_obs for slide in refs), len(panel))
    assert list(bank.var_names) == panel
    assert bank.X.dtype == np.float32
    for slide in refs:
        name = slide.obs["slide"].iloc[0]
        rows = [f"{name}:{spot}" for spot in slide.obs_names]
        expected = log_cp10k(slide)[:, slide.var_names.get_indexer(panel)]
        np.testing.assert_allclose(bank[rows].X.toarray(), expected, rtol=1e-6)
        np.testing.assert_array_equal(bank[rows].obsm[EMBEDDING], slide.obsm[EMBEDDING])
        np.testing.assert_array_equal(bank[rows].obsm["spatial"], slide.obsm["spatial"])
        assert set(bank[rows].obs["slide"]) == {name}


def test_bank_joins_each_spot_to_those_that_look_and_express_alike(refs, panel):
    bank = bank_of(refs, genes=panel)
    features = np.hstack([bank.obsm[EMBEDDING], bank.X.toarray()]).astype(float)
    found = NearestNeighbors(n_neighbors=7, metric="cosine").fit(features).kneighbors(return_distance=False)
    graph = bank.obsp["spahgc_rs_connectivities"]
    assert (graph.format, graph.dtype) == ("csr", np.float32)
    np.testing.assert_array_equal(graph.indices.reshape(-1, 7), np.sort(found, axis=1))
    slides = bank.obs["slide"].to_numpy()
    across = slides[graph.tocoo().row] != slides[graph.tocoo().col]
    assert 0 < across.sum() < len(across)  # within and across slides


def test_bank_records_how_it_was_made(refs, panel):
    record = bank_of(refs, genes=panel, n_neighbors=4).uns["spahgc"]
    transcriptome = record["bank"].pop("transcriptome")
    assert transcriptome == sorted(refs[0].var_names) and isinstance(transcriptome, list)
    assert record["bank"] == {
        "slides": ["P1S2", "P2S1", "P2S2"],
        "embedding": EMBEDDING,
        "n_neighbors": 4,
        "units": "log1p counts per 10,000",
        "n_genes_measured": 60,
        "mpp": {f"{i}": 0.8 for i in range(len(refs))},  # of the simulated image
    }
    assert record["embeddings"] == {EMBEDDING: refs[0].uns["spahgc"]["embeddings"][EMBEDDING]}


def test_bank_is_the_same_for_slides_and_spots_and_genes_in_any_order(refs):
    expected = bank_of(refs)
    assert_same_bank(bank_of([shuffled(slide, seed) for seed, slide in enumerate(reversed(refs))]), expected)


def test_bank_of_one_concatenated_object_is_that_of_the_list(refs, panel):
    together = ad.concat(refs, uns_merge="same")
    assert_same_bank(bank_of(together, genes=panel), bank_of(refs, genes=panel))
    assert_same_bank(bank_of(shuffled(together, 1), genes=panel), bank_of(refs, genes=panel))


@pytest.mark.parametrize("separator", ["-", "_"])
def test_bank_keeps_its_order_when_concatenating_renames_the_spots(refs, panel, separator):
    for slide in refs:  # names such as 4x12, as in the first ST studies; they repeat from slide to slide
        slide.obs_names = [f"{row}x{col}" for row, col in zip(slide.obs.array_row, slide.obs.array_col, strict=True)]
    together = ad.concat(refs, uns_merge="same", index_unique=separator)
    listed, joined = bank_of(refs, genes=panel), bank_of(together, genes=panel)
    np.testing.assert_array_equal(joined.obsm["spatial"], listed.obsm["spatial"])


@pytest.mark.parametrize("make", [csc_matrix, csr_matrix.toarray, lambda x: x.astype(np.int64)])
def test_bank_is_the_same_for_every_kind_of_matrix(refs, panel, make):
    expected = bank_of(refs, genes=panel)
    for slide in refs:
        slide.X = make(slide.X)
    assert_same_bank(bank_of(refs, genes=panel), expected)


def test_bank_reads_counts_from_a_layer(refs, panel):
    expected = bank_of(refs, genes=panel)
    for slide in refs:
        slide.layers["counts"] = slide.X.copy()
        slide.X = np.full(slide.shape, np.nan)
    assert_same_bank(bank_of(refs, genes=panel, layer="counts"), expected)
    with pytest.raises(KeyError, match='layer "raw" not found in reference "P1S2", layers are: .*"counts"'):
        sp.pp.reference_bank(refs, genes=panel, layer="raw")


def test_bank_survives_h5ad_and_zarr(refs, panel, tmp_path):
    bank = bank_of(refs, genes=panel)
    bank.write_h5ad(tmp_path / "bank.h5ad")
    bank.write_zarr(tmp_path / "bank.zarr")
    for back in (ad.read_h5ad(tmp_path / "bank.h5ad"), ad.read_zarr(tmp_path / "bank.zarr")):
        np.testing.assert_array_equal(back.X.toarray(), bank.X.toarray())
        np.testing.assert_array_equal(
            back.obsp["spahgc_rs_connectivities"].toarray(), bank.obsp["spahgc_rs_connectivities"].toarray()
        )
        for names in ("slides", "transcriptome"):
            assert list(back.uns["spahgc"]["bank"][names]) == bank.uns["spahgc"]["bank"][names]
        assert back.obsm[TRANSCRIPTOME].format == "csr"
        np.testing.assert_array_equal(back.obsm[TRANSCRIPTOME].toarray(), bank.obsm[TRANSCRIPTOME].toarray())


def test_references_are_not_changed(refs, panel):
    before = [slide.copy() for slide in refs]
    sp.pp.reference_bank(refs, genes=panel)
    for slide, old in zip(refs, before, strict=True):
        np.testing.assert_array_equal(slide.X.toarray(), old.X.toarray())
        assert list(slide.obs) == list(old.obs) and list(slide.var) == list(old.var)
        assert set(slide.obsm) == set(old.obsm) and set(slide.obsp) == set(old.obsp)
        assert slide.uns["spahgc"] == old.uns["spahgc"]


# The transcriptome beside the panel.


def transcriptome_of(bank: AnnData) -> list[str]:
    return bank.uns["spahgc"]["bank"]["transcriptome"]


def test_bank_keeps_log_counts_per_ten_thousand_of_the_transcriptome_beside_the_panel(refs, panel):
    bank = bank_of(refs, genes=panel, n_transcriptome=25)
    genes, matrix = transcriptome_of(bank), bank.obsm[TRANSCRIPTOME]
    assert (matrix.format, matrix.dtype, matrix.shape) == ("csr", np.float32, (bank.n_obs, 25))
    assert genes == sorted(genes)
    for slide in refs:
        name = slide.obs["slide"].iloc[0]
        expected = log_cp10k(slide)[:, slide.var_names.get_indexer(genes)]
        part = bank[[f"{name}:{spot}" for spot in slide.obs_names]]
        np.testing.assert_allclose(part.obsm[TRANSCRIPTOME].toarray(), expected, rtol=1e-6)


def test_transcriptome_is_of_the_genes_that_the_worst_reference_still_covers(refs, panel):
    common = refs[0].var_names
    rng = np.random.default_rng(0)
    for slide in refs:  # every gene is missed in another share of every slide's spots
        counts = slide.X.toarray() + 1
        slide.X = csr_matrix(np.where(rng.random(counts.shape) < rng.random(slide.n_vars), counts, 0))
    shares = np.array([np.asarray((slide[:, common].X > 0).mean(axis=0)).ravel() for slide in refs])
    best = np.lexsort((common.to_numpy().astype(str), -shares.min(axis=0)))[:20]
    assert set(best) != set(np.argsort(-shares.mean(axis=0), kind="stable")[:20])
    assert transcriptome_of(bank_of(refs, genes=panel, n_transcriptome=20)) == sorted(common[best])


def test_equally_covered_genes_are_taken_by_name(refs, panel):
    for slide in refs:
        slide.X = csr_matrix(slide.X.toarray() + 1)
    bank = bank_of([shuffled(slide, seed) for seed, slide in enumerate(refs)], genes=panel, n_transcriptome=7)
    assert transcriptome_of(bank) == sorted(refs[0].var_names)[:7]


def test_transcriptome_holds_only_genes_that_all_references_share_and_all_of_them_if_few(refs, panel):
    absent = [gene for gene in refs[2].var_names if gene not in panel][3]
    refs[2] = refs[2][:, refs[2].var_names != absent].copy()
    assert transcriptome_of(bank_of(refs, genes=panel)) == sorted(set(refs[0].var_names) - {absent})


def test_transcriptome_does_not_depend_on_the_panel(refs, panel):
    first, second = (bank_of(refs, genes=genes, n_transcriptome=20) for genes in (panel, panel[:3]))
    np.testing.assert_array_equal(first.obsm[TRANSCRIPTOME].toarray(), second.obsm[TRANSCRIPTOME].toarray())


def test_transcriptome_follows_the_spots_and_stays_beside_a_smaller_panel(refs, panel):
    bank = bank_of(refs, genes=panel, n_transcriptome=20)
    rows = np.random.default_rng(0).permutation(bank.n_obs)[:30]
    part = bank[rows, panel[:4]].copy()
    np.testing.assert_array_equal(part.obsm[TRANSCRIPTOME].toarray(), bank.obsm[TRANSCRIPTOME][rows].toarray())
    assert transcriptome_of(part) == transcriptome_of(bank)


def test_spots_of_a_bank_carry_its_transcriptome(refs, panel):
    bank = bank_of(refs, genes=panel, n_transcriptome=20)
    spots = bank_spots(bank)
    np.testing.assert_array_equal(spots.transcriptome.toarray(), bank.obsm[TRANSCRIPTOME].toarray())
    chosen = np.array([5, 2, 99])
    np.testing.assert_array_equal(spots[chosen].transcriptome.toarray(), bank.obsm[TRANSCRIPTOME][chosen].toarray())


def test_a_bank_without_a_transcriptome_is_refused(refs, panel):
    bank = bank_of(refs, genes=panel)
    del bank.obsm[TRANSCRIPTOME]
    with pytest.raises(KeyError, match=r'obsm\["spahgc_transcriptome"\] not found in the bank.*Make it again with'):
        bank_spots(bank)


def test_an_empty_transcriptome_is_refused(refs, panel):
    with pytest.raises(ValueError, match="n_transcriptome must be at least 1, found 0. The default is 2000"):
        sp.pp.reference_bank(refs, genes=panel, n_transcriptome=0)


# What the references may hold instead of counts.


def test_log_normalised_references_are_recognised_and_rescaled(refs, panel):
    expected = bank_of(refs, genes=panel).X.toarray()
    for slide in refs:
        sc.pp.normalize_total(slide, target_sum=1e6)
        sc.pp.log1p(slide)
    with pytest.warns(UserWarning, match="Assumed: log1p of counts scaled to a constant total; rescaled to"):
        bank = sp.pp.reference_bank(refs, genes=panel)
    np.testing.assert_allclose(bank.X.toarray(), expected, rtol=1e-4, atol=1e-5)


def test_corrected_counts_are_normalised_as_counts_are(refs, panel):
    for slide in refs:
        slide.X = slide.X * 1.3
    expected = {slide.obs["slide"].iloc[0]: log_cp10k(slide) for slide in refs}
    with pytest.warns(UserWarning, match="Assumed: corrected counts; normalised to log1p counts per 10,000"):
        bank = sp.pp.reference_bank(refs, genes=panel)
    for slide in refs:
        name = slide.obs["slide"].iloc[0]
        part = bank[[f"{name}:{spot}" for spot in slide.obs_names]]
        columns = slide.var_names.get_indexer(panel)
        np.testing.assert_allclose(part.X.toarray(), expected[name][:, columns], rtol=1e-5)


def test_negative_values_are_taken_as_they_are_and_a_warning_says_so(refs, panel):
    for slide in refs:
        slide.X = slide.X.toarray() - 0.5
    with pytest.warns(UserWarning, match='reference "P2S1" has negative values.*Assumed: expression that is already'):
        bank = sp.pp.reference_bank(refs, genes=panel)
    part = bank[[f"P2S1:{spot}" for spot in refs[0].obs_names]]
    np.testing.assert_allclose(part.X.toarray(), refs[0][:, panel].X)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_counts_that_are_not_finite_are_refused(refs, panel, value):
    refs[1].X[3, 5] = value
    with pytest.raises(ValueError, match='X of reference "P1S2" has 1 NaN or infinite values. It must hold counts'):
        sp.pp.reference_bank(refs, genes=panel)


def test_spots_without_counts_are_left_out_with_a_warning(refs, panel):
    counts = refs[0].X.toarray()
    counts[[4, 9]] = 0
    refs[0].X = csr_matrix(counts)
    with pytest.warns(UserWarning, match='reference "P2S1" has 2 spots without a single count .*left out'):
        bank = sp.pp.reference_bank(refs, genes=panel)
    assert bank.n_obs == sum(slide.n_obs for slide in refs) - 2
    assert not {f"P2S1:{refs[0].obs_names[spot]}" for spot in (4, 9)} & set(bank.obs_names)
    assert bank.obsp["spahgc_rs_connectivities"].shape == (bank.n_obs, bank.n_obs)


def test_a_spot_without_counts_in_the_panel_alone_is_kept(refs, panel):
    counts = refs[0].X.toarray()
    counts[4, refs[0].var_names.isin(panel)] = 0
    refs[0].X = csr_matrix(counts)
    assert bank_of(refs, genes=panel).n_obs == sum(slide.n_obs for slide in refs)


def test_a_reference_without_any_count_is_refused(refs, panel):
    refs[2].X = csr_matrix(refs[2].shape, dtype=np.float32)
    with pytest.raises(ValueError, match='reference "P2S2" has no counts in any spot.*pass layer='):
        sp.pp.reference_bank(refs, genes=panel)


def test_a_reference_without_x_is_refused(refs, panel):
    refs[2].X = None
    with pytest.raises(ValueError, match='reference "P2S2" has no X. Pass layer='):
        sp.pp.reference_bank(refs, genes=panel)


# What the bank refuses.


@pytest.mark.parametrize("nothing", [[], ()])
def test_no_reference_is_refused(nothing):
    with pytest.raises(ValueError, match="no reference was given. Pass at least one measured slide"):
        sp.pp.reference_bank(nothing)


@pytest.mark.parametrize("wrong", [None, 3])
def test_references_of_the_wrong_type_are_refused(wrong):
    with pytest.raises(TypeError, match="references must be an AnnData or a list of them, found"):
        sp.pp.reference_bank(wrong)


def test_a_list_with_something_else_in_it_is_refused(refs):
    with pytest.raises(TypeError, match="reference number 2 must be an AnnData, found ndarray"):
        sp.pp.reference_bank([refs[0], np.zeros(3)])


def test_a_missing_embedding_is_asked_for(refs, panel):
    del refs[0].obsm[EMBEDDING]
    with pytest.raises(KeyError, match=r'obsm\["X_sim"\] not found in reference "P2S1".*Run spahgc.pp.embed'):
        sp.pp.reference_bank(refs, genes=panel)


def test_references_without_any_embedding_are_told_how_to_get_one(refs, panel):
    for slide in refs:
        del slide.obsm[EMBEDDING]
    with pytest.raises(KeyError, match="no image embedding found .*Run spahgc.pp.embed"):
        sp.pp.reference_bank(refs, genes=panel)


def test_an_embedding_named_but_absent_lists_what_is_there(refs, panel):
    with pytest.raises(KeyError, match=r'obsm\["X_uni"\] not found in reference "P1S2", obsm has .*"X_sim"'):
        sp.pp.reference_bank(refs, genes=panel, embedding="X_uni")


def test_one_of_several_embeddings_must_be_named(refs, panel):
    for slide in refs:
        slide.obsm["X_other"] = slide.obsm[EMBEDDING][:, :5] + 1
        slide.uns["spahgc"]["embeddings"]["X_other"] = {"name": "other"}
    with pytest.raises(ValueError, match='holds several embeddings: "X_sim", "X_other". Say which one with embedding='):
        sp.pp.reference_bank(refs, genes=panel)
    assert bank_of(refs, genes=panel, embedding="X_other").obsm["X_other"].shape[1] == 5


@pytest.mark.parametrize(("field", "value"), [("mpp", 0.5), ("revision", "2"), ("mean", [0.1, 0.2, 0.3])])
def test_embeddings_of_different_encoders_are_refused_and_the_field_is_named(refs, panel, field, value):
    refs[2].uns["spahgc"]["embeddings"][EMBEDDING][field] = value
    with pytest.raises(ValueError, match=rf'"P2S2" and of reference "P1S2" come from different encoders \({field}: '):
        sp.pp.reference_bank(refs, genes=panel)


def test_an_embedding_without_a_record_does_not_mix_with_one_that_has_it(refs, panel):
    refs[2].uns["spahgc"]["embeddings"] = {}
    with pytest.raises(ValueError, match='of reference "P2S2" carries no encoder record'):
        sp.pp.reference_bank(refs, genes=panel)


def test_embeddings_of_different_width_are_refused(refs, panel):
    refs[2].obsm[EMBEDDING] = refs[2].obsm[EMBEDDING][:, :7]
    with pytest.raises(ValueError, match='has 7 columns in reference "P2S2" and 24 in reference "P1S2"'):
        sp.pp.reference_bank(refs, genes=panel)


def test_an_embedding_with_nan_is_refused(refs, panel):
    refs[2].obsm[EMBEDDING][3, 0] = np.nan
    with pytest.raises(ValueError, match=r'obsm\["X_sim"\] of reference "P2S2" has NaN or infinite numbers in 1 of 70'):
        sp.pp.reference_bank(refs, genes=panel)


def test_coordinates_with_nan_are_refused(refs, panel):
    refs[2].obsm["spatial"][3, 0] = np.nan
    with pytest.raises(ValueError, match='of reference "P2S2" has NaN or infinite coordinates in 1 of 70 spots'):
        sp.pp.reference_bank(refs, genes=panel)


def test_references_without_a_gene_in_common_are_refused(refs):
    refs[1].var_names = [f"ENSG{i}" for i in range(refs[1].n_vars)]
    with pytest.raises(ValueError, match="no gene in common.*by symbol and others by Ensembl identifier"):
        sp.pp.reference_bank(refs)


def test_genes_named_twice_in_a_reference_are_refused_with_the_way_out(refs):
    names = list(refs[1].var_names)
    refs[1].var_names = [names[1], *names[1:]]
    with pytest.raises(ValueError, match=r"gene names are not unique: .*Run adata.var_names_make_unique\(\) first"):
        sp.pp.reference_bank(refs)


def test_spots_named_twice_in_a_reference_are_refused_with_the_way_out(refs):
    names = list(refs[1].obs_names)
    refs[1].obs_names = [names[1], *names[1:]]
    with pytest.raises(ValueError, match=r"spot names are not unique: .*Run adata.obs_names_make_unique\(\) first"):
        sp.pp.reference_bank(refs)


def test_spots_may_have_the_same_names_on_different_slides(refs, panel):
    for slide in refs:
        slide.obs_names = [f"spot{i}" for i in range(slide.n_obs)]
    assert bank_of(refs, genes=panel).obs_names.is_unique


def test_two_references_of_one_name_are_refused(refs, panel):
    refs[1].obs["slide"] = "P2S1"
    with pytest.raises(ValueError, match='two of the references are called "P2S1". Give each its own name'):
        sp.pp.reference_bank(refs, genes=panel)


def test_spots_without_the_name_of_their_slide_are_refused(refs, panel):
    refs[1].obs.loc[refs[1].obs_names[:4], "slide"] = np.nan
    with pytest.raises(ValueError, match=r'obs\["slide"\] of reference number 2 is empty for 4 of 70 spots'):
        sp.pp.reference_bank(refs, genes=panel)


def test_a_reference_with_fewer_spots_than_neighbours_is_refused(refs, panel):
    with pytest.raises(ValueError, match='reference "P2S1" has 7 spots with counts, too few for 7 neighbours'):
        sp.pp.reference_bank([refs[0][:7].copy(), *refs[1:]], genes=panel)
    assert bank_of([refs[0][:8].copy(), *refs[1:]], genes=panel).n_obs == 148


def test_a_reference_without_spots_is_refused(refs, panel):
    with pytest.raises(ValueError, match="reference number 1 has no spots"):
        sp.pp.reference_bank([refs[0][:0].copy(), *refs[1:]], genes=panel)


def test_genes_that_no_reference_has_are_refused(refs, panel):
    with pytest.raises(KeyError, match="1 of 16 genes not found in the genes that all references share: .*ERBB2"):
        sp.pp.reference_bank(refs, genes=[*panel, "ERBB2"])


def test_genes_that_only_some_references_have_are_refused(refs, panel):
    refs[2] = refs[2][:, refs[2].var_names != panel[3]].copy()
    with pytest.raises(KeyError, match=f"1 of 15 genes not found in .*{panel[3]}"):
        sp.pp.reference_bank(refs, genes=panel)


def test_repeated_genes_are_refused(refs, panel):
    with pytest.raises(ValueError, match=f'genes= names "{panel[0]}" more than once'):
        sp.pp.reference_bank(refs, genes=[*panel, panel[0]])


def test_an_empty_panel_is_refused(refs):
    with pytest.raises(ValueError, match="genes= is empty"):
        sp.pp.reference_bank(refs, genes=[])


def test_a_bare_string_as_panel_is_refused(refs, panel):
    with pytest.raises(TypeError, match=rf'found the string "{panel[0]}". Pass \["{panel[0]}"\]'):
        sp.pp.reference_bank(refs, genes=panel[0])


# The panel.


def variable_genes(slide: AnnData, n_top: int) -> set[str]:
    seen = slide[:, np.asarray((slide.X > 0).sum(0)).ravel() >= 3].copy()
    sc.pp.highly_variable_genes(seen, flavor="seurat_v3", n_top_genes=n_top)
    return set(seen.var_names[seen.var["highly_variable"]])


def test_panel_is_what_is_variable_on_every_reference(refs):
    expected = set.intersection(*(variable_genes(slide, 30) for slide in refs))
    assert 0 < len(expected) < 30
    assert sp.pp.select_genes(refs, n_top=30) == sorted(expected)


def test_panel_does_not_depend_on_any_order(refs):
    expected = sp.pp.select_genes(refs, n_top=30)
    assert sp.pp.select_genes([shuffled(slide, 5) for slide in reversed(refs)], n_top=30) == expected
    assert sp.pp.select_genes(ad.concat(refs), n_top=30) == expected


def test_a_slide_with_few_genes_gives_all_that_enough_spots_have_seen(refs):
    rare = refs[1].var_names[5]
    counts = refs[1].X.toarray()
    counts[:, 5] = 0
    counts[:2, 5] = 9
    refs[1].X = csr_matrix(counts)
    assert set(sp.pp.select_genes(refs)) == set(refs[1].var_names) - {rare}
    assert rare in sp.pp.select_genes(refs, min_spots=2)


def test_panel_reads_counts_from_a_layer(refs):
    expected = sp.pp.select_genes(refs, n_top=30)
    for slide in refs:
        slide.layers["counts"] = slide.X.copy()
        slide.X = None
    assert sp.pp.select_genes(refs, n_top=30, layer="counts") == expected


def test_an_empty_panel_is_reported_with_the_way_out(refs):
    first, second = refs[0][:, :20].copy(), refs[1][:, 19:].copy()
    counts = first.X.toarray()
    counts[2:, 19] = 0  # the only gene that both have, seen in fewer than three spots
    first.X = csr_matrix(counts)
    with pytest.raises(ValueError, match="no gene is among the 1000 most variable of every reference.*Raise n_top="):
        sp.pp.select_genes([first, second])


@pytest.mark.data
def test_panel_of_the_four_measured_slides_is_the_published_list(her2st: Path):
    slides = []
    for name in ("B4", "C2", "C3", "C4"):
        counts = pd.read_csv(her2st / f"{name}.tsv.gz", sep="\t", index_col=0)
        table = pd.read_csv(her2st / f"{name}_selection.tsv", sep="\t")
        spots = counts.index.intersection([f"{x}x{y}" for x, y in zip(table.x, table.y, strict=True)])
        counts = counts.loc[spots]
        slide = AnnData(csr_matrix(counts.to_numpy(np.float32)), obs=pd.DataFrame({"slide": name}, index=spots))
        slide.var_names = counts.columns
        slides.append(slide)
    published = (her2st / "panel.txt").read_text().split()
    assert len(published) == 85
    assert sp.pp.select_genes(slides) == sorted(published)


def test_abundant_genes_join_a_panel_only_if_every_reference_has_them(cohort):
    plain, more = sp.pp.select_genes(cohort, n_top=10), sp.pp.select_genes(cohort, n_top=10, n_abundant=15)
    tops = [
        set(slide.var_names[np.argsort(-np.asarray(slide.X.sum(axis=0)).ravel(), kind="stable")[:15]])
        for slide in cohort
    ]
    assert set(more) == set(plain) | set.intersection(*tops)
    assert len(more) > len(plain)


def test_units_of_transformed_expression_are_not_called_counts(refs, panel):
    for slide in refs:
        slide.X = slide.X.toarray() - 1.0
    with pytest.warns(UserWarning, match="negative values, so it does not hold counts"):
        bank = sp.pp.reference_bank(refs, genes=panel)
    assert bank.uns["spahgc"]["bank"]["units"] == "as given"


def test_counts_and_transformed_expression_are_not_mixed(refs, panel):
    refs[0].X = refs[0].X.toarray() - 1.0
    with (
        pytest.warns(UserWarning, match="negative values"),
        pytest.raises(ValueError, match="hold negative values, which are no counts, and the other references do not"),
    ):
        sp.pp.reference_bank(refs, genes=panel)


THREADS = """
import spahgc, torch
refs = spahgc.datasets.simulated(n_slides=2, n_spots=40, n_genes=30)
before = torch.get_num_threads()
spahgc.pp.select_genes(refs, n_top=10)
print(before, torch.get_num_threads())
"""


def test_selecting_genes_leaves_the_threads_of_torch_alone():
    threads = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}
    out = subprocess.run(
        [sys.executable, "-c", THREADS], env=os.environ | threads, capture_output=True, text=True, check=True
    )
    assert out.stdout.split() == ["1", "1"]


# Every gene that the references cover.


def refs_with_a_rare_gene(refs: list[AnnData], n_seen: int) -> tuple[list[AnnData], str]:
    """References of which only the first has seen the gene, at so many of the 210 spots of all of them."""
    rare = refs[0].var_names[7]
    for place, slide in enumerate(refs):
        counts = slide.X.toarray()
        counts[:, slide.var_names.get_loc(rare)] = 0
        if place == 0:
            counts[:n_seen, slide.var_names.get_loc(rare)] = 4
        slide.X = csr_matrix(counts)
    return refs, rare


@pytest.mark.parametrize("n_seen", [2, 3])
def test_seen_genes_are_those_of_one_percent_of_all_spots(refs, n_seen):
    slides, rare = refs_with_a_rare_gene(refs, n_seen)
    expected = set(slides[0].var_names) - ({rare} if n_seen < 0.01 * 210 else set())
    assert seen_genes(measured_slides(slides)) == sorted(expected)


def test_spots_without_counts_do_not_count_among_the_spots_that_see_a_gene(refs):
    slides, rare = refs_with_a_rare_gene(refs, 2)
    counts = slides[1].X.toarray()
    counts[10:] = 0  # 150 spots with counts are left, of which 2 are more than 1 %
    slides[1].X = csr_matrix(counts)
    assert rare in seen_genes(measured_slides(slides))


def test_seen_genes_are_shared_by_all_references_and_read_from_a_layer(refs):
    absent = refs[2].var_names[3]
    refs[2] = refs[2][:, refs[2].var_names != absent].copy()
    for slide in refs:
        slide.layers["counts"] = slide.X.copy()
        slide.X = None
    expected = sorted(set(refs[0].var_names) - {absent})
    assert seen_genes(measured_slides(refs, layer="counts")) == expected


def test_references_that_have_seen_no_gene_often_enough_are_refused(refs):
    for slide in refs:
        slide.X = csr_matrix(slide.shape, dtype=np.float32)
    with pytest.raises(ValueError, match="no gene is seen in 1% of the references' spots. Check their counts"):
        seen_genes(measured_slides(refs))
