"""Which patient a slide is of, as far as it says so."""

from __future__ import annotations

from collections.abc import Iterable

from anndata import AnnData

from spahgc._keys import Obs
from spahgc._validate import quoted

NOT_NAMED = ("", "nan", "none", "na", "unknown")
"""What stands, in lower case, in ``obs["patient"]`` of a slide whose patient nobody knows."""


def patients_of(slide: AnnData, group: str | None = None) -> set[str]:
    """Patients that a slide names, in ``obs["patient"]`` or another column; none where any spot lacks one."""
    name = Obs.patient if group is None else group
    if name not in slide.obs:
        return set()
    column = slide.obs[name]
    names = set(column.astype(str).str.strip())
    return set() if column.isna().any() or any(name.lower() in NOT_NAMED for name in names) else names


def with_groups(slides: AnnData | Iterable[AnnData], group: str) -> list[AnnData]:
    """Slides whose patients are what another column of ``obs`` names; the objects are not changed, and arrays are shared.

    Raises
    ------
    KeyError
        If a slide lacks the column.
    """
    grouped = []
    for number, slide in enumerate([slides] if isinstance(slides, AnnData) else slides, start=1):
        if group not in slide.obs:
            raise KeyError(
                f'group="{group}" is no column of obs of reference {number}: columns are {quoted(slide.obs.columns)}. Name in each '
                "reference what is held out together, or leave group= out."
            )
        grouped.append(
            AnnData(
                slide.X,
                obs=slide.obs.assign(**{Obs.patient: slide.obs[group].astype(object)}),
                var=slide.var,
                uns=dict(slide.uns),
                raw=slide.raw,
                **{name: dict(getattr(slide, name)) for name in ("obsm", "layers", "obsp", "varm", "varp")},
            )
        )
    return grouped
