"""Training, as a function."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from anndata import AnnData

from spahgc._parameters import Parameters
from spahgc.model import SpaHGC

if TYPE_CHECKING:
    from spatialdata import SpatialData


def fit(
    refs: AnnData | SpatialData | Iterable[AnnData | SpatialData | str | Path] | str | Path,
    *,
    genes: Sequence[str] | str | None = None,
    embedding: str | None = None,
    layer: str | None = None,
    units: str | None = None,
    preset: str | Parameters = "default",
    seed: int = 0,
    device: str | None = None,
    trust: bool = True,
    group: str | None = None,
    table_key: str | None = None,
) -> SpaHGC:
    """Train a model on measured slides.

    Each reference in turn plays the target, and the others are the bank it learns from. A single reference is cut in
    two halves that act as slides.

    Parameters
    ----------
    refs
        The references: measured slides with an embedding, AnnData or SpatialData, or paths of such (``.h5ad``, ``.zarr``, a
        folder of them, a pattern), or a bank from
        :func:`spahgc.pp.reference_bank` or :func:`spahgc.pp.open_bank`, or the path of a bank on disk, whose embedding is
        read in blocks. Their order, and the order of their spots, do not matter. They are not changed.
        Where the table of a SpatialData has no ``obsm["spatial"]``, its spots lie at the centres of the shapes that it
        annotates.
    genes
        The panel; ``None`` selects it from the references with :func:`spahgc.pp.select_genes`, ``"all"`` takes every
        gene that is seen in at least 1 % of their spots, ``"union"`` those that would be selected of every reference that
        measured them, of which one is enough (see the notes of :func:`spahgc.tl.predict`).
    embedding
        Key of the embedding in ``obsm``; ``None`` takes the only one there is.
    layer
        Layer with the counts; ``None`` takes ``X``.
    units
        What the values are: ``"counts"``, whole or corrected; ``"log1p"`` of counts that were scaled to a total;
        ``"normalized"``, scaled counts without the logarithm. ``None`` finds out and warns of what it assumes, or refuses
        where nothing tells.
    preset
        ``"paper"``, ``"default"``, or parameters of your own.
    seed
        Seed of initial weights and masks. On the CPU a seed gives the same model again.
    device
        Where to compute; ``None`` takes ``spahgc.settings.device`` or the first accelerator.
    trust
        Hold references out also as sections of known patients and as new patients, so that predictions say how far they can be
        believed and for whom. ``False`` leaves it out, which saves up to two thirds of the time.
    group
        Column of ``obs`` of the references that names what is held out together, in the place of ``obs["patient"]``.
    table_key
        Key of the table of every SpatialData among them; ``None`` takes the only one.

    Returns
    -------
    The model, which predicts any number of targets.

    Raises
    ------
    KeyError
        If an embedding or a gene is missing.
    ValueError
        If the references do not fit together or are too small, or if the device is not there.

    Notes
    -----
    ``preset="paper"``: SpaHGC, CVPR 2026 (arXiv 2603.22821), section 3. ``preset="default"`` predicts components of the
    transcriptome as a weighted average of experts (kernel ridge regression, small networks, and a graph that retrieves the
    expression of references), and reads the panel off them. The weights are those of non-negative least squares on references
    held out in turn, shrunk to equal shares; their sum is 1. Of the graph's states none is chosen: the last one is kept.

    Examples
    --------
    >>> import tempfile
    >>> import spahgc as sp
    >>> target, *refs = sp.datasets.simulated(n_slides=3, n_spots=60, n_genes=30, n_domains=3)
    >>> for slide in [target, *refs]:
    ...     slide.obsm["X_domains"] = slide.obsm["truth_domains"]  # where sp.pp.embed(slide) would write
    >>> quick = sp.Parameters(n_axes=3, line=True, epochs=0)  # a line alone; the default trains for minutes
    >>> model = sp.tl.fit(refs, genes=["MORPH001", "MORPH002"], embedding="X_domains", preset=quick)
    >>> list(model.genes)
    ['MORPH001', 'MORPH002']
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save(f"{folder}/model")
    ...     model = sp.SpaHGC.load(f"{folder}/model")
    >>> sp.tl.predict(target, model=model)
    >>> target.layers["spahgc"].shape  # as X; NaN in genes outside the panel
    (60, 30)
    """
    return SpaHGC.fit(
        refs,
        genes=genes,
        embedding=embedding,
        layer=layer,
        units=units,
        preset=preset,
        seed=seed,
        device=device,
        trust=trust,
        group=group,
        table_key=table_key,
    )
