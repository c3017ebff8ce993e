"""What a prediction says of the trust that it deserves: read in one place, for summaries, figures and the report."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from anndata import AnnData

from spahgc._keys import UNS, Obs, Uns, Var
from spahgc._validate import quoted
from spahgc.tl._prediction import prediction_and_panel, prediction_record, reference_spots
from spahgc.tl._trusted import MIN_PCC, trusted_genes

LOW_SUPPORT = 0.05
"""Support below which a spot looks like nothing on the references: it is further from them than all but a twentieth of their
own spots are from each other."""

LIKE_REFERENCES = "a slide like the references"
"""For whom the numbers hold where a prediction does not say it: each reference was held out, and predicted by the others."""


@dataclass(frozen=True)
class TrustRecord:
    """What is known of a prediction.

    Parameters
    ----------
    key, method
        Of the prediction; the method is empty where nothing tells it.
    n_genes, n_spots
        Genes and spots that were predicted.
    n_trusted
        Genes of :func:`spahgc.tl.trusted_genes` at its defaults; ``None`` where nothing is known of any.
    for_whom
        For which kind of target that holds; ``None`` likewise.
    n_unknown
        Spots that look like nothing on the references; ``None`` where there is no support.
    """

    key: str
    method: str
    n_genes: int
    n_spots: int
    n_trusted: int | None
    for_whom: str | None
    n_unknown: int | None

    def lines(self) -> list[str]:
        """Three lines for a reader."""
        spots = "spot" if self.n_spots == 1 else "spots"
        genes = "gene" if self.n_genes == 1 else "genes"
        return [f"{self.n_genes} {genes} predicted at {self.n_spots} {spots}", self._trusted(), self._unknown()]

    def _trusted(self) -> str:
        if self.n_trusted is None:
            by = f'method="{self.method}" says' if self.method else "the prediction says"
            return f"{by} nothing of which genes can be trusted"
        return f"{self.n_trusted} of {self.n_genes} trusted, for {self.for_whom} (expected PCC of at least {MIN_PCC:g})"

    def _unknown(self) -> str:
        if self.n_unknown is None:
            return "nothing is known of which spots look like the references"
        share = f" ({100 * self.n_unknown / self.n_spots:.0f} %)" if self.n_unknown and self.n_spots else ""
        look = "looks" if self.n_unknown == 1 else "look"
        return f"{self.n_unknown} of {self.n_spots} spots{share} {look} like nothing on the references (support below {LOW_SUPPORT:g})"


def trust_record(adata: AnnData, key: str) -> TrustRecord:
    """Read what a prediction says of itself.

    Raises
    ------
    KeyError
        If there is no prediction under this key.
    """
    values, panel = prediction_and_panel(adata, key)
    predicted = np.isfinite(values[:, panel]).any(axis=1) & ~reference_spots(adata, key)
    record = prediction_record(adata, key)
    trusted = Var.cv_pcc(key) in adata.var
    return TrustRecord(
        key=key,
        method=str(record.get("method", "")),
        n_genes=int(panel.sum()),
        n_spots=int(predicted.sum()),
        n_trusted=len(trusted_genes(adata, key=key)) if trusted else None,
        for_whom=for_whom(adata, key) if trusted else None,
        n_unknown=int((unknown_spots(adata, key) & predicted).sum()) if Obs.support(key) in adata.obs else None,
    )


def for_whom(adata: AnnData, key: str) -> str:
    """For which kind of target the trust of a prediction holds, in words."""
    return told_for(adata, key) or LIKE_REFERENCES


def told_for(adata: AnnData, key: str) -> str | None:
    """The same where the prediction says it, ``None`` where it does not."""
    told = prediction_record(adata, key).get(Uns.trust, {}).get("for")
    return None if told is None else str(told)


def unknown_spots(adata: AnnData, key: str, below: float | None = LOW_SUPPORT) -> np.ndarray:
    """Spots that look like nothing on the references, boolean, one entry a spot; none where there is no support.

    Parameters
    ----------
    adata, key
        The slide and its prediction.
    below
        Support below which a spot counts as one; ``None`` for none.
    """
    column = adata.obs.get(Obs.support(key))
    if column is None or below is None:
        return np.zeros(adata.n_obs, dtype=bool)
    return column.to_numpy(dtype=np.float64) < below


def prediction_keys(adata: AnnData, key: str | None) -> list[str]:
    """The key that was asked for, or those of all predictions of a slide.

    Raises
    ------
    KeyError
        If there is none.
    """
    if key is not None:
        return [key]
    keys = [str(name) for name in adata.uns.get(UNS, {}).get(Uns.predictions, {}) if name in adata.layers]
    if not keys:
        raise KeyError(
            f"the slide has no prediction, layers are {quoted(adata.layers)}. Run spahgc.tl.predict(adata, refs) first."
        )
    return keys
