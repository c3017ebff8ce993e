"""What a target is to the references: of a known patient or of a new one."""

from __future__ import annotations

from anndata import AnnData

from spahgc._linear.trust import PATIENT, PLACED, SECTION
from spahgc._slides.patients import patients_of
from spahgc.pp._bank.references import bank_patients


def target_case(target: AnnData, bank: AnnData, *, placed: bool, measured: bool, group: str | None = None) -> str:
    """For which kind of target trust is told, see :data:`spahgc._linear.trust.CASES`.

    Parameters
    ----------
    target
        The slide; its ``obs["patient"]`` counts, where it names one.
    bank
        The references.
    placed
        Whether a reference lies on the target, by their images: sections of one block are of one patient, whether or not
        they name him.
    measured
        Whether a part of the target is a reference itself.
    group
        Column of its ``obs`` in the place of ``obs["patient"]``.
    """
    if measured:
        return PLACED if placed else SECTION
    named, known = patients_of(target, group), set(bank_patients(bank).values())
    if named and known:
        return PATIENT if named.isdisjoint(known) else PLACED if placed else SECTION
    return PLACED if placed else PATIENT
