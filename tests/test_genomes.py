"""Counts of several genomes: the one that a slide is about is kept under its own gene names, or the reader asks."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csr_matrix

import spahgc as sp
from spahgc.io._genomes import MAX_OTHER_SHARE, one_genome


def _slide_files() -> Any:
    """The helper beside this file; pytest's import mode does not put the folder on the path."""
    spec = importlib.util.spec_from_file_location("slide_files", Path(__file__).with_name("slide_files.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["slide_files"] = module
    spec.loader.exec_module(module)
    return module


files = _slide_files()
HUMAN, MOUSE = ["ACTA2", "HLA-A", "MT-CO1", "7SK_1"], ["Acta2", "H2-K1", "mt-Co1"]
FILE = Path("filtered_feature_bc_matrix.h5")


def counts(human: list[str], mouse: list[str], mouse_counts: int, **columns: list[str]) -> AnnData:
    """100 counts of every human gene in each of three spots."""
    x = np.hstack([np.full((3, len(human)), 100), np.full((3, len(mouse)), mouse_counts)]).astype(np.float32)
    return AnnData(csr_matrix(x), var=pd.DataFrame(columns, index=[*human, *mouse]))


def prefixed(prefix: str, names: list[str]) -> list[str]:
    return [prefix + name for name in names]


OF_EACH = ["GRCh38"] * len(HUMAN) + ["mm10"] * len(MOUSE)
IDS = [f"GRCh38_ENSG{i:011d}" for i in range(len(HUMAN))] + [f"mm10___ENSMUSG{i:011d}" for i in range(len(MOUSE))]
KINDS = {
    "filled prefixes and a column": (prefixed("GRCh38_", HUMAN), prefixed("mm10___", MOUSE), {"genome": OF_EACH}),
    "two lines and no column": (prefixed("GRCh38__", HUMAN), prefixed("mm10___", MOUSE), {}),
    "a column alone": (HUMAN, MOUSE, {"genome": OF_EACH}),
    "identifiers alone": (HUMAN, MOUSE, {"gene_ids": IDS}),
    "filled prefixes and identifiers": (prefixed("GRCh38_", HUMAN), prefixed("mm10___", MOUSE), {"gene_ids": IDS}),
    "a column that names both in one": (
        prefixed("GRCh38__", HUMAN),
        prefixed("mm10___", MOUSE),
        {"genome": ["GRCh38_and_mm10"] * len(OF_EACH)},
    ),
    "a column as categories": (HUMAN, MOUSE, {"genome": pd.Categorical(OF_EACH)}),
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_few_counts_of_another_genome_are_left_out_and_said(kind):
    human, mouse, columns = KINDS[kind]
    with pytest.warns(
        UserWarning, match=r'2 genomes: "GRCh38" \(4 genes, 99\.\d+%\), "mm10" \(3 genes, 0\.\d+%\).*3 genes'
    ):
        kept, notes = one_genome(counts(human, mouse, 1, **columns), None, FILE)
    assert list(kept.var_names) == HUMAN
    assert notes == {
        "genome": "GRCh38",
        "n_genes_of_other_genomes": 3,
        "share_of_other_genomes": pytest.approx(3 / 403),
    }
    if "gene_ids" in columns:
        assert list(kept.var["gene_ids"]) == [name.removeprefix("GRCh38_") for name in IDS[:4]]


@pytest.mark.parametrize("kind", list(KINDS))
def test_more_than_the_limit_is_asked_about_with_genomes_and_shares(kind):
    human, mouse, columns = KINDS[kind]
    both = counts(human, mouse, 100, **columns)
    with pytest.raises(ValueError, match=r'"GRCh38" \(4 genes, 57.14%\), "mm10" \(3 genes, 42.86%\).*genome="GRCh38"'):
        one_genome(both, None, FILE)
    for genome, names in (("GRCh38", HUMAN), ("mm10", MOUSE)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert list(one_genome(both, genome, FILE)[0].var_names) == names


def test_the_limit_itself_is_left_out():
    columns = {"genome": ["GRCh38", "mm10"]}
    at_limit = counts(["A"], ["a"], 0, **columns)
    at_limit.X = csr_matrix(
        np.array([[100 - 100 * MAX_OTHER_SHARE, 100 * MAX_OTHER_SHARE]], np.float32).repeat(3, axis=0)
    )
    with pytest.warns(UserWarning, match="5.00%"):
        assert list(one_genome(at_limit, None, FILE)[0].var_names) == ["A"]
    at_limit.X = csr_matrix(np.array([[94, 6]], np.float32).repeat(3, axis=0))
    with pytest.raises(ValueError, match="More than 5% of the counts"):
        one_genome(at_limit, None, FILE)


def test_of_three_genomes_all_but_the_largest_count_together():
    x = np.array([[960, 25, 15]], np.float32).repeat(3, axis=0)
    three = AnnData(csr_matrix(x), var=pd.DataFrame({"genome": ["GRCh38", "mm10", "SARS2"]}, index=["A", "a", "S"]))
    with pytest.warns(UserWarning, match=r'3 genomes: "GRCh38" .*"mm10" .*"SARS2"'):
        assert list(one_genome(three, None, FILE)[0].var_names) == ["A"]
    three.X = csr_matrix(np.array([[92, 4, 4]], np.float32).repeat(3, axis=0))
    with pytest.raises(ValueError, match="mapped to 3 genomes"):
        one_genome(three, None, FILE)


def test_genes_of_no_genome_stay_beside_those_of_the_one_that_is_kept():
    x = np.array([[99, 1, 5]], np.float32).repeat(3, axis=0)
    var = pd.DataFrame({"genome": ["GRCh38", "mm10", None]}, index=["GRCh38_A", "mm10___a", "GFP"])
    with pytest.warns(UserWarning, match="2 genomes"):
        assert list(one_genome(AnnData(csr_matrix(x), var=var), None, FILE)[0].var_names) == ["A", "GFP"]


def test_a_prefix_that_all_genes_share_and_a_column_confirms_is_taken_off():
    single = counts(prefixed("GRCh38_", HUMAN), [], 0, genome=["GRCh38"] * 4, gene_ids=IDS[:4])
    kept, notes = one_genome(single, None, FILE)
    assert list(kept.var_names) == HUMAN and notes == {}
    assert kept.var["gene_ids"].str.startswith("ENSG").all()


def test_a_prefix_that_nothing_confirms_stays_and_is_said():
    single = counts(prefixed("GRCh38_", HUMAN), [], 0)
    with pytest.warns(UserWarning, match='begin with "GRCh38_".*genome="GRCh38"'):
        assert list(one_genome(single, None, FILE)[0].var_names) == prefixed("GRCh38_", HUMAN)
    assert list(one_genome(single, "GRCh38", FILE)[0].var_names) == HUMAN


@pytest.mark.parametrize(
    "names", [["RP11_1", "A", "B"], ["RP11__1", *map(str, range(300))], ["TRAV1_2", "TRBV1_1"], ["A"], ["_A", "__B"]]
)
@pytest.mark.parametrize("genome", [None, "GRCh38"])
def test_names_with_a_line_in_them_are_names(names, genome):
    columns = {} if genome is None else {"genome": [genome] * len(names)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept, notes = one_genome(counts(names, [], 0, **columns), None, FILE)
    assert list(kept.var_names) == names and notes == {}


def test_a_genome_that_is_not_there_is_refused_with_those_that_are():
    human, mouse, columns = KINDS["a column alone"]
    with pytest.raises(ValueError, match='genome="hg19" is none of those .*"GRCh38".*"mm10"'):
        one_genome(counts(human, mouse, 1, **columns), "hg19", FILE)
    with pytest.raises(ValueError, match='genome="hg19": no gene of the counts .* names a genome'):
        one_genome(counts(HUMAN, [], 0), "hg19", FILE)
    with pytest.raises(ValueError, match='genome="hg19" is none of those'):
        one_genome(counts(HUMAN, [], 0, genome=["GRCh38"] * 4), "hg19", FILE)


def test_the_genome_that_the_column_names_alone_may_be_asked_for():
    assert list(one_genome(counts(HUMAN, [], 0, genome=["GRCh38"] * 4), "GRCh38", FILE)[0].var_names) == HUMAN


def test_counts_that_are_all_zero_tell_no_genome():
    human, mouse, columns = KINDS["a column alone"]
    empty = counts(human, mouse, 0, **columns)
    empty.X = csr_matrix(empty.shape, dtype=np.float32)
    with pytest.raises(ValueError, match="Pass genome="):
        one_genome(empty, None, FILE)


# Through the readers.


@pytest.fixture(scope="module")
def slide() -> AnnData:
    return sp.datasets.simulated(1, n_patients=1, n_spots=24, n_genes=20, seed=1)[0]


def with_mouse(slide: AnnData, mouse_counts: int) -> AnnData:
    """The slide with 5 genes of a mouse, under the names of a combined reference."""
    x = np.hstack([slide.X.toarray(), np.full((slide.n_obs, 5), mouse_counts)]).astype(np.float32)
    names = [*prefixed("GRCh38_", slide.var_names), *(f"mm10___Gene{i}" for i in range(5))]
    both = AnnData(csr_matrix(x), obs=slide.obs, var=pd.DataFrame(index=names), obsm=dict(slide.obsm), uns=slide.uns)
    return both


def confirm_genomes(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        names = [name.decode() for name in file["matrix/features/name"][:]]
        del file["matrix/features/genome"]
        file["matrix/features/genome"] = np.array([name.split("_")[0].encode() for name in names])


def test_visium_keeps_one_genome_and_totals_over_its_genes(slide, tmp_path):
    files.write_visium(tmp_path / "both", with_mouse(slide, 1))
    files.write_visium(tmp_path / "human", slide)
    confirm_genomes(tmp_path / "both/outs/filtered_feature_bc_matrix.h5")
    with pytest.warns(UserWarning, match='2 genomes: "GRCh38"'):
        found = sp.io.visium(tmp_path / "both")
    expected = sp.io.visium(tmp_path / "human")
    assert list(found.var_names) == list(slide.var_names)
    assert set(found.var["genome"]) == {"GRCh38"}
    np.testing.assert_array_equal(found.X.toarray(), expected.X.toarray())
    np.testing.assert_array_equal(found.obs["spahgc_total_counts"], expected.obs["spahgc_total_counts"])
    (record,) = found.uns["spatial"].values()
    assert record["metadata"]["genome"] == "GRCh38" and record["metadata"]["n_genes_of_other_genomes"] == 5
    found.write_h5ad(tmp_path / "again.h5ad")


def test_visium_asks_which_genome_is_meant_and_takes_the_answer(slide, tmp_path):
    files.write_visium(tmp_path / "both", with_mouse(slide, 400))
    confirm_genomes(tmp_path / "both/outs/filtered_feature_bc_matrix.h5")
    with pytest.raises(ValueError, match='Pass genome= with its name, e.g. genome="'):
        sp.io.visium(tmp_path / "both")
    assert list(sp.io.visium(tmp_path / "both", genome="mm10").var_names) == [f"Gene{i}" for i in range(5)]
    assert list(sp.io.visium(tmp_path / "both", genome="GRCh38").var_names) == list(slide.var_names)


def test_bins_and_spots_share_their_gene_names(slide, tmp_path):
    files.write_visium_hd(tmp_path / "HD", with_mouse(slide, 400))
    for path in tmp_path.glob("HD/**/filtered_feature_bc_matrix.h5"):
        confirm_genomes(path)
    with pytest.raises(ValueError, match="2 genomes"):
        sp.io.visium_hd(tmp_path / "HD", bin_um=16)
    assert list(sp.io.visium_hd(tmp_path / "HD", bin_um=16, genome="GRCh38").var_names) == list(slide.var_names)


@pytest.mark.data
def test_organoids_name_one_genome_and_keep_their_genes(her2st):
    organoids = sp.io.visium(her2st.parent / "kidney_organoid" / "B1")
    assert organoids.n_vars == 33538 and "ACTA2" in organoids.var_names
    (record,) = organoids.uns["spatial"].values()
    assert "genome" not in record["metadata"]
