"""Every name under which the package reads or writes AnnData, and the units of what lies there."""

from __future__ import annotations

UNITS = "log1p counts per 10,000"
"""Units of measured expression inside the package and of every prediction."""

UNITS_AS_GIVEN = "as given"
"""Units of expression that was handed over already transformed."""

COUNTS_PER_SPOT = 10_000.0
"""Counts to which every spot is scaled before ``log1p``."""

SPATIAL = "spatial"
"""``obsm``: spot centres ``(x, y)`` in full-resolution pixels. ``uns``: images and scale factors, a library each."""

UNS = "spahgc"
"""``uns``: everything that is needed to repeat what the package wrote."""


SCORES = ("pearson", "spearman", "rmse", "mae")
"""What an evaluation says of a gene, a column of ``var`` each."""


class Obs:
    """Columns of ``obs``."""

    array_row = "array_row"
    array_col = "array_col"
    slide = "slide"
    patch_padded = "spahgc_patch_padded"
    """True where the patch of a spot reaches past the image and was padded."""


class Obsm:
    """Keys of ``obsm``."""

    cross_graph = "spahgc_cs"
    """CSR, target spots x bank spots, values = cosine similarity."""

    @staticmethod
    def embedding(encoder: str) -> str:
        """Spots x dim, float32."""
        return f"X_{encoder}"


class Obsp:
    """Keys of ``obsp``."""

    spatial_connectivities = "spatial_connectivities"
    spatial_distances = "spatial_distances"
    reference_connectivities = "spahgc_rs_connectivities"
    """CSR, bank spots x bank spots, values = cosine similarity of embedding and expression."""


class Var:
    """Columns of ``var``; those of a prediction carry its key."""

    @staticmethod
    def panel(key: str) -> str:
        """True for the genes that were predicted."""
        return f"{key}_panel"

    @staticmethod
    def score(key: str, name: str) -> str:
        """A gene's agreement with the measurement, e.g. ``spahgc_pearson``."""
        return f"{key}_{name}"


class Uns:
    """Entries of ``uns["spahgc"]``."""

    embeddings = "embeddings"
    """One encoder record for each embedding key."""
    slide_mpp = "slide_mpp"
    """Microns per pixel of the slide's full-resolution image."""
    patch_um = "patch_um"
    """Width of a patch in microns, for each embedding key."""
    bank = "bank"
    """How a bank of references was made."""
    predictions = "predictions"
    """One record for each prediction key."""
    evaluations = "evaluations"
    """One summary for each prediction key."""
