"""Leave-one-group-out evaluation in which nothing that learns sees the group held out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from anndata import AnnData

from spahgc._files import digest
from spahgc._keys import POOLED_PEARSON, SLIDE_SCORES, STRUCTURE_SCORES
from spahgc._linear.node_features import check_can_mask
from spahgc._parameters import Parameters, find_preset
from spahgc._settings import launched, versions
from spahgc._slides.measured import MeasuredSlide, measured_slides
from spahgc._slides.split import placed_tables, shared_spots
from spahgc.pp._bank.identity import overlap
from spahgc.pp._bank.references import is_bank, slide_look
from spahgc.pp._genes import UNION_GENES, check_shared, common_genes
from spahgc.pp._register.slides import measured_picture
from spahgc.tl._cross_validation.ceiling import slide_ceilings
from spahgc.tl._cross_validation.checkpoint import (
    FOLD_SCORES,
    Checkpoint,
    method_fingerprint,
    plain_arguments,
    slide_fingerprint,
)
from spahgc.tl._cross_validation.folds import FOLD_COLUMNS, make_folds, score_folds
from spahgc.tl._cross_validation.methods import find_methods, is_network, resolved
from spahgc.tl._cross_validation.shuffle import SHUFFLE, SHUFFLE_ALL
from spahgc.tl._cross_validation.splits import (
    Split,
    check_known,
    find_group_by,
    groups_by,
    groups_of_splits,
    read_splits,
    splits_of_groups,
)
from spahgc.tl._cross_validation.statistics import compare, score_matrix, slide_means, summarize
from spahgc.tl._cross_validation.unmeasured import UnmeasuredSlide
from spahgc.tl._evaluate import MIN_SPOTS
from spahgc.tl._gene_sets import gene_sets as read_gene_sets
from spahgc.tl._structure.pathways import check_pathways

if TYPE_CHECKING:
    from spatialdata import SpatialData

SPLITS = "splits"
"""What stands in the place of ``group_by`` in the record where splits were given."""


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
    group_by: str | None = None,
    methods: Sequence[str] | Mapping[str, str | Mapping[str, Any] | Callable[..., Any]] = (
        "spahgc",
        "ridge",
        "nearest",
    ),
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
    splits: str | PathLike[str] | Mapping[Any, Any] | None = None,
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
        ``"patient"``. ``None`` holds out patients where every slide names one in ``obs["patient"]`` and there are at
        least two, else slides one at a time; ``record["group_by"]`` says which.
    methods
        Names that :func:`spahgc.tl.predict` knows, each with a preset of its own if wanted (``"spahgc:paper"``); or, by
        a label of your own, such a name, keyword arguments of :func:`spahgc.tl.predict`, or a function of yours, e.g.
        ``{"paper": {"method": "spahgc", "preset": "paper"}, "ridge": {}, "mine": function}``. The notes say how a
        function is called.
    genes
        The panel. A list is the same in all folds; ``None`` selects one in each fold, from the references of that fold;
        ``"all"`` takes in each fold every gene that is seen in at least 1 % of the spots of its references, ``"union"`` those
        that would be selected of every reference that measured them, of which one is enough. A slide held out is scored on
        the genes that it measured.
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
        Where networks and kernels run; ``None`` takes ``spahgc.settings.device`` or the first accelerator.
    table_key
        Key of the table of every SpatialData among them; ``None`` takes the only one.
    splits
        Instead of `group_by`: which slides are predicted from which. A folder with ``train_0.csv``, ``test_0.csv`` and so
        on, whose column ``sample_id`` names the slides, as the HEST benchmark has it; or ``{"0": (train, test)}`` with
        lists of names. Every split is a group of its name. Slides that no split tests are not scored.

    Returns
    -------
    The scores, a summary, comparisons and noise ceilings: see :class:`CrossValidation`.

    Spots off the tissue (``obs["in_tissue"]``) are left out with a warning. Spots without a single count are left out of the
    comparison, as are genes that a slide held out does not have.

    Raises
    ------
    KeyError
        If an embedding, a column of groups or a gene is missing.
    RuntimeError
        If a function of yours fails; the message names method, group and slide, the cause is its own error.
    TypeError
        If a function cannot be called as a method is, or returns no real numbers.
    ValueError
        If a function returns another shape, other names or numbers that are not finite, if splits name a slide that is
        not there, test one twice or learn from it as well, if there are fewer than two groups, if gene sets are malformed or do not fit the genes, if a method or preset is not known, if a slide is too small, occurs in two
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

    A function is called ``function(target, refs, *, genes, seed)`` for every slide held out, and returns spots x genes in
    the units of the references: an array or sparse matrix in the order of ``target.obs_names`` and `genes`, or a DataFrame
    with the genes as columns. Real numbers, all finite.

    - `target`: AnnData whose ``var`` names the genes, without ``X``, layers and ``raw``; ``obsm`` holds the embeddings and
      ``"spatial"``, ``uns`` their records and the images, ``obs`` names of slide and patient, place on the array, and what
      is known of each spot's patch.
    - `refs`: slides of the other groups by name, with the same and their measurement. ``X`` is ``log1p`` counts per 10,000
      over all genes of the slide, CSR, float32 (values of other units as they stand), ``layers["counts"]`` the counts,
      ``obs["spahgc_total_counts"]`` their totals. Spots without a count are left out. With `null`, X is permuted.
    - `genes`: the panel, a list of names, all of them in every reference; with ``genes="union"`` each in one at least, whose
      ``var_names`` say which. `seed`: that of this call.

    All of them are copies, so a function may write into them; images are read-only. An object with ``__call__`` is copied
    for every fold, and keeps what it learns for the other slides of the fold. What a function keeps in global variables
    survives from fold to fold and could tell of a slide held out later: keep nothing there. With ``n_jobs``, functions
    reach the other processes through cloudpickle, lambdas and closures too. A checkpoint knows a function by its label and
    its qualified name: after a change of the function pass another label, or another folder.

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
    if splits is not None and group_by is not None:
        raise ValueError(f'both group_by="{group_by}" and splits= were given. Pass one of the two.')
    laid_down = None if splits is None else read_splits(splits)
    specs = find_methods(methods, {"genes": genes, "embedding": embedding, "preset": preset, "seed": seed}, n_jobs)
    measured = _measured_slides(placed_tables(slides, table_key, "slide"), layer, units)
    group_by, parts = _parts(measured, group_by, laid_down)
    groups = groups_of_splits(parts)
    measured = {name: slide for name, slide in measured.items() if any(name in (*p.train, *p.test) for p in parts)}
    specs = {label: resolved(spec, measured, device) for label, spec in specs.items()}
    unmeasured = _unmeasured(measured, specs)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        measured = {name: _without_the_rest(slide) for name, slide in measured.items()}
    for entry in caught:
        warnings.warn_explicit(entry.message, entry.category, entry.filename, entry.lineno)
    _check_slides(measured, parts, specs)
    tested = {name: slide for name, slide in measured.items() if name in groups}
    if net is not None:
        check_pathways(net, common_genes(measured), "the genes that all slides share")

    store = None
    if checkpoint is not None:
        shared: dict[str, Any] = {"group_by": group_by, "null": null, "seed": int(seed), "versions": versions()}
        if laid_down is not None:
            shared |= {SPLITS: _plain(parts)}
        # A fold of other scores, or of other gene sets, is another fold.
        shared |= {"scores": list(FOLD_SCORES), "gene_sets": None if net is None else digest(net.to_csv().encode())}
        shared["slides"] = {
            name: {"group": groups.get(name, "")} | slide_fingerprint(slide) for name, slide in measured.items()
        }
        of_methods = {label: method_fingerprint(spec, measured) for label, spec in specs.items()}
        store = Checkpoint(checkpoint, shared, of_methods)
    folds = make_folds(measured, parts, specs, null, unmeasured)
    finished = score_folds(folds, tested, store, n_jobs, {str(entry.message) for entry in caught}, net)

    in_order = sorted(folds, key=lambda fold: list(specs).index(fold.label))  # stable: by method, then by group
    scores = pd.concat(
        [finished[fold.key][0].assign(method=fold.label, group=fold.group) for fold in in_order], ignore_index=True
    )
    ceiling = slide_ceilings(tested, scores, int(seed))
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
            **({} if laid_down is None else {SPLITS: _plain(parts)}),
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


def _parts(
    slides: Mapping[str, MeasuredSlide], group_by: str | None, laid_down: list[Split] | None
) -> tuple[str, list[Split]]:
    """What the folds are made by, and which slides they learn from and predict."""
    tables = {name: slide.adata for name, slide in slides.items()}
    if laid_down is not None:
        check_known(laid_down, tables)
        return SPLITS, laid_down
    group_by = find_group_by(tables) if group_by is None else group_by
    return group_by, splits_of_groups(groups_by(tables, group_by))


def _plain(splits: Iterable[Split]) -> dict[str, dict[str, list[str]]]:
    return {split.name: {"train": sorted(split.train), "test": sorted(split.test)} for split in splits}


def _unmeasured(
    slides: Mapping[str, MeasuredSlide], specs: Mapping[str, Mapping[str, Any]]
) -> dict[str, UnmeasuredSlide]:
    """What functions get to see of the slides beside their counts; nothing where no method is one."""
    keys = list(dict.fromkeys(spec["embedding"] for spec in specs.values() if "function" in spec))
    return {name: UnmeasuredSlide.of(slide, keys) for name, slide in slides.items()} if keys else {}


def _without_the_rest(slide: MeasuredSlide) -> MeasuredSlide:
    """What the package needs of a slide and no more: counts, positions, embeddings and their records."""
    measured_picture(slide)  # kept, while the image is let go
    slim = slide.with_counts(slide.counts(), slide.var_names, slide.totals)
    if slide.hold:
        slim.expression()
    return slim


def _check_slides(
    slides: Mapping[str, MeasuredSlide], splits: Sequence[Split], specs: dict[str, dict[str, Any]]
) -> None:
    """Refuse slides that are too small in any fold, and spots that stand in two groups."""
    sizes = {name: int(slide.measured.sum()) for name, slide in slides.items()}
    for label, spec in specs.items():
        parameters = find_preset(spec["preset"])
        _check_union(spec, slides, splits)
        smallest = min(sizes, key=lambda name: sizes[name])
        needed = max(MIN_SPOTS, parameters.n_reference + 1)
        if sizes[smallest] < needed:
            raise ValueError(
                f'slide "{smallest}" has {sizes[smallest]} spots with counts, method "{label}" needs {needed}. '
                "Leave the slide out, or pass layer= with its counts."
            )
        for split in splits if is_network(spec) else []:
            found = _smallest_bank([sizes[name] for name in split.train])
            if found < (wanted := max(parameters.n_cross, parameters.n_reference + 1)):
                raise ValueError(
                    f'with group "{split.name}" held out, method "{label}" would train on {found} reference spots at a '
                    f"time, and needs {wanted} for its graphs. Pass more or larger slides."
                )
    for key in {spec["embedding"] for spec in specs.values()}:
        _check_shared_spots(slides, splits, key)


def _check_union(spec: Mapping[str, Any], slides: Mapping[str, MeasuredSlide], splits: Sequence[Split]) -> None:
    """Refuse references of different genes that cannot be learned from together, before any fold runs."""
    if not (isinstance(spec["genes"], str) and spec["genes"] == UNION_GENES):
        return
    for split in splits:
        references = {name: slides[name] for name in split.train}
        if len({frozenset(slide.var_names) for slide in references.values()}) > 1:
            check_shared(references)
            if is_network(spec):
                check_can_mask(find_preset(spec["preset"]))


def _check_shared_spots(slides: Mapping[str, MeasuredSlide], splits: Sequence[Split], key: str) -> None:
    """Refuse a spot that stands in two groups, and a slide that stands there twice, unchanged or not."""
    looks = {name: slide_look(slide, key) for name, slide in slides.items()}
    for name, other in combinations(looks, 2):
        one, two = looks[name], looks[other]
        if _meet(name, other, splits) and len(shared_spots(one.xy, one.z, two.xy, two.z)):
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


def _meet(name: str, other: str, splits: Iterable[Split]) -> bool:
    """Whether one of two slides is ever predicted from the other."""
    return any(
        {name, other} <= {*split.train, *split.test} and (name in split.test) != (other in split.test)
        for split in splits
    )


def _smallest_bank(sizes: list[int]) -> int:
    """Spots of the smallest bank in training: all slides but one, or half of a single one."""
    return sizes[0] // 2 if len(sizes) == 1 else sum(sizes) - max(sizes)
