"""Shallow and small slides have a panel as well; where its genes are ranked in another way, that is said."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
from anndata import AnnData
from scipy.sparse import csr_matrix
from tests.conftest import EMBEDDING, RECORD

import spahgc as sp
from spahgc.pp._genes import RESIDUALS, _largest_residuals

SHALLOW = "too shallow, or has too few genes, for the curve of variance on mean that ranks its genes"


def slide(name: str, n_spots: int = 60, depth: float = 300, n_genes: int = 1500, seed: int = 0) -> AnnData:
    """Counts of Poisson, of a few of which the whole slide consists where it is shallow."""
    rng = np.random.default_rng([seed, *name.encode()])
    share = np.random.default_rng(seed).gamma(0.3, size=n_genes) + 1e-6
    counts = rng.poisson(depth * share / share.sum() * rng.gamma(5, 0.2, size=(n_spots, 1)), (n_spots, n_genes))
    counts[:, 0] += 1
    adata = AnnData(csr_matrix(counts.astype(np.float32)), obsm={"spatial": rng.uniform(0, 1000, (n_spots, 2))})
    adata.var_names = [f"g{i:04d}" for i in range(n_genes)]
    adata.obs_names = [f"{name}-{i}" for i in range(n_spots)]
    adata.obs["slide"] = name
    adata.obsm[EMBEDDING] = rng.normal(size=(n_spots, 24)).astype(np.float32)
    adata.uns["spahgc"] = {"embeddings": {EMBEDDING: dict(RECORD)}}
    return adata


def with_counts(name: str, counts: np.ndarray) -> AnnData:
    adata = slide(name, n_spots=len(counts), n_genes=counts.shape[1])
    adata.X = csr_matrix(counts.astype(np.float32))
    return adata


def few_means(name: str, n_spots: int = 60, n_genes: int = 200, seed: int = 0) -> AnnData:
    """Every gene is seen once in three, four or five spots, so that the curve has three places to stand on."""
    rng = np.random.default_rng([seed, *name.encode()])
    counts = np.zeros((n_spots, n_genes))
    for gene in range(n_genes):
        counts[rng.permutation(n_spots)[: rng.integers(3, 6)], gene] = 1
    counts[np.arange(n_spots), rng.integers(n_genes, size=n_spots)] += 1
    return with_counts(name, np.minimum(counts, 1))


def test_genes_of_few_different_means_are_ranked_and_it_is_said():
    with pytest.warns(
        UserWarning, match=rf'reference "a" is {SHALLOW} \(.*\)\. They were ranked (with a span|by the var)'
    ):
        genes = sp.pp.select_genes(few_means("a"), n_top=50)
    assert len(genes) == 50


@pytest.mark.parametrize(
    ("n_spots", "depth", "n_genes"),
    [(300, 300, 3000), (60, 300, 1500), (400, 20, 3000), (60, 40, 6000), (5, 300, 1500)],
)
def test_a_shallow_slide_has_a_panel(n_spots, depth, n_genes):
    adata = slide("a", n_spots, depth, n_genes)
    n_seen = int((np.asarray((adata.X > 0).sum(axis=0)).ravel() >= 3).sum())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=f".*{SHALLOW}")
        assert len(sp.pp.select_genes(adata, n_top=n_seen // 2)) == n_seen // 2


def test_residuals_rank_first_what_varies_between_the_halves_of_a_slide():
    means = np.full((80, 200), 0.3)
    means[:40, :5] = 4
    means[:, 5:8] = 2  # as abundant, and the same everywhere
    counts = np.random.default_rng(0).poisson(means).astype(float)
    chosen = _largest_residuals(csr_matrix(counts), 5)
    np.testing.assert_array_equal(np.flatnonzero(chosen), np.arange(5))


def test_what_ranked_the_genes_stands_in_bank_prediction_and_file(tmp_path, quick):
    refs = [few_means("a", n_genes=1300), slide("b", n_genes=1300, depth=9000)]
    with pytest.warns(UserWarning, match=SHALLOW):
        bank = sp.pp.reference_bank(refs)
    made = bank.uns["spahgc"]["bank"]["gene_selection"]
    assert list(made) == ["a"] and (made["a"].startswith("loess, span") or made["a"] == RESIDUALS)
    bank.write_h5ad(tmp_path / "bank.h5ad")
    assert ad.read_h5ad(tmp_path / "bank.h5ad").uns["spahgc"]["bank"]["gene_selection"] == made
    target = slide("c", n_genes=1300)
    sp.tl.predict(target, bank, preset=quick)
    assert target.uns["spahgc"]["predictions"]["spahgc"]["gene_selection"] == made


def test_a_bank_on_disk_keeps_what_ranked_its_genes(tmp_path):
    with pytest.warns(UserWarning, match=SHALLOW):
        first = sp.pp.reference_bank(few_means("a", n_genes=1300), path=tmp_path / "bank", n_neighbors=3)
    second = sp.pp.reference_bank(slide("b", n_genes=1300), path=tmp_path / "bank", append=True)
    of_both = [bank.uns["spahgc"]["bank"]["gene_selection"] for bank in (first, second)]
    assert dict(of_both[0]) == dict(of_both[1])


def test_the_default_fits_and_predicts_shallow_slides(quick_default):
    refs = [few_means(name, n_spots=60, n_genes=1300) for name in "ab"]
    with pytest.warns(UserWarning, match=SHALLOW):
        target = sp.tl.predict(few_means("c", n_genes=1300), refs, preset=quick_default, copy=True)
    panel = target.var["spahgc_panel"].to_numpy()
    assert panel.any() and np.isfinite(target.layers["spahgc"][:, panel]).all()


def test_where_the_curve_fits_its_genes_are_scanpys_own_and_nothing_is_said():
    adata = slide("a", 200, 5000)
    seen = np.asarray((adata.X > 0).sum(axis=0)).ravel() >= 3
    expected = sc.pp.highly_variable_genes(adata[:, seen].copy(), flavor="seurat_v3", n_top_genes=100, inplace=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        genes = sp.pp.select_genes(adata, n_top=100)
        bank = sp.pp.reference_bank(adata)
    assert genes == sorted(expected.index[expected["highly_variable"]])
    assert "gene_selection" not in bank.uns["spahgc"]["bank"]


FEW = """
import json, os, sys, warnings
import numpy as np, scanpy, spahgc as sp
from anndata import AnnData

sp.pp.select_genes
for n_varying in range(4):
    if not os.fork():  # the libraries are loaded once
        x = np.ones((20, 10), np.float32)
        x[:, :n_varying] += np.arange(20)[:, None] % (2 + np.arange(n_varying))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            genes = sp.pp.select_genes(AnnData(x), n_top=5)
        print(json.dumps([genes, [str(each.message) for each in said]]), flush=True)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.wait()[1])
    if status:
        print(json.dumps(status), flush=True)
"""


@pytest.fixture(scope="module")
def of_few() -> list:
    """Genes and warnings for 0 to 3 genes that vary; a number where the process was ended by the system."""
    done = subprocess.run([sys.executable, "-c", FEW], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
@pytest.mark.parametrize("n_varying", [0, 1, 2, 3])
def test_genes_too_few_for_a_curve_do_not_end_the_process(of_few, n_varying):
    """The library that fits the curve is ended by the system on fewer than four."""
    assert isinstance(of_few[n_varying], list), of_few
    genes, said = of_few[n_varying]
    assert len(genes) == 5 and any(SHALLOW in message for message in said)
    assert {str(gene) for gene in range(n_varying)} <= set(genes)


GRID = """
import itertools, json, sys, warnings
import numpy as np, spahgc as sp
from anndata import AnnData
warnings.simplefilter("ignore")

def counts(kind, n_spots, depth, n_genes, repeats, rng):
    share = rng.gamma(0.3, size=n_genes) + 1e-6
    x = rng.poisson(depth * share / share.sum(), (n_spots, n_genes)).astype(float)
    if kind == "alike": x = rng.poisson(depth / n_genes, (n_spots, n_genes)).astype(float)
    if kind == "seen or not": x = np.minimum(x, 1)
    if kind == "one value": x[:] = 3
    if kind == "outlier": x[0, 0] = 1e9
    if kind == "negative": x = np.vstack([-np.ones(x.shape[1]), rng.normal(size=(len(x) - 1, x.shape[1]))])
    if kind == "huge": x *= 1e15
    if kind == "tiny": x *= 1e-15
    return np.repeat(x[:, : max(1, n_genes // repeats)], repeats, axis=1).astype(np.float32)

kinds = ["poisson", "alike", "seen or not", "one value", "outlier", "negative", "huge", "tiny"]
done = []
for case in itertools.product(kinds, (1, 3, 60), (20, 5000), (4, 10, 300), (1, 5)):
    x = counts(*case, np.random.default_rng(0))
    n_seen = int(((x > 0).sum(axis=0) >= 3).sum())
    n_top = max(1, n_seen // 3)
    try:
        genes = sp.pp.select_genes(AnnData(x), n_top=n_top)
    except ValueError as error:
        unclear = case[0] == "tiny" and "nothing tells what its values are" in str(error)
        nothing = n_seen == 0 and str(error).startswith("no gene is among the 1 most variable")
        assert unclear or nothing, (case, error)
        genes = []
        if unclear:
            done.append(0)
            continue
    assert len(genes) == min(n_top, n_seen), (case, len(genes))
    done.append(len(genes))
print(len(done))
"""


def test_a_panel_comes_of_any_counts_and_no_process_ends_or_hangs():
    done = subprocess.run([sys.executable, "-c", GRID], capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == 8 * 3 * 2 * 3 * 2


# Nothing left.


def test_references_without_a_variable_gene_in_common_are_named():
    first, second = slide("a", depth=5000, n_genes=50), slide("b", depth=5000, n_genes=50, seed=9)
    with pytest.raises(
        ValueError, match=r'no gene is among the 1 most variable of every reference \("a", "b"\)\. Raise'
    ):
        sp.pp.select_genes([first, second], n_top=1)


def test_a_reference_that_has_seen_no_gene_often_enough_is_named():
    empty = with_counts("b", np.eye(60)[:, :50])
    with pytest.raises(ValueError, match='In "b" no gene is seen in 3 spots: leave these out, or check their counts'):
        sp.pp.select_genes([slide("a", n_genes=50), empty])


@pytest.mark.parametrize("name", ["n_top", "n_abundant", "min_spots"])
def test_a_negative_number_of_genes_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 0, found -1"):
        sp.pp.select_genes(slide("a"), **{name: -1})


def test_a_reference_of_fewer_genes_than_asked_contributes_all_of_them():
    counts = np.random.default_rng(0).poisson(3, size=(60, 40))
    assert len(sp.pp.select_genes(with_counts("a", counts), n_top=100)) == 40


def test_no_gene_of_high_variance_leaves_those_of_high_mean():
    assert len(sp.pp.select_genes(slide("a", n_genes=50), n_top=0, n_abundant=5)) == 5
