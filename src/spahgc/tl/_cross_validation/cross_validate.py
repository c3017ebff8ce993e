"""Leave-one-group-out evaluation in which nothing that learns sees the group held out."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from anndata import AnnData

from spahgc._files import digest
from spahgc._keys import POOLED_PEARSON, SLIDE_SCORES, STRUCTURE_SCORES, Obs
from spahgc._parameters import METHODS, NETWORK, Parameters, find_preset
from spahgc._settings import launched, resolve_device, versions
from spahgc._slides.measured import MeasuredSlide, measured_slides
from spahgc._slides.split import placed_tables, shared_spots
from spahgc._validate import check_genes, find_embedding, quoted
from spahgc.pp._bank.identity import overlap
from spahgc.pp._bank.references import check_embeddings, is_bank, slide_look
from spahgc.pp._genes import common_genes
from spahgc.tl._cross_validation.ceiling import slide_ceilings
from spahgc.tl._cross_validation.checkpoint import (
    FOLD_SCORES,
    Checkpoint,
    method_fingerprint,
    plain_arguments,
    slide_fingerprint,
)
from spahgc.tl._cross_validation.folds import FOLD_COLUMNS, make_folds, score_folds
from spahgc.tl._cross_validation.shuffle import SHUFFLE, SHUFFLE_ALL
from spahgc.tl._cross_validation.statistics import compare, score_matrix, slide_means, summarize
from spahgc.tl._evaluate import MIN_SPOTS
from spahgc.tl._gene_sets import gene_sets as read_gene_sets
from spahgc.tl._predict import predict
from spahgc.tl._structure.pathways import check_pathways

if TYPE_CHECKING:
    from spatialdata import SpatialData

RESERVED = ("target", "refs", "model", "layer", "units", "key_added", "table_key", "copy")
"""Arguments of a prediction that are not a method's own."""


@dataclass(frozen=True, eq=False, repr=False)
class CrossValidation:
    """What :func:`cross_validate` found.

    Attributes
    ----------
    scores
        One row a method, slide and gene of the panel: ``method``, ``group``, ``slide``, ``gene``, ``pearson``,
        ``spearman``, ``rmse`` (in units of the prediction), ``n`` (spots), ``ceiling``. A gene that is constant over
        the spots, as measured or as predicted, has no correlation: NaN, never zero. Beside them, as
        :func:`spahgc.tl.evaluate` defines them: ``variance_ratio``, ``moran_difference``, ``ssim``; of the slide, the same
        for all its genes, ``gene_correlation`` and ``pathway_correlation`` (NaN without gene sets); of the group, the same
        on all its slides, ``pearson_pooled``: the gene's PCC over the spots of all slides held out together.
    summary
        One row a method: ``pearson`` with ``low`` and ``high`` of its 95 % interval, ``spearman``, ``rmse``,
        ``ceiling_share`` (mean PCC over mean ceiling), ``n_slides``, ``n_genes``, ``n_undefined`` (pairs of slide and
        gene without a correlation), ``seconds``; then means of the other scores: of ``variance_ratio`` the mean over
        slides of the median over genes, of ``pearson_pooled`` the mean over groups of the mean over genes.
    comparisons
        Every two methods, over all slides (``slide`` is ``"all"``) and in each: ``method``, ``other``, ``slide``,
        ``difference`` of the mean PCC with ``low`` and ``high``, ``p`` of Wilcoxon's signed-rank test, ``n`` pairs.
    ceiling
        Genes x slides: the PCC that the noise of the measurement leaves within reach.
    record
        What is needed to repeat it: groups, arguments of every method, seed, versions.
    """

    scores: pd.DataFrame
    summary: pd.DataFrame
    comparisons: pd.DataFrame
    ceiling: pd.DataFrame
    record: dict[str, Any]

    @property
    def per_slide(self) -> pd.DataFrame:
        """Methods x slides: mean PCC over genes."""
        rows = {}
        for method in self.summary.index:
            matrix = score_matrix(self.scores, method)
            rows[method] = pd.Series(slide_means(matrix.to_numpy()), index=matrix.index)
        return pd.DataFrame(rows).T.rename_axis(index="method", columns="slide")

    @property
    def slides(self) -> pd.DataFrame:
        """One row a method and slide: mean PCC over genes, and the scores of the slide as a whole."""
        names = ["method", "group", "slide"]
        table = self.scores[[*names, *SLIDE_SCORES]].drop_duplicates(names).set_index(names)
        table.insert(0, "pearson", self.scores.groupby(names, sort=False)["pearson"].mean())
        return table.reset_index()

    @property
    def pooled(self) -> pd.DataFrame:
        """One row a method, group and gene: the PCC over the spots of all slides of the group."""
        table = self.scores[["method", "group", "gene", POOLED_PEARSON]].drop_duplicates(["method", "group", "gene"])
        return table.rename(columns={POOLED_PEARSON: "pearson"}).reset_index(drop=True)

    def __repr__(self) -> str:
        return f"{self._title()}\n{self.summary.round(4).to_string()}"

    def _repr_html_(self) -> str:
        return f"<p>{self._title()}</p>{self.summary.round(4).to_html()}"

    def _title(self) -> str:
        groups = self.record["groups"]
        shuffled = ", references shuffled" if self.record["null"] else ""
        return f"CrossValidation: {len(groups)} slides, {len(set(groups.values()))} groups held out in turn{shuffled}"


def cross_validate(
    slides: AnnData | SpatialData | Iterable[AnnData | SpatialData],
    *,
    group_by: str = "slide",
    methods: Sequence[str] | Mapping[str, Mapping[str, Any]] = ("spahgc", "ridge", "nearest"),
    genes: Sequence[str] | str | None = None,
    embedding: str | None = None,
    layer: str | None = None,
    units: str | None = None,
    gene_sets: str | PathLike[str] | pd.DataFrame | None = None,
    preset: str | Parameters = "default",
    seed: int = 0,
    null: str | None = None,
    n_jobs: int = 1,
    checkpoint: str | Path | None = None,
    n_bootstrap: int = 2000,
    device: str | None = None,
    table_key: str | None = None,
) -> CrossValidation:
    """Hold out each group of slides in turn, predict it from the others, and compare the methods.

    All that learns, the gene panel, penalties and numbers of epochs among it, sees the other groups only; the slides
    held out are handed to the methods without their counts.

    Parameters
    ----------
    slides
        Measured slides with an embedding, AnnData or SpatialData. They are not changed.
    group_by
        What is held out together: ``"slide"``, or a column of ``obs`` that is constant within a slide, such as
        ``"patient"``.
    methods
        Names that :func:`spahgc.tl.predict` knows, each with a preset of its own if wanted (``"spahgc:paper"``); or
        keyword arguments of :func:`spahgc.tl.predict` by a label of your own, e.g.
        ``{"paper": {"method": "spahgc", "preset": "paper"}}``.
    genes
        The panel. A list is the same in all folds; ``None`` selects one in each fold, from the references of that fold;
        ``"all"`` takes in each fold every gene that is seen in at least 1 % of the spots of its references.
    embedding
        Key of the embedding in ``obsm``; ``None`` takes the only one there is.
    layer
        Layer with the counts; ``None`` takes ``X``.
    units
        What the values are, as in :func:`spahgc.tl.predict`; ``None`` finds out.
    gene_sets
        Pathways whose scores are compared as well: path of a GMT file, or a table with the columns ``source`` and
        ``target``, as :func:`spahgc.tl.enrich` takes them.
    preset
        Parameters of all methods that do not bring their own.
    seed
        Seed of trainings, resamples, splits and shuffles.
    null
        Permute the expression of the references before anything is fitted, so that a sound evaluation scores about
        zero. ``"shuffle"`` permutes it among the spots of each slide; what slides differ in as a whole (one has more
        tumour and more of its genes) stays, and a small positive PCC with it. ``"shuffle_all"`` permutes it among the
        spots of all references of a fold, over the genes that they share: nothing stays, and the PCC is zero on average.
    n_jobs
        Folds that run at the same time, each in a process of one thread; -1 takes all processors.
    checkpoint
        Folder in which every finished fold is kept. A second call with the same inputs computes what is missing only;
        a call with other inputs is refused. Methods may be added.
    n_bootstrap
        Resamples of an interval.
    device
        Where networks run; ``None`` takes ``spahgc.settings.device`` or the first accelerator.
    table_key
        Key of the table of every SpatialData among them; ``None`` takes the only one.

    Returns
    -------
    The scores, a summary, comparisons and noise ceilings: see :class:`CrossValidation`.

    Spots off the tissue (``obs["in_tissue"]``) are left out with a warning. Spots without a single count are left out of the
    comparison, as are genes that a slide held out does not have.

    Raises
    ------
    KeyError
        If an embedding, a column of groups or a gene is missing.
    ValueError
        If there are fewer than two groups, if gene sets are malformed or do not fit the genes, if a method or preset is not known, if a slide is too small, occurs in two
        groups or was embedded differently, or if the folder holds folds of other inputs.

    See Also
    --------
    spahgc.tl.predict : one prediction.
    spahgc.tl.evaluate : the scores of one prediction.

    Notes
    -----
    The mean PCC is the mean over slides of the mean over genes. Its interval is a two-way bootstrap: slides and genes
    are drawn with replacement, independently; percentiles are widened for few slides. Slides of one patient are drawn
    as if they were independent, which they are not quite. The same holds for the pairs of the signed-rank test: genes
    move together, so that its p is too small where the interval is honest.

    Examples
    --------
    >>> import spahgc as sp
    >>> slides = sp.datasets.simulated(n_slides=3, n_patients=1, n_spots=40, n_genes=20)
    >>> for slide in slides:
    ...     slide.obsm["X_domains"] = slide.obsm["truth_domains"]
    >>> result = sp.tl.cross_validate(slides, methods=["ridge", "nearest"], embedding="X_domains")
    >>> list(result.summary.index)
    ['ridge', 'nearest']
    """
    _check_numbers(null, n_jobs, n_bootstrap)
    net = None if gene_sets is None else read_gene_sets(gene_sets)
    measured = _measured_slides(placed_tables(slides, table_key, "slide"), layer, units)
    groups = _groups(measured, group_by)
    specs = _methods(methods, {"genes": genes, "embedding": embedding, "preset": preset, "seed": seed})
    specs = {label: _resolved(spec, measured, device) for label, spec in specs.items()}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        measured = {name: _without_the_rest(slide) for name, slide in measured.items()}
    for entry in caught:
        warnings.warn_explicit(entry.message, entry.category, entry.filename, entry.lineno)
    _check_slides(measured, groups, specs)
    if net is not None:
        check_pathways(net, common_genes(measured), "the genes that all slides share")

    store = None
    if checkpoint is not None:
        shared: dict[str, Any] = {"group_by": group_by, "null": null, "seed": int(seed), "versions": versions()}
        # A fold of other scores, or of other gene sets, is another fold.
        shared |= {"scores": list(FOLD_SCORES), "gene_sets": None if net is None else digest(net.to_csv().encode())}
        shared["slides"] = {
            name: {"group": groups[name]} | slide_fingerprint(slide) for name, slide in measured.items()
        }
        of_methods = {label: method_fingerprint(spec, measured) for label, spec in specs.items()}
        store = Checkpoint(checkpoint, shared, of_methods)
    folds = make_folds(measured, groups, specs, null)
    finished = score_folds(folds, measured, store, n_jobs, {str(entry.message) for entry in caught}, net)

    in_order = sorted(folds, key=lambda fold: list(specs).index(fold.label))  # stable: by method, then by group
    scores = pd.concat(
        [finished[fold.key][0].assign(method=fold.label, group=fold.group) for fold in in_order], ignore_index=True
    )
    ceiling = slide_ceilings(measured, scores, int(seed))
    rows = ceiling.index.get_indexer(pd.Index(scores["gene"]))
    columns = ceiling.columns.get_indexer(pd.Index(scores["slide"]))
    scores["ceiling"] = ceiling.to_numpy()[rows, columns]
    added = [*STRUCTURE_SCORES, *SLIDE_SCORES, POOLED_PEARSON]
    kept = [column for column in FOLD_COLUMNS if column not in added]
    scores = scores[["method", "group", *kept, "ceiling", *added]]
    seconds = {label: sum(finished[fold.key][1] for fold in folds if fold.label == label) for label in specs}
    return CrossValidation(
        scores=scores,
        summary=summarize(scores, seconds, n_bootstrap=n_bootstrap, seed=int(seed)),
        comparisons=compare(scores, list(specs), n_bootstrap=n_bootstrap, seed=int(seed)),
        ceiling=ceiling,
        record={
            "group_by": group_by,
            "groups": groups,
            "methods": {label: plain_arguments(spec) for label, spec in specs.items()},
            "null": null,
            "seed": int(seed),
            "n_bootstrap": int(n_bootstrap),
            "versions": versions(),
        },
    )


def _check_numbers(null: str | None, n_jobs: int, n_bootstrap: int) -> None:
    if null not in (None, SHUFFLE, SHUFFLE_ALL):
        raise ValueError(f'null={null!r} is not known. Pass "{SHUFFLE}" or "{SHUFFLE_ALL}", or leave it out.')
    if n_jobs == 0:
        raise ValueError("n_jobs=0 runs nothing. Pass the number of processes, or -1 for all processors.")
    if n_jobs != 1 and launched():
        raise ValueError(f"n_jobs={n_jobs} starts processes, and torchrun has done so already. Leave n_jobs out.")
    if n_bootstrap < 1:
        raise ValueError(f"n_bootstrap={n_bootstrap} gives no interval. Pass a positive number, such as 2000.")


def _measured_slides(slides: Any, layer: str | None, units: str | None) -> dict[str, MeasuredSlide]:
    if is_bank(slides):
        raise TypeError(
            "a bank of references was given, which has lost the slides' counts. Pass the slides themselves."
        )
    return measured_slides(slides, layer=layer, units=units, role="slide")


def _without_the_rest(slide: MeasuredSlide) -> MeasuredSlide:
    """What the package needs of a slide and no more: counts, positions, embeddings and their records."""
    slim = slide.with_counts(slide.counts(), slide.var_names, slide.totals)
    if slide.hold:
        slim.expression()
    return slim


def _groups(slides: Mapping[str, MeasuredSlide], group_by: str) -> dict[str, str]:
    """Group of every slide."""
    groups = {
        name: name if group_by == Obs.slide else _group(slide.adata, name, group_by) for name, slide in slides.items()
    }
    if len(set(groups.values())) < 2:
        raise ValueError(
            f'group_by="{group_by}" makes one group of all slides ({quoted(slides)}), so that none is left to learn '
            "from. Pass slides of at least two groups."
        )
    return groups


def _group(slide: AnnData, name: str, group_by: str) -> str:
    if group_by not in slide.obs:
        raise KeyError(
            f'obs["{group_by}"] not found in slide "{name}", obs has {quoted(slide.obs.columns)}. '
            'Add the column, or leave group_by="slide".'
        )
    column = slide.obs[group_by]
    if column.isna().any():
        raise ValueError(f'obs["{group_by}"] of slide "{name}" is empty for {int(column.isna().sum())} spots. Fill it.')
    values = column.astype(str).unique()
    if len(values) > 1:
        raise ValueError(
            f'obs["{group_by}"] of slide "{name}" has {len(values)} values ({quoted(values)}): a slide is held out '
            "as a whole. Pass a column that is constant within each slide."
        )
    return str(values[0])


def _methods(methods: Any, common: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Keyword arguments of the prediction by label; refuses what no prediction knows."""
    if isinstance(methods, str):
        raise TypeError(f'methods= must be a sequence of names, found the string "{methods}". Pass ["{methods}"].')
    if not methods:
        raise ValueError("methods= is empty. Pass at least one name.")
    if not isinstance(methods, Mapping):
        if len(set(methods)) < len(methods):
            raise ValueError(f"methods= names one more than once: {quoted(methods)}. Remove the repetition.")
        methods = {name: _named_method(name) for name in methods}
    allowed = [name for name in inspect.signature(predict).parameters if name not in RESERVED]
    specs = {}
    for label, own in methods.items():
        unknown = [name for name in own if name not in allowed]
        if unknown:
            raise ValueError(f'method "{label}" has arguments {quoted(unknown)}. Known are {", ".join(allowed)}.')
        spec = common | {"method": NETWORK} | dict(own)
        if spec["method"] not in METHODS:
            raise ValueError(f'method "{spec["method"]}" is not known. Choose from {", ".join(METHODS)}.')
        find_preset(spec["preset"])
        specs[str(label)] = spec
    return specs


def _named_method(name: str) -> dict[str, str]:
    method, _, preset = name.partition(":")
    return {"method": method} | ({"preset": preset} if preset else {})


def _resolved(spec: dict[str, Any], slides: Mapping[str, MeasuredSlide], device: str | None) -> dict[str, Any]:
    """The arguments with nothing left to choose, once all slides have what they ask for."""
    first = next(iter(slides.values()))
    key = find_embedding(first.adata, spec["embedding"], first.label)
    check_embeddings(slides, key)
    genes, shared = spec["genes"], common_genes(slides)
    if genes is not None and not isinstance(genes, str):  # a word such as "all" is for the prediction to understand
        genes = check_genes(genes, shared, "the genes that all slides share")
    device = spec.get("device", device)
    # Named here, so that a device that is not there is noticed now.
    device = resolve_device(device) if spec["method"] == NETWORK else device
    return spec | {"embedding": key, "genes": genes, "device": device}


def _check_slides(
    slides: Mapping[str, MeasuredSlide], groups: dict[str, str], specs: dict[str, dict[str, Any]]
) -> None:
    """Refuse slides that are too small in any fold, and spots that stand in two groups."""
    sizes = {name: int(slide.measured.sum()) for name, slide in slides.items()}
    for label, spec in specs.items():
        parameters = find_preset(spec["preset"])
        smallest = min(sizes, key=lambda name: sizes[name])
        needed = max(MIN_SPOTS, parameters.n_reference + 1)
        if sizes[smallest] < needed:
            raise ValueError(
                f'slide "{smallest}" has {sizes[smallest]} spots with counts, method "{label}" needs {needed}. '
                "Leave the slide out, or pass layer= with its counts."
            )
        for group in sorted(set(groups.values())) if spec["method"] == NETWORK else []:
            found = _smallest_bank([sizes[name] for name in slides if groups[name] != group])
            if found < (wanted := max(parameters.n_cross, parameters.n_reference + 1)):
                raise ValueError(
                    f'with group "{group}" held out, method "{label}" would train on {found} reference spots at a '
                    f"time, and needs {wanted} for its graphs. Pass more or larger slides."
                )
    for key in {spec["embedding"] for spec in specs.values()}:
        _check_shared_spots(slides, groups, key)


def _check_shared_spots(slides: Mapping[str, MeasuredSlide], groups: dict[str, str], key: str) -> None:
    """Refuse a spot that stands in two groups, and a slide that stands there twice, unchanged or not."""
    looks = {name: slide_look(slide, key) for name, slide in slides.items()}
    for name, other in combinations(looks, 2):
        one, two = looks[name], looks[other]
        if groups[name] != groups[other] and len(shared_spots(one.xy, one.z, two.xy, two.z)):
            raise ValueError(
                f'slides "{name}" and "{other}" share spots (same place, same embedding) and stand in different '
                "groups: the measurement would reach its own prediction. Pass each slide once."
            )
        found = overlap(one, two)
        if found is not None:
            raise ValueError(
                f'slides "{name}" and "{other}" are the same, or parts of one: {found} look the same or lie in the same '
                "constellation. The measurement would reach its own prediction, or count twice. Pass each slide once."
            )


def _smallest_bank(sizes: list[int]) -> int:
    """Spots of the smallest bank in training: all slides but one, or half of a single one."""
    return sizes[0] // 2 if len(sizes) == 1 else sum(sizes) - max(sizes)
