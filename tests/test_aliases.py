"""Names of pathology for genes, and what somebody who mistyped may have meant."""

from __future__ import annotations

import csv
from importlib.resources import files

import pytest

from spahgc._aliases import alias_table, aliases, did_you_mean, meant_by, plain_name


@pytest.mark.parametrize(
    ("alias", "symbol"),
    [("HER2", "ERBB2"), ("KI67", "MKI67"), ("CD20", "MS4A1"), ("PD-L1", "CD274"), ("P53", "TP53"), ("SMA", "ACTA2")],
)
def test_a_name_of_pathology_leads_to_its_gene(alias, symbol):
    assert aliases()[alias] == symbol


@pytest.mark.parametrize("spelling", ["Ki-67", "KI 67", "ki67", "Ki_67"])
def test_a_name_is_found_however_it_is_written(spelling):
    assert meant_by(spelling) == ("MKI67",)


def test_an_antibody_that_meets_several_genes_names_all_of_them():
    assert meant_by("CK5/6") == ("KRT5", "KRT6A")
    assert meant_by("CD3") == ("CD3E", "CD3D", "CD3G")
    assert meant_by("S-100") == ("S100B", "S100A1")


def test_greek_letters_are_read():
    assert meant_by("α-SMA") == ("ACTA2",) and meant_by("β-catenin") == ("CTNNB1",)


def test_every_row_has_a_source_and_capitals_and_no_two_names_meet():
    rows = list(csv.DictReader(files("spahgc").joinpath("_aliases.csv").read_text("utf-8").splitlines()))
    assert len(rows) > 200 and all(set(row) == {"alias", "symbol", "source"} for row in rows)
    assert all(row["alias"] == row["alias"].upper() and row["symbol"] and row["source"] for row in rows)
    assert len({(row["alias"], row["symbol"]) for row in rows}) == len(rows)
    assert len({plain_name(alias) for alias in alias_table()}) == len(alias_table())
    assert all(alias not in symbols for alias, symbols in alias_table().items())


@pytest.mark.parametrize(
    ("asked", "there", "meant"),
    [
        ("HER2", ["ESR1", "ERBB2"], ["ERBB2"]),
        ("her2", ["Esr1", "Erbb2"], ["Erbb2"]),
        ("Erbb2", ["ERBB2"], ["ERBB2"]),
        ("ERBB2", ["HER2"], ["HER2"]),
        ("CK5/6", ["KRT6A", "KRT5", "KRT7"], ["KRT5", "KRT6A"]),
        ("NKX2.1", ["NKX2-1"], ["NKX2-1"]),
        ("HLADRA", ["HLA-DRA"], ["HLA-DRA"]),
        ("ENSG00000141736.14", ["ENSG00000141736"], ["ENSG00000141736"]),
        ("EPCAN", ["EPCAM", "MUC1"], ["EPCAM"]),
        ("XYZ", ["EPCAM", "MUC1"], []),
        ("", ["EPCAM"], []),
        ("EPCAM", ["EPCAM"], []),
    ],
)
def test_what_may_have_been_meant(asked, there, meant):
    assert did_you_mean(asked, there) == meant


def test_at_most_three_are_suggested():
    assert len(did_you_mean("KRT", [f"KRT{number}" for number in range(30)])) <= 3
