"""Names of genes that are not there: what may have been meant, wherever genes are named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anndata import AnnData

import spahgc as sp
from spahgc import cli
from spahgc._validate import check_genes, did_you_mean

HUMAN = ["ERBB2", "MKI67", "MS4A1", "CD274", "HLA-DRA", "KRT5"]
MOUSE = [name.capitalize() for name in HUMAN]


@pytest.mark.parametrize(
    ("asked", "names", "meant"),
    [
        ("HER2", HUMAN, "ERBB2"),
        ("Ki-67", HUMAN, "MKI67"),
        ("PD-L1", HUMAN, "CD274"),
        ("CD20", HUMAN, "MS4A1"),
        ("erbb2", HUMAN, "ERBB2"),
        ("ERBB2", MOUSE, "Erbb2"),
        ("HER2", MOUSE, "Erbb2"),
        ("HLA.DRA", HUMAN, "HLA-DRA"),
        ("ERBB22", HUMAN, "ERBB2"),
        ("ENSG00000141736", ["ENSG00000141736.14", "ENSG00000141510.18"], "ENSG00000141736.14"),
    ],
)
def test_an_alias_a_case_a_species_a_hyphen_or_a_slip_leads_to_the_gene(
    asked: str, names: list[str], meant: str
) -> None:
    with pytest.raises(KeyError, match=f'1 of 1 genes not found in the slide: "{asked}".* Did you mean "{meant}"'):
        check_genes([asked], names, "the slide")


@pytest.mark.parametrize(
    ("asked", "names"),
    [("QWERTZ", HUMAN), ("ENSG00000141736", ["ENSG00000141737", "ENSG00000141756"]), ("ERBB2", ["ENSG00000141736"])],
)
def test_where_nothing_is_near_nothing_is_suggested(asked: str, names: list[str]) -> None:
    assert did_you_mean([asked], names) == ""


def test_of_several_names_each_says_by_which_it_is_meant() -> None:
    assert did_you_mean(["HER2", "QWERTZ", "cd20"], HUMAN) == ' Did you mean "ERBB2" by "HER2", "MS4A1" by "cd20"?'


@pytest.fixture(scope="module")
def predicted() -> AnnData:
    """A slide with predictions of three human genes."""
    (slide,) = sp.datasets.simulated(1, n_patients=1, n_spots=40, n_genes=20, seed=2)
    slide.var_names = ["ERBB2", "MKI67", "CD8A", *slide.var_names[3:]]
    slide.layers["spahgc"] = np.full(slide.shape, np.nan, np.float32)
    slide.layers["spahgc"][:, :3] = slide.layers["truth"][:, :3]
    slide.var["spahgc_panel"] = np.arange(slide.n_vars) < 3
    return slide


ASKED: dict[str, Callable[[AnnData, Path], Any]] = {
    "spatial_genes": lambda slide, folder: sp.pl.spatial_genes(slide, ["HER2"], show=False),
    "report": lambda slide, folder: sp.pl.report(slide, folder / "a.html", genes=["HER2"]),
    "geojson": lambda slide, folder: sp.io.write_geojson(slide, folder / "a.geojson", genes=["HER2"]),
    "tissuumaps": lambda slide, folder: sp.io.write_tissuumaps(slide, folder / "a", genes="HER2"),
    "cellxgene": lambda slide, folder: sp.io.write_cellxgene(slide, folder / "a.h5ad", genes=["HER2"]),
    "select, as references": lambda slide, folder: sp.pp.reference_bank([slide], genes=["HER2"], embedding="truth_domains"),
    "cross_validate": lambda slide, folder: sp.tl.cross_validate(
        [slide, sp.datasets.simulated(2, n_patients=2, n_spots=40, n_genes=20, seed=3)[1]],
        genes=["FLAT1"], embedding="truth_domains", methods=["mean"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("where", ASKED)
def test_wherever_genes_are_named_it_is_said_which_was_meant(predicted: AnnData, tmp_path: Path, where: str) -> None:
    with pytest.raises(KeyError, match=r'Did you mean "(ERBB2|FLAT\d+)"'):
        ASKED[where](predicted, tmp_path)


@pytest.mark.parametrize("command", [["plot"], ["report"], ["export", "--to", "qupath"]])
def test_the_shell_says_it_as_well(
    predicted: AnnData, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    predicted.write_h5ad(tmp_path / "slide.h5ad")
    ending = {"plot": ".png", "report": ".html", "export": ".geojson"}[command[0]]
    name, *more = command
    with pytest.raises(SystemExit) as stopped:
        cli.main([name, str(tmp_path / "slide.h5ad"), *more, "--gene", "Her2", "-o", str(tmp_path / f"a{ending}")])
    assert stopped.value.code == 2
    assert 'Did you mean "ERBB2"?' in capsys.readouterr().err


def test_references_of_another_species_are_told_by_their_names(cohort: list[AnnData]) -> None:
    target, *refs = cohort
    target.var_names = [f"Gene{place}" for place in range(target.n_vars)]
    for ref in refs:
        ref.var_names = [f"GENE{place}" for place in range(ref.n_vars)]
    with pytest.raises(ValueError, match='the target has none of the 60 genes.* Did you mean "Gene0" by "GENE0"'):
        sp.tl.predict(target, refs, method="mean", genes="all")
    refs[0].var_names = target.var_names
    with pytest.raises(ValueError, match='no gene in common.* Did you mean "G[Ee][Nn][Ee]0" by "G[Ee][Nn][Ee]0"'):
        sp.tl.predict(target, refs, method="mean")


def test_contributions_to_a_gene_by_another_name(
    target: AnnData, refs: list[AnnData], line_and_graph: sp.Parameters
) -> None:
    for slide in [target, *refs]:
        slide.var_names = ["ERBB2", *slide.var_names[1:]]
    model = sp.tl.fit(refs, genes=list(target.var_names[:3]), preset=line_and_graph, trust=False)
    sp.tl.predict(target, model=model)
    with pytest.raises(KeyError, match='"HER2" not found in the panel of the model.* Did you mean "ERBB2"'):
        sp.tl.attribution(target, target.obs_names[0], gene="HER2", model=model)
