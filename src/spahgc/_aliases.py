"""What pathologists call a gene: names of proteins, stains and antibodies, and what somebody who mistyped may have meant.

The table ``_aliases.csv`` was put together by hand for the proteins that are stained most often in pathology. Its column
``source`` says what kind of name each is: an alias symbol, previous symbol or approved name of the HGNC
(https://www.genenames.org), a name of the CD nomenclature of the Human Leucocyte Differentiation Antigens workshops, an
antibody clone, or the usual name of a stain. An antibody that meets the products of several genes has a row for each, the
one that is meant first. Some names are approved symbols of other genes as well (TTF1, MIB1, SF1, MUM1): a gene that is there
under the name itself always goes first.
"""

from __future__ import annotations

import csv
import difflib
import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

MAX_SUGGESTIONS = 3
"""Names that are suggested for one that is not there."""
LEAST_LIKENESS = 0.75
"""Ratio of `difflib` from which another name is close, 0 to 1; "ERBB22" and "ERBB2" have 0.91."""
GREEK = {"α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "κ": "kappa", "λ": "lambda"}
VERSION = re.compile(r"^(ENS[A-Z]*G\d+)\.\d+$", re.IGNORECASE)
"""An Ensembl identifier with its version."""


def aliases() -> dict[str, str]:
    """The gene that is meant first by each name.

    Returns
    -------
    Symbols of the HGNC by name, in capitals.

    Examples
    --------
    >>> from spahgc._aliases import aliases
    >>> aliases()["HER2"], aliases()["CD20"], aliases()["CK5/6"]
    ('ERBB2', 'MS4A1', 'KRT5')
    """
    return {alias: symbols[0] for alias, symbols in alias_table().items()}


@cache
def alias_table() -> dict[str, tuple[str, ...]]:
    """All genes that are meant by each name, in capitals."""
    table: dict[str, tuple[str, ...]] = {}
    text = files("spahgc").joinpath("_aliases.csv").read_text("utf-8")
    for row in csv.DictReader(text.splitlines()):
        table[row["alias"]] = (*table.get(row["alias"], ()), row["symbol"])
    return table


def meant_by(name: str) -> tuple[str, ...]:
    """Symbols of the HGNC that go by this name, however it is written ("Ki 67", "ki-67"); none if it is no alias."""
    return _plain_table().get(plain_name(name), ())


def did_you_mean(name: str, names: Iterable[str]) -> list[str]:
    """What somebody may have meant who asks for a name that is not there.

    Parameters
    ----------
    name
        What was asked for.
    names
        What there is.

    Returns
    -------
    At most three of `names`: those of which it is another name, else those that differ by case (the same gene of mouse and
    man), hyphens or the version of an identifier alone, else those that are spelt much the same. Empty if there are none.

    Examples
    --------
    >>> from spahgc._aliases import did_you_mean
    >>> (
    ...     did_you_mean("HER2", ["ERBB2", "ESR1"]),
    ...     did_you_mean("ki67", ["Mki67"]),
    ...     did_you_mean("EPCAN", ["EPCAM", "MUC1"]),
    ... )
    (['ERBB2'], ['Mki67'], ['EPCAM'])
    """
    here: dict[str, list[str]] = {}
    for each in names:
        here.setdefault(plain_name(each), []).append(str(each))
    asked = plain_name(name)
    found = list(here.get(asked, []))
    for symbol in meant_by(name):
        found += here.get(plain_name(symbol), [])
    if not found:
        # A slide may have the alias where the symbol is asked for.
        found = [each for alias in _other_names(asked) for each in here.get(alias, [])]
    if not found:
        close = difflib.get_close_matches(asked, here, n=MAX_SUGGESTIONS, cutoff=LEAST_LIKENESS)
        found = [each for plain in close for each in here[plain]]
    return [each for each in dict.fromkeys(found) if each != name][:MAX_SUGGESTIONS]


def plain_name(name: str) -> str:
    """A name in capitals without hyphens, blanks and versions, so that spellings of the same name meet."""
    text = VERSION.sub(r"\1", str(name).strip())
    for letter, word in GREEK.items():
        text = text.replace(letter, word)
    return "".join(each for each in unicodedata.normalize("NFKC", text).upper() if each.isalnum()) or text


@cache
def _plain_table() -> dict[str, tuple[str, ...]]:
    return {plain_name(alias): symbols for alias, symbols in alias_table().items()}


def _other_names(plain: str) -> list[str]:
    """Names of the table under which a symbol goes, plain."""
    return [alias for alias, symbols in _plain_table().items() if plain == plain_name(symbols[0])]
