"""Methods from outside in a cross-validation: how they are called, what they see, and what they may return."""

from __future__ import annotations

import functools
import threading
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csr_array, csr_matrix
from sklearn.linear_model import Ridge

import spahgc as sp
from spahgc.tl._cross_validation.functions import qualified_name

N_BOOTSTRAP = 50


def cross_validate(slides, methods, **arguments):
    return sp.tl.cross_validate(slides, methods=methods, **{"n_bootstrap": N_BOOTSTRAP} | arguments)


def ridge(target, refs, *, genes, seed, alpha=10.0):
    """A line on the embedding."""
    x = np.vstack([ref.obsm["X_sim"] for ref in refs.values()])
    y = np.vstack([ref[:, genes].X.toarray() for ref in refs.values()])
    return Ridge(alpha).fit(x, y).predict(target.obsm["X_sim"])


class Lines:
    """The same as an object that remembers what it was fitted on."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, target, refs, *, genes, seed):
        self.seen += [*refs, target.obs["slide"].iloc[0]]
        return ridge(target, refs, genes=genes, seed=seed)

    def method(self, target, refs, *, genes, seed):
        return self(target, refs, genes=genes, seed=seed)


def zeros(target, refs, *, genes, seed):
    return np.zeros((target.n_obs, len(genes)))


def test_a_function_is_scored_beside_the_methods_of_the_package(cohort):
    found = cross_validate(cohort, {"mine": ridge, "hest": {"method": "hest"}, "again": "ridge", "ridge": {}})
    assert list(found.summary.index) == ["mine", "hest", "again", "ridge"]
    assert found.summary.loc["mine", "pearson"] > 0.3
    assert found.summary.loc["again", "pearson"] == found.summary.loc["ridge", "pearson"]
    assert set(found.comparisons["method"]) | set(found.comparisons["other"]) == {"mine", "hest", "again", "ridge"}
    assert found.record["methods"]["mine"]["function"] == qualified_name(ridge)
    assert found.record["methods"]["ridge"]["method"] == "ridge"
    ax = sp.pl.gene_scores(found, show=False)
    assert ax.get_xticklabels()[0].get_text().startswith("mine")


def test_its_scores_are_those_of_an_evaluation_of_what_it_returns(cohort):
    found = cross_validate(cohort, {"mine": ridge}, group_by="slide").scores
    refs = {slide.obs["slide"].iloc[0]: slide for slide in cohort[1:]}
    measured = sp.tl.predict(cohort[0], list(refs.values()), method="mean", copy=True)
    panel = list(measured.var_names[measured.var["spahgc_panel"]])
    for slide in refs.values():
        slide.X = csr_matrix(np.log1p(1e4 * slide.X.toarray() / slide.X.sum(axis=1).A1[:, None]).astype(np.float32))
    measured.layers["spahgc"][:, measured.var["spahgc_panel"]] = ridge(cohort[0], refs, genes=panel, seed=0)
    expected = sp.tl.evaluate(measured)
    rows = found.query("slide == 'P1S1'").set_index("gene")
    for score in ("pearson", "rmse"):
        assert rows[score].to_dict() == pytest.approx(expected[score].loc[rows.index].to_dict(), abs=1e-5)


def test_the_function_gets_the_panel_of_the_fold_and_the_seed(cohort):
    calls = []

    def spy(target, refs, *, genes, seed):
        calls.append((target.obs["slide"].iloc[0], list(refs), genes, seed, list(target.var_names)))
        return zeros(target, refs, genes=genes, seed=seed)

    cross_validate(cohort, {"spy": spy, "ridge": {"seed": 3}}, seed=7)
    assert [call[:2] for call in calls] == [
        ("P1S1", ["P2S1", "P2S2"]),
        ("P1S2", ["P2S1", "P2S2"]),
        ("P2S1", ["P1S1", "P1S2"]),
        ("P2S2", ["P1S1", "P1S2"]),
    ]
    assert all(seed == 7 and genes == names and type(genes[0]) is str for *_, genes, seed, names in calls)
    calls.clear()
    cross_validate(cohort, {"spy": spy}, genes=["MORPH002", "MORPH001"])
    assert all(genes == ["MORPH002", "MORPH001"] for _, _, genes, *_ in calls)


def test_references_hold_expression_counts_and_totals(cohort):
    counts = cohort[3].X.toarray()
    counts[:4] = 0
    cohort[3].X = csr_matrix(counts)
    seen: dict[str, AnnData] = {}

    def spy(target, refs, *, genes, seed):
        seen.update(refs)
        return zeros(target, refs, genes=genes, seed=seed)

    with pytest.warns(UserWarning, match="without a single count"):
        cross_validate(cohort, {"spy": spy}, group_by="slide")
    ref = seen["P2S2"]
    assert list(ref.var_names) == list(cohort[3].var_names) and list(ref.obs_names) == list(cohort[3].obs_names[4:])
    np.testing.assert_array_equal(ref.layers["counts"].toarray(), counts[4:])
    totals = counts[4:].sum(axis=1)
    np.testing.assert_array_equal(ref.obs["spahgc_total_counts"], totals)
    np.testing.assert_allclose(ref.X.toarray(), np.log1p(1e4 * counts[4:] / totals[:, None]), rtol=1e-5)
    np.testing.assert_array_equal(ref.obsm["X_sim"], cohort[3].obsm["X_sim"][4:])


@pytest.mark.parametrize("null", ["shuffle", "shuffle_all"])
def test_shuffled_references_are_shuffled_for_a_function_too(cohort, null):
    assert cross_validate(cohort, {"mine": ridge}).summary.loc["mine", "pearson"] > 0.2
    assert abs(cross_validate(cohort, {"mine": ridge}, null=null).summary.loc["mine", "pearson"]) < 0.15
    seen = {}

    def spy(target, refs, *, genes, seed):
        seen.update(refs)
        return zeros(target, refs, genes=genes, seed=seed)

    cross_validate(cohort, {"spy": spy}, null=null, group_by="slide")
    assert not np.array_equal(seen["P2S2"].layers["counts"].toarray(), cohort[3].X.toarray())


# What a target does not tell.


def with_counts_everywhere(slide: AnnData) -> np.ndarray:
    """Write the counts wherever an AnnData can hold something; returns a gene's, which tells them from anything else."""
    counts = slide.X.toarray().astype(float)
    gene = counts[:, 0] + 1000.0
    slide.layers["copy"] = slide.X.copy()
    slide.raw = slide
    for name in (
        "total_counts",
        "n_counts",
        "cluster",
        "patient_",
        "in_tissue_counts",
        "spahgc_total_counts",
        "leiden",
    ):
        slide.obs[name] = gene
    slide.obs["library_id"] = [f"{value}" for value in gene]
    slide.obs["annotation"] = pd.Categorical([f"{value}" for value in gene])
    slide.obsm["counts"] = counts + 1000.0
    slide.obsm["X_pca"] = counts + 1000.0
    slide.obsp["counts"] = np.outer(gene, gene)
    slide.varm["counts"] = counts.T + 1000.0
    slide.varp["counts"] = counts.T @ counts
    slide.var["counts"] = counts.sum(axis=0) + 1000.0
    slide.uns["counts"] = gene
    slide.uns["pca"] = {"variance": gene}
    slide.uns["spahgc"]["counts"] = gene
    slide.uns["spahgc"]["embeddings"]["X_sim"]["note"] = "one that all slides share"
    slide.uns["spatial"] = {
        "library": {
            "images": {"hires": np.full((8, 8, 3), 7, np.uint8), "counts": counts + 1000.0},
            "scalefactors": {"tissue_hires_scalef": 0.5, "counts": gene},
            "metadata": {"counts": gene},
        }
    }
    return gene


def things_in(value: Any, seen: set[int] | None = None) -> list[Any]:
    """All arrays, tables and words that can be reached from an object, by its attributes, entries and bases."""
    seen = set() if seen is None else seen
    if id(value) in seen or value is None or isinstance(value, type | int | float | bool):
        return []
    seen.add(id(value))
    if isinstance(value, str):
        return [value]
    if isinstance(value, AnnData):
        parts = [value.X, value.raw, value.obs, value.var, value.uns, value.filename, value._adata_ref]
        parts += [dict(part) for part in (value.obsm, value.varm, value.obsp, value.varp, value.layers)]
        return [thing for part in parts for thing in things_in(part, seen)]
    if isinstance(value, pd.DataFrame):
        blocks = [block.values for block in value._mgr.blocks]
        return [thing for part in (value.index, *blocks) for thing in things_in(part, seen)]
    if isinstance(value, pd.Index | pd.Series):
        return things_in(value.to_numpy(), seen)
    if isinstance(value, pd.api.extensions.ExtensionArray):
        return things_in(np.asarray(value), seen)
    if isinstance(value, np.ndarray):
        return [value, *things_in(value.base, seen)]
    if isinstance(value, dict):
        return [thing for part in (*value.keys(), *value.values()) for thing in things_in(part, seen)]
    if isinstance(value, list | tuple):
        return [thing for part in value for thing in things_in(part, seen)]
    return (
        [thing for part in vars(value).values() for thing in things_in(part, seen)]
        if hasattr(value, "__dict__")
        else []
    )


def test_a_function_that_looks_for_the_counts_of_its_target_finds_none(cohort):
    hidden = {slide.obs["slide"].iloc[0]: with_counts_everywhere(slide) for slide in cohort}
    shapes = {slide.obs["slide"].iloc[0]: slide.shape for slide in cohort}
    met = []

    def thief(target, refs, *, genes, seed):
        name = target.obs["slide"].iloc[0]
        met.append(name)
        assert name not in refs
        assert target.X is None and target.raw is None and not target.is_view
        assert not len(target.layers) and not len(target.obsp) and not len(target.varm) and not len(target.varp)
        assert set(target.obsm) == {"X_sim", "spatial"} and set(target.var) == set()
        assert set(target.obs) == {"slide", "patient", "array_row", "array_col"}
        assert set(target.uns) == {"spahgc", "spatial"} and set(target.uns["spahgc"]) <= {"embeddings", "patch_um"}
        assert set(target.uns["spahgc"]["embeddings"]["X_sim"]) >= {"name", "dim"}
        assert "note" not in target.uns["spahgc"]["embeddings"]["X_sim"]
        library = target.uns["spatial"]["library"]
        assert set(library) == {"images", "scalefactors"} and set(library["images"]) == {"hires"}
        assert library["scalefactors"] == {"tissue_hires_scalef": 0.5}
        found = things_in(target)
        numbers = [
            np.asarray(thing, dtype=float)
            for thing in found
            if getattr(thing, "dtype", None) and thing.dtype.kind in "iuf"
        ]
        assert len(numbers) >= 5
        for array in numbers:
            assert not np.isin(hidden[name], array).all(), "the counts of a gene"
            assert shapes[name] not in (array.shape, array.shape[::-1])
        words = {str(thing) for thing in found if isinstance(thing, str)}
        words |= {
            str(word) for thing in found if str(getattr(thing, "dtype", "")) == "object" for word in np.ravel(thing)
        }
        assert not words & {f"{value}" for value in hidden[name]}
        return zeros(target, refs, genes=genes, seed=seed)

    with pytest.warns(UserWarning, match="does not belong to its counts"):
        cross_validate(cohort, {"thief": thief})
    assert met == ["P1S1", "P1S2", "P2S1", "P2S2"]


def test_no_array_of_a_target_shares_memory_with_the_slide_or_with_a_reference(cohort):
    arrays = [array for slide in cohort for array in (slide.X.data, slide.obsm["X_sim"], slide.obsm["spatial"])]

    def spy(target, refs, *, genes, seed):
        for adata in (target, *refs.values()):
            mine = [*adata.obsm.values(), *([adata.X.data, adata.layers["counts"].data] if adata.X is not None else [])]
            assert not any(np.shares_memory(own, array) for own in mine for array in arrays)
        return zeros(target, refs, genes=genes, seed=seed)

    cross_validate(cohort, {"spy": spy})


def test_poisoned_counts_of_the_target_change_nothing_of_what_a_function_returns(cohort):
    returned: dict[tuple[str, str], np.ndarray] = {}

    def spy(target, refs, *, genes, seed, run):
        predicted = ridge(target, refs, genes=genes, seed=seed)
        returned[run, target.obs["slide"].iloc[0]] = predicted
        return predicted

    panel = list(cohort[0].var_names[:12])
    cross_validate(cohort, {"mine": functools.partial(spy, run="clean")}, genes=panel)
    cohort[0].X = cohort[0].X[::-1].copy()
    cross_validate(cohort, {"mine": functools.partial(spy, run="other")}, genes=panel)
    assert np.array_equal(returned["clean", "P1S1"], returned["other", "P1S1"])
    assert not np.array_equal(returned["clean", "P2S1"], returned["other", "P2S1"])


def test_context_and_images_are_handed_on(cohort):
    rng = np.random.default_rng(0)
    for slide in cohort:
        slide.obsm["X_sim_context"] = rng.normal(size=(slide.n_obs, 5)).astype(np.float32)
        slide.uns["spahgc"]["embeddings"]["X_sim"]["context"] = "scales 1,2; levels none; rotations 1"
        slide.uns["spahgc"]["slide_mpp"] = 0.5
        slide.obsm["X_other"] = slide.obsm["X_sim"][:, :3].copy()
        slide.uns["spahgc"]["embeddings"]["X_other"] = {"name": "other", "dim": 3, "context": "patch"}
        slide.uns["spatial"] = {"a": {"images": {"hires": np.zeros((5, 5, 3), np.uint8)}, "scalefactors": {"s": 1.0}}}

    def spy(target, refs, *, genes, seed):
        for adata in (target, *refs.values()):
            (slide,) = (slide for slide in cohort if slide.obs["slide"].iloc[0] == adata.obs["slide"].iloc[0])
            for key in ("X_sim", "X_sim_context", "X_other"):
                np.testing.assert_array_equal(adata.obsm[key], slide.obsm[key])
            assert adata.uns["spahgc"]["slide_mpp"] == 0.5
            image = adata.uns["spatial"]["a"]["images"]["hires"]
            assert image.shape == (5, 5, 3) and not image.flags.writeable
        return zeros(target, refs, genes=genes, seed=seed)

    cross_validate(cohort, {"spy": spy}, embedding="X_sim")


# Whom it may harm.


def test_a_function_that_spoils_all_it_is_given_harms_no_other_method(cohort):
    def vandal(target, refs, *, genes, seed):
        shape = target.n_obs, len(genes)
        for adata in (target, *refs.values()):
            adata.obsm["X_sim"][:] = 0
            adata.obs.iloc[:, :] = None
            adata.uns["spahgc"]["embeddings"].clear()
        for ref in refs.values():
            ref.X.data[:] = 9
            ref.layers["counts"].data[:] = 9
        refs.clear()
        genes.clear()
        return np.zeros(shape)

    before = [slide.copy() for slide in cohort]
    expected = cross_validate(cohort, {"ridge": {}, "mine": ridge}).scores
    found = cross_validate(cohort, {"vandal": vandal, "ridge": {}, "mine": ridge}).scores
    found = found[found["method"] != "vandal"].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, expected)
    for slide, old in zip(cohort, before, strict=True):
        assert (slide.X != old.X).nnz == 0 and np.array_equal(slide.obsm["X_sim"], old.obsm["X_sim"])
        assert slide.uns["spahgc"]["embeddings"] == old.uns["spahgc"]["embeddings"]


def test_an_array_that_is_changed_after_it_was_returned_does_not_change_the_scores(cohort):
    kept = []

    def keeper(target, refs, *, genes, seed):
        for old in kept:
            old[:] = 0
        kept.append(ridge(target, refs, genes=genes, seed=seed).astype(np.float32))
        return kept[-1]

    expected = cross_validate(cohort, {"mine": ridge}).scores
    found = cross_validate(cohort, {"mine": keeper}).scores
    pd.testing.assert_frame_equal(found, expected)


def test_an_object_starts_every_fold_as_it_was_handed_over(cohort):
    lines, folds = Lines(), []

    class Spy(Lines):
        def __call__(self, target, refs, *, genes, seed):
            predicted = super().__call__(target, refs, genes=genes, seed=seed)
            folds.append(list(self.seen))
            return predicted

    cross_validate(cohort, {"lines": lines, "spy": Spy(), "bound": lines.method}, group_by="patient")
    assert lines.seen == []
    assert folds == [
        ["P2S1", "P2S2", "P1S1"],
        ["P2S1", "P2S2", "P1S1", "P2S1", "P2S2", "P1S2"],
        ["P1S1", "P1S2", "P2S1"],
        ["P1S1", "P1S2", "P2S1", "P1S1", "P1S2", "P2S2"],
    ]


# What may be passed.


@pytest.mark.parametrize(
    "method",
    [
        functools.partial(ridge, alpha=10.0),
        functools.partial(functools.partial(ridge), alpha=10.0),
        Lines(),
        Lines().method,
        lambda target, refs, genes, seed: ridge(target, refs, genes=genes, seed=seed),
        lambda target, refs, **options: ridge(target, refs, **options),
    ],
    ids=["partial", "partial of a partial", "object", "bound method", "lambda", "any keyword"],
)
def test_whatever_can_be_called_is_a_method(cohort, method):
    expected = cross_validate(cohort, {"mine": ridge}).scores
    pd.testing.assert_frame_equal(cross_validate(cohort, {"mine": method}).scores, expected)


@pytest.mark.parametrize(
    ("method", "name"),
    [
        (functools.partial(functools.partial(ridge), alpha=1.0), "ridge"),
        (Lines(), "Lines"),
        (Lines().method, "Lines.method"),
        (lambda: 0, "<lambda>"),
        (np.add, "add"),
    ],
)
def test_a_function_is_known_by_its_qualified_name(method, name):
    assert qualified_name(method).endswith(name)


def test_lambdas_and_closures_run_in_other_processes(cohort):
    alpha = 10.0

    def local(target, refs, *, genes, seed):
        x = np.vstack([ref.obsm["X_sim"] for ref in refs.values()])
        y = np.vstack([ref[:, genes].X.toarray() for ref in refs.values()])
        return Ridge(alpha).fit(x, y).predict(target.obsm["X_sim"])

    methods = {
        "local": local,
        "lambda": lambda target, refs, *, genes, seed: local(target, refs, genes=genes, seed=seed),
        "partial": functools.partial(local),
    }
    here = cross_validate(cohort, methods)
    there = cross_validate(cohort, methods, n_jobs=2)
    pd.testing.assert_frame_equal(there.scores, here.scores)


def test_an_error_in_another_process_names_method_group_and_slide(cohort):
    def broken(target, refs, *, genes, seed):
        return np.zeros((1, 1)) / refs["nobody"]

    with pytest.raises(
        RuntimeError, match=r'method "mine", with group "P(.)" held out, slide "P\1S1": KeyError: .nobody.'
    ):
        cross_validate(cohort, {"mine": broken}, n_jobs=2)


class NoCopies:
    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __call__(self, target, refs, *, genes, seed):
        return zeros(target, refs, genes=genes, seed=seed)


def with_a_lock():
    lock = threading.Lock()

    def method(target, refs, *, genes, seed):
        with lock:
            return zeros(target, refs, genes=genes, seed=seed)

    return method


@pytest.mark.parametrize(
    ("methods", "arguments", "error", "message"),
    [
        (ridge, {}, TypeError, "methods= is a function. Give it a name"),
        ([ridge, "ridge"], {}, TypeError, "which has no name. Pass a dictionary"),
        ({"mine": Lines}, {}, TypeError, 'method "mine" is the class Lines'),
        (
            {"mine": lambda target, refs: 0},
            {},
            TypeError,
            r'method "mine" is called as \(target, refs, \*, genes, seed\)',
        ),
        ({"mine": lambda target, *, genes, seed: 0}, {}, TypeError, r"and takes \(target, \*, genes, seed\)"),
        ({"mine": 3}, {}, TypeError, 'method "mine" is 3'),
        ({"mine": None}, {}, TypeError, 'method "mine" is None'),
        ({"mine": NoCopies()}, {}, ValueError, 'method "mine" cannot be copied'),
        ({"mine": with_a_lock()}, {"n_jobs": 2}, ValueError, 'method "mine" cannot be sent to another process'),
        ({"mine": "lasso"}, {}, ValueError, '"lasso" is not known'),
    ],
)
def test_what_cannot_be_a_method_is_refused_before_any_fold(cohort, monkeypatch, methods, arguments, error, message):
    monkeypatch.setattr("spahgc.tl._cross_validation.cross_validate.score_folds", lambda *a: pytest.fail("ran"))
    with pytest.raises(error, match=message):
        cross_validate(cohort, methods, **arguments)


def test_what_cannot_be_sent_to_another_process_runs_in_this_one(cohort):
    assert len(cross_validate(cohort, {"mine": with_a_lock()}).scores)


# What it may return.


def as_table(predicted, target, genes):
    return pd.DataFrame(predicted, index=target.obs_names, columns=genes)


RETURNED = {
    "float32": lambda p, target, genes: p.astype(np.float32),
    "table": as_table,
    "table in another order": lambda p, target, genes: as_table(p, target, genes)[genes[::-1]],
    "nullable table": lambda p, target, genes: as_table(p, target, genes).convert_dtypes(),
    "sparse": lambda p, target, genes: csr_matrix(p),
    "sparse array": lambda p, target, genes: csr_array(p),
    "matrix": lambda p, target, genes: np.asmatrix(p),
    "masked without a mask": lambda p, target, genes: np.ma.masked_array(p),
    "in columns": lambda p, target, genes: np.asfortranarray(p),
}


@pytest.mark.parametrize("kind", RETURNED)
def test_a_prediction_may_be_returned_in_many_forms(cohort, kind):
    def method(target, refs, *, genes, seed):
        return RETURNED[kind](ridge(target, refs, genes=genes, seed=seed), target, genes)

    expected = cross_validate(cohort, {"mine": ridge}).scores
    pd.testing.assert_frame_equal(cross_validate(cohort, {"mine": method}).scores, expected)


def test_whole_numbers_are_a_prediction(cohort):
    found = cross_validate(
        cohort, {"mine": lambda t, r, genes, seed: (10 * ridge(t, r, genes=genes, seed=seed)).astype(int)}
    )
    assert found.scores["pearson"].notna().any()


def spoilt(predicted, value):
    predicted[3, 1] = value
    return predicted


REFUSED = {
    "None": (lambda p, target, genes: None, TypeError, "returned NoneType, not a prediction"),
    "a list": (lambda p, target, genes: p.tolist(), TypeError, "returned list"),
    "a tuple": (lambda p, target, genes: (p, p), TypeError, "returned tuple"),
    "a slide": (lambda p, target, genes: target, TypeError, "returned AnnData"),
    "transposed": (lambda p, target, genes: p.T, ValueError, r"returned shape \(\d+, 70\), expected \(70, \d+\)"),
    "one spot less": (lambda p, target, genes: p[1:], ValueError, r"returned shape \(69, "),
    "a number a spot": (lambda p, target, genes: p[:, 0], ValueError, r"returned shape \(70,\)"),
    "one more axis": (lambda p, target, genes: p[None], ValueError, r"returned shape \(1, 70"),
    "NaN": (lambda p, target, genes: spoilt(p, np.nan), ValueError, "returned 1 values that are NaN"),
    "infinite": (lambda p, target, genes: spoilt(p, -np.inf), ValueError, "in 1 genes"),
    "beyond float32": (lambda p, target, genes: spoilt(p, 1e60), ValueError, "or too large"),
    "masked": (lambda p, target, genes: np.ma.masked_array(p, p > 0), ValueError, "values that are NaN"),
    "complex": (lambda p, target, genes: p + 1j, TypeError, "values of type complex"),
    "booleans": (lambda p, target, genes: p > 0, TypeError, "values of type bool"),
    "objects": (lambda p, target, genes: p.astype(object), TypeError, "values of type object"),
    "words in a table": (
        lambda p, target, genes: as_table(p, target, genes).astype(str),
        TypeError,
        "returned columns of type",
    ),
    "other genes": (
        lambda p, target, genes: as_table(p, target, [*genes[1:], "BRCA9"]),
        ValueError,
        'too many "BRCA9"',
    ),
    "a gene less": (lambda p, target, genes: as_table(p, target, genes).iloc[:, 1:], ValueError, "missing are"),
    "a gene twice": (
        lambda p, target, genes: as_table(p, target, genes)[[*genes, genes[0]]],
        ValueError,
        "each of the .* genes once",
    ),
    "no names of spots": (lambda p, target, genes: pd.DataFrame(p, columns=genes), ValueError, "index does not match"),
    "spots in another order": (
        lambda p, target, genes: as_table(p, target, genes).iloc[::-1],
        ValueError,
        "Pass index=target.obs_names",
    ),
    "sparse and too small": (lambda p, target, genes: csr_matrix(p[:, 1:]), ValueError, "returned shape"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_prediction_is_refused_with_method_group_and_slide(cohort, kind):
    change, error, message = REFUSED[kind]

    def method(target, refs, *, genes, seed):
        return change(ridge(target, refs, genes=genes, seed=seed), target, genes)

    with pytest.raises(error, match=rf'method "mine", with group "P1" held out, slide "P1S1": .*{message}'):
        cross_validate(cohort, {"ridge": {}, "mine": method})


def test_a_tensor_is_refused_with_the_way_out(cohort):
    import torch

    with pytest.raises(TypeError, match=r"returned Tensor.*tensor.detach\(\).cpu\(\).numpy\(\)"):
        cross_validate(cohort, {"mine": lambda target, refs, genes, seed: torch.zeros(target.n_obs, len(genes))})


def test_an_error_of_the_function_names_method_group_and_slide_and_is_its_cause(cohort):
    class OwnError(Exception):
        pass

    def broken(target, refs, *, genes, seed):
        if target.obs["slide"].iloc[0] == "P2S2":
            raise OwnError("no convergence")
        return zeros(target, refs, genes=genes, seed=seed)

    with pytest.raises(
        RuntimeError, match='method "mine", with group "P2" held out, slide "P2S2": OwnError: no convergence'
    ) as caught:
        cross_validate(cohort, {"mine": broken})
    assert type(caught.value.__cause__) is OwnError


def test_ctrl_c_in_a_function_stays_ctrl_c(cohort):
    def interrupted(target, refs, *, genes, seed):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cross_validate(cohort, {"mine": interrupted})


def test_warnings_of_a_function_are_said_once(cohort):
    import warnings

    def noisy(target, refs, *, genes, seed):
        warnings.warn("did not converge", stacklevel=1)
        return zeros(target, refs, genes=genes, seed=seed)

    with pytest.warns(UserWarning, match="did not converge") as caught:
        cross_validate(cohort, {"mine": noisy})
    assert sum("did not converge" in str(entry.message) for entry in caught) == 1


# Checkpoints.


def test_finished_folds_of_a_function_are_not_run_again(cohort, tmp_path):
    def never(target, refs, *, genes, seed):
        pytest.fail("a finished fold ran again")

    first = cross_validate(cohort, {"mine": ridge}, checkpoint=tmp_path)
    never.__module__, never.__qualname__ = ridge.__module__, ridge.__qualname__
    again = cross_validate(cohort, {"mine": never}, checkpoint=tmp_path)
    pd.testing.assert_frame_equal(again.scores, first.scores, check_exact=True)


def test_a_function_of_another_name_is_another_method(cohort, tmp_path):
    cross_validate(cohort, {"mine": ridge}, checkpoint=tmp_path)
    with pytest.raises(ValueError, match=r'other inputs \(method "mine": function: '):
        cross_validate(cohort, {"mine": zeros}, checkpoint=tmp_path)
    with pytest.raises(ValueError, match=r'other inputs \(method "mine": '):
        cross_validate(cohort, {"mine": {"method": "ridge"}}, checkpoint=tmp_path)
    cross_validate(cohort, {"another": zeros}, checkpoint=tmp_path)


def test_a_name_that_a_method_of_the_package_has_means_it_unless_something_else_is_said(cohort):
    record = cross_validate(cohort, {"nearest": {}, "mean": {"method": "ridge"}}).record["methods"]
    assert record["nearest"]["method"] == "nearest" and record["mean"]["method"] == "ridge"


def test_a_function_of_a_module_that_other_processes_cannot_import_is_refused_in_words(cohort):
    with pytest.raises(RuntimeError, match='No module named.*functions of "mine".*Pass n_jobs=1'):
        cross_validate(cohort, {"mine": ridge}, n_jobs=2)
