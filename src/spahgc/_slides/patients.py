"""Which patient a slide is of, as far as it says so."""

from __future__ import annotations

from anndata import AnnData

from spahgc._keys import Obs

NOT_NAMED = ("", "nan", "none", "na", "unknown")
"""What stands, in lower case, in ``obs["patient"]`` of a slide whose patient nobody knows."""


def patients_of(slide: AnnData) -> set[str]:
    """Patients that a slide names; none where any spot lacks one."""
    if Obs.patient not in slide.obs:
        return set()
    column = slide.obs[Obs.patient]
    names = set(column.astype(str).str.strip())
    return set() if column.isna().any() or any(name.lower() in NOT_NAMED for name in names) else names
