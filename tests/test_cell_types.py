"""Cell types: scores of signatures and of annotated single cells, labels, and what is unknown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import decoupler
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csr_matrix

import spahgc as sp
from spahgc.tl._prediction import write_prediction

SURE = 0.7
"""Share of its domain from which on a simulated cell is of one type."""


@pytest.fixture(scope="module")
def _cells() -> list[AnnData]:
    slides = sp.datasets.simulated(
        2, n_patients=2, n_spots=20, n_genes=60, n_domains=3, depth=20_000, cells=True, seed=4
    )
    for slide in slides:
        del slide.uns["spatial"]
    return slides


@pytest.fixture
def slide(_cells: list[AnnData]) -> AnnData:
    """Simulated cells whose type is the tissue around them; the truth stands for a prediction, the last five genes left out."""
    slide = _cells[0].copy()
    panel = np.arange(slide.n_vars) < slide.n_vars - 5
    slide.layers["oracle"], slide.var["oracle_panel"] = slide.layers["truth"].copy(), panel
    slide.layers["oracle"][:, ~panel] = np.nan
    return slide


@pytest.fixture
def annotated(_cells: list[AnnData]) -> AnnData:
    """Single cells of another patient that somebody annotated, without places."""
    other = _cells[1]
    return AnnData(other.X.copy(), obs=other.obs[["domain"]].copy(), var=other.var[[]].copy())


def markers(slide: AnnData) -> dict[str, list[str]]:
    highest = slide.uns["truth"]["loadings"].argmax(axis=1)
    marks = (slide.var["truth_kind"] == "morphology").to_numpy()
    return {
        str(name): list(slide.var_names[marks & (highest == i)]) for i, name in enumerate(slide.uns["truth"]["domains"])
    }


def record(slide: AnnData, name: str) -> dict[str, Any]:
    return slide.uns["spahgc"]["cell_types"][name]


def right(slide: AnnData, column: str) -> float:
    """Share of the labelled cells, of those that are of one type, whose label is right."""
    labels = slide.obs[column]
    judged = (labels != "unknown").to_numpy() & (np.asarray(slide.obsm["truth_domains"]).max(axis=1) > SURE)
    assert judged.mean() > 0.4
    return float((labels[judged].astype(str) == slide.obs["domain"][judged].astype(str)).mean())


def test_cells_get_the_type_whose_markers_they_express(slide: AnnData) -> None:
    sp.tl.cell_types(slide, markers(slide), key=None)
    assert right(slide, "measured_cell_types") > 0.95
    assert list(slide.obsm["measured_cell_types"]) == list(markers(slide))


def test_cells_get_the_type_of_annotated_single_cells_of_another_patient(slide: AnnData, annotated: AnnData) -> None:
    sp.tl.cell_types(slide, annotated, groupby="domain", key=None)
    assert right(slide, "measured_cell_types") > 0.93
    sizes = annotated.obs["domain"].value_counts()
    kept = sizes[sizes >= 5]
    assert record(slide, "measured_cell_types")["reference"]["n_reference_cells"] == kept.to_dict()


def test_a_prediction_is_labelled_by_its_panel_alone(slide: AnnData, annotated: AnnData) -> None:
    for signatures, by in ((markers(slide), None), (annotated, "domain")):
        poisoned = slide.copy()
        poisoned.X = csr_matrix(np.full(slide.shape, np.nan))
        poisoned.layers["oracle"][:, ~slide.var["oracle_panel"]] = 1e6
        for one in (slide, poisoned):
            sp.tl.cell_types(one, signatures, groupby=by, key="oracle")
        assert right(slide, "oracle_cell_types") > 0.95
        pd.testing.assert_frame_equal(poisoned.obsm["oracle_cell_types"], slide.obsm["oracle_cell_types"])
        assert record(slide, "oracle_cell_types")["n_genes"] == 55


@pytest.mark.parametrize("method", ["ulm", "mlm", "zscore"])
def test_scores_are_those_of_decoupler(slide: AnnData, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spahgc._spots.rows.ROW_BLOCK", 100)  # blocks must not show
    net = pd.DataFrame(
        [(name, gene, weight) for name, genes in markers(slide).items() for weight, gene in enumerate(genes, start=1)],
        columns=["source", "target", "weight"],
    )
    sp.tl.cell_types(slide, net, key="oracle", method=method)
    panel = list(slide.var_names[slide.var["oracle_panel"]])
    expression = pd.DataFrame(slide[:, panel].layers["oracle"], slide.obs_names, panel).astype(float)
    expected, _ = getattr(decoupler.mt, method)(expression - expression.mean(), net, empty=False, tmin=1)
    written = slide.obsm["oracle_cell_types"]
    pd.testing.assert_frame_equal(written, expected[written.columns], check_names=False, rtol=1e-5, atol=1e-6)


def test_weights_of_single_cells_are_means_less_the_mean_over_types(slide: AnnData, annotated: AnnData) -> None:
    sp.tl.cell_types(slide, annotated, groupby="domain", key="oracle")
    scaled = annotated.X.toarray() / annotated.X.sum(axis=1) * 1e4
    panel = slide.var["oracle_panel"].to_numpy()
    means = pd.DataFrame(np.log1p(np.asarray(scaled)[:, panel])).groupby(annotated.obs["domain"].to_numpy()).mean()
    means = means.loc[list(slide.obsm["oracle_cell_types"])].to_numpy()
    weights = means - means.mean(axis=0)
    values = slide.layers["oracle"][:, panel].astype(float)
    values -= values.mean(axis=0)
    r = np.array([[np.corrcoef(row, column)[0, 1] for column in weights] for row in values[:30]])
    expected = r * np.sqrt((panel.sum() - 2) / (1 - r**2))
    np.testing.assert_allclose(slide.obsm["oracle_cell_types"].to_numpy()[:30], expected, rtol=1e-3)


def test_what_the_references_do_not_show_is_unknown(slide: AnnData) -> None:
    slide.obs["oracle_support"] = np.where(np.arange(slide.n_obs) < 10, 0.01, 0.5)
    sp.tl.cell_types(slide, markers(slide), key="oracle", min_score=-100)
    assert (slide.obs["oracle_cell_types"] == "unknown").to_numpy().nonzero()[0].tolist() == list(range(10))
    assert record(slide, "oracle_cell_types")["n_low_support"] == 10
    assert slide.obsm["oracle_cell_types"].notna().all().all()
    sp.tl.cell_types(slide, markers(slide), key="oracle", min_score=-100, min_support=0)
    assert not (slide.obs["oracle_cell_types"] == "unknown").any()


def test_what_no_type_stands_out_in_is_unknown(slide: AnnData) -> None:
    sp.tl.cell_types(slide, markers(slide), key=None)
    scores = slide.obsm["measured_cell_types"].max(axis=1)
    np.testing.assert_array_equal(slide.obs["measured_cell_types"] == "unknown", scores < 1.65)
    assert 0 < record(slide, "measured_cell_types")["n_low_score"] < slide.n_obs / 2


def test_an_empty_cell_is_unknown_and_has_no_score(slide: AnnData) -> None:
    counts = slide.X.toarray()
    counts[3] = 0
    slide.X = csr_matrix(counts)
    sp.tl.cell_types(slide, markers(slide), key=None)
    assert slide.obs["measured_cell_types"].iloc[3] == "unknown"
    assert slide.obsm["measured_cell_types"].iloc[3].isna().all()
    assert slide.obsm["measured_cell_types"].drop(index=slide.obs_names[3]).notna().all().all()


def test_cells_that_were_not_predicted_or_lie_off_the_tissue_have_no_label(slide: AnnData) -> None:
    slide.obs["oracle_measured"] = np.arange(slide.n_obs) % 3 == 0
    slide.layers["oracle"][slide.obs["oracle_measured"]] = np.nan
    sp.tl.cell_types(slide, markers(slide), key="oracle")
    np.testing.assert_array_equal(slide.obs["oracle_cell_types"].isna(), slide.obs["oracle_measured"])
    slide.obs["in_tissue"] = np.arange(slide.n_obs) > 4
    with pytest.warns(UserWarning, match="5 of .* spots of the slide lie off the tissue.*get no cell type"):
        sp.tl.cell_types(slide, markers(slide), key=None)
    np.testing.assert_array_equal(slide.obs["measured_cell_types"].isna(), ~slide.obs["in_tissue"])


def test_only_trusted_genes_are_scored_where_that_is_asked_for(slide: AnnData) -> None:
    marks = (slide.var["truth_kind"] == "morphology").to_numpy() & slide.var["oracle_panel"].to_numpy()
    slide.var["oracle_cv_pcc"] = np.where(marks, 0.5, 0.0)
    sp.tl.cell_types(slide, markers(slide), key="oracle", trusted=True)
    assert record(slide, "oracle_cell_types")["n_genes"] == marks.sum()
    assert right(slide, "oracle_cell_types") > 0.95
    slide.var["oracle_cv_pcc"] = 0.0
    with pytest.raises(ValueError, match="no gene of layers.*oracle.* can be trusted.*Pass trusted=False"):
        sp.tl.cell_types(slide, markers(slide), key="oracle", trusted=True)
    del slide.var["oracle_cv_pcc"]
    with pytest.raises(KeyError, match="oracle_cv_pcc"):
        sp.tl.cell_types(slide, markers(slide), key="oracle", trusted=True)


def test_a_gmt_file_and_a_table_give_what_a_dictionary_gives(slide: AnnData, tmp_path: Path) -> None:
    sets = markers(slide)
    (tmp_path / "types.gmt").write_text("".join("\t".join([name, "-", *genes]) + "\n" for name, genes in sets.items()))
    table = pd.DataFrame([(n, g) for n, genes in sets.items() for g in genes], columns=["source", "target"])
    sp.tl.cell_types(slide, sets, key="oracle")
    for given in (tmp_path / "types.gmt", table):
        sp.tl.cell_types(slide, given, key="oracle", key_added="again")
        pd.testing.assert_frame_equal(slide.obsm["again"], slide.obsm["oracle_cell_types"])


def test_a_copy_leaves_the_slide_alone_and_files_keep_all(slide: AnnData, annotated: AnnData, tmp_path: Path) -> None:
    annotated.obs["domain"] = annotated.obs["domain"].astype(str).replace("stroma", "stroma/vessel")
    before = set(slide.obs)
    with pytest.warns(UserWarning, match='"/" in the names of 1 pathways'):
        copy = sp.tl.cell_types(slide, annotated, groupby="domain", key="oracle", copy=True)
    assert set(slide.obs) == before and "oracle_cell_types" not in slide.obsm
    copy.write_h5ad(tmp_path / "a.h5ad")
    copy.write_zarr(tmp_path / "a.zarr")
    for read in (ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_zarr(tmp_path / "a.zarr")):
        assert list(read.obs["oracle_cell_types"].astype(str)) == list(copy.obs["oracle_cell_types"].astype(str))
        assert "stroma_vessel" in read.obsm["oracle_cell_types"]
        assert "stroma_vessel" in record(read, "oracle_cell_types")["reference"]["n_reference_cells"]


def test_a_new_prediction_removes_the_types_of_the_one_before(slide: AnnData) -> None:
    for key in ("oracle", "other"):
        slide.layers[key], slide.var[f"{key}_panel"] = slide.layers["oracle"], slide.var["oracle_panel"]
        sp.tl.cell_types(slide, markers(slide), key=key)
    sp.tl.cell_types(slide, markers(slide), key=None)
    panel = list(slide.var_names[slide.var["oracle_panel"]])
    write_prediction(slide, np.ones((slide.n_obs, len(panel)), dtype=np.float32), panel, "oracle", {})
    assert "oracle_cell_types" not in slide.obs and "oracle_cell_types" not in slide.obsm
    assert set(slide.uns["spahgc"]["cell_types"]) == {"other_cell_types", "measured_cell_types"}


def test_rare_types_and_unnamed_cells_of_a_reference_are_left_out(slide: AnnData, annotated: AnnData) -> None:
    names = annotated.obs["domain"].astype(str).to_numpy(dtype=object)
    names[:3], names[3:9], names[9:12] = "mast", "Unknown", None
    annotated.obs["type"] = names
    with pytest.warns(UserWarning, match='types of obs."type". .*"mast".* fewer than 5 cells'):
        sp.tl.cell_types(slide, annotated, groupby="type", key="oracle")
    assert not {"mast", "Unknown"} & set(slide.obsm["oracle_cell_types"])
    assert "mast" in record(slide, "oracle_cell_types")["reference"]["too_few_cells"]


def test_bad_signatures_and_references_are_named(slide: AnnData, annotated: AnnData) -> None:
    foreign = annotated.copy()
    foreign.var_names = [f"ENSG{i}" for i in range(foreign.n_vars)]
    few = annotated[:, :3].copy()
    one_type = annotated.copy()
    one_type.obs["domain"] = "tumour"
    twice = annotated.copy()
    twice.var_names = ["same", "same", *twice.var_names[2:]]
    slide.var_names = ["same", *slide.var_names[1:]]
    names = {"key": "oracle", "groupby": "domain"}
    for given, arguments, error, message in [
        (foreign, names, ValueError, "has none of the 55 genes of the slide.*ENSG0.*same kind of gene names"),
        (few, names, ValueError, "no type has min_genes=5 of the 55 genes"),
        (one_type, names, ValueError, "names 1 types .*2 to 200 can be told apart"),
        (twice, names, ValueError, 'gene names are not unique: "same".*var_names_make_unique'),
        (annotated, {"key": "oracle", "groupby": "cluster"}, KeyError, 'obs."cluster". not found in the reference'),
        (annotated, {"key": "oracle"}, ValueError, "pass groupby= with the column of obs that names their type"),
        ({"a": ["x"] * 6}, names, ValueError, "the signatures are no AnnData. Leave it out"),
        ({"a": ["x", "y"]}, {"key": "oracle"}, ValueError, "no type has min_genes=5"),
        ({"unknown": list(slide.var_names[:8])}, {"key": "oracle"}, ValueError, 'a type is called "unknown"'),
        ({"a": "EPCAM"}, {"key": "oracle"}, TypeError, "pass a list of genes"),
        (3, {"key": "oracle"}, TypeError, "must be the path of a GMT file, a dictionary"),
    ]:
        with pytest.raises(error, match=message):
            sp.tl.cell_types(slide, given, **arguments)


def test_bad_arguments_are_named_before_anything_is_scored(slide: AnnData) -> None:
    sets = markers(slide)
    for arguments, error, message in [
        ({"key": "none"}, KeyError, 'layers."none". not found'),
        ({"key": "oracle", "layer": "counts"}, ValueError, "Pass key=None to score the measured values"),
        ({"key": None, "trusted": True}, ValueError, "trusted=True is said of predicted genes"),
        ({"key": "oracle", "method": "gsea"}, ValueError, 'method="gsea" is not known'),
        ({"key": "oracle", "min_genes": 0}, ValueError, "min_genes is 0; pass a whole number"),
        ({"key": "oracle", "min_score": np.nan}, ValueError, "min_score is nan; pass a finite number"),
        ({"key": "oracle", "min_support": 2}, ValueError, "support lies between 0 and 1"),
        ({"key": "oracle", "key_added": "a/b"}, ValueError, "cannot name an entry of obs"),
    ]:
        with pytest.raises(error, match=message):
            sp.tl.cell_types(slide, sets, **arguments)
    slide.layers["oracle"][2, 3] = np.nan
    with pytest.raises(ValueError, match="has 1 NaN or infinite values inside its panel"):
        sp.tl.cell_types(slide, sets, key="oracle")
    slide.X = csr_matrix(slide.shape, dtype=np.float32)
    with pytest.raises(ValueError, match="no counts at all: there is nothing to score"):
        sp.tl.cell_types(slide, sets, key=None)


def test_without_decoupler_the_extra_is_named(slide: AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match='which is not installed. Run pip install "spahgc.enrich."'):
        sp.tl.cell_types(slide, markers(slide), key="oracle")
