"""Folds of a cross-validation: what a method gets to see, and running them in this process or in several."""

from __future__ import annotations

import os
import time
import uuid
import warnings
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
from anndata import AnnData

from spahgc._many.children import end_with
from spahgc._parameters import NETWORK, find_preset
from spahgc._settings import progress_bar, settings
from spahgc._slides.measured import MeasuredSlide
from spahgc._slides.patients import patients_of
from spahgc._spots.rows import Spots
from spahgc._validate import quoted
from spahgc.model import fit_bank, predict_spots
from spahgc.pp._bank.references import as_bank
from spahgc.pp._register.slides import measured_picture
from spahgc.tl._cross_validation.checkpoint import FOLD_SCORES, Checkpoint
from spahgc.tl._cross_validation.functions import predict_with, refuse_unread
from spahgc.tl._cross_validation.scoring import score_fold
from spahgc.tl._cross_validation.shuffle import shuffled
from spahgc.tl._cross_validation.splits import Split
from spahgc.tl._cross_validation.unmeasured import UnmeasuredSlide
from spahgc.tl._predict import predict_baseline

FOLD_COLUMNS = ["slide", "gene", *FOLD_SCORES, "n"]
"""What is kept of a fold."""

_banks: dict[tuple[str, tuple[object, ...]], tuple[AnnData, float]] = {}
"""Banks of the group that this process worked on last, and the seconds that each took."""


class References:
    """Measured slides of all groups but one, and the banks that methods make of them, each made once in a process.

    Parameters
    ----------
    group
        The group held out.
    slides
        Slides of the others by name.
    null
        Permute their expression before anything is fitted: ``"shuffle"`` within each slide, ``"shuffle_all"`` among all
        of them; ``None`` leaves it in place.
    """

    def __init__(self, group: str, slides: dict[str, MeasuredSlide], null: str | None = None) -> None:
        self.group, self.slides, self.null = group, slides, null
        self._id = uuid.uuid4().hex

    def bank(self, arguments: Mapping[str, Any]) -> tuple[AnnData, float]:
        """The bank that a method of these arguments learns from, and the seconds that making it took."""
        parameters, seed = find_preset(arguments["preset"]), int(arguments["seed"])
        genes = arguments["genes"]
        wanted = (
            arguments["embedding"],
            genes if genes is None or isinstance(genes, str) else tuple(genes),
            parameters.n_abundant,
            parameters.n_reference,
            None if self.null is None else seed,
        )
        if any(group != self._id for group, _ in list(_banks)):
            _banks.clear()
        made = _banks.get((self._id, wanted))
        if made is None:
            started = time.perf_counter()
            bank = as_bank(
                self.in_place(seed),
                genes=genes,
                embedding=arguments["embedding"],
                layer=None,
                parameters=parameters,
                rs_graph=False,
                apart=True,  # all slides of the cross-validation were compared with each other
            )
            made = bank, time.perf_counter() - started
            _banks[self._id, wanted] = made
        return made

    def in_place(self, seed: int) -> dict[str, MeasuredSlide]:
        """The slides as they are learned from: with their expression permuted, where that is asked for."""
        if self.null is None:
            return self.slides
        moved = shuffled(list(self.slides.values()), self.null, seed, self.group)
        return dict(zip(self.slides, moved, strict=True))


@dataclass(frozen=True)
class Fold:
    """One method, one group held out. This is all that a method sees.

    Parameters
    ----------
    label
        Name of the method in the results.
    group
        The group held out.
    arguments
        Keyword arguments of :func:`spahgc.tl.predict`; for a function of the user's, ``"function"`` in the place of
        ``"method"``.
    references
        Measured slides of all other groups.
    targets
        Spots of the slides of the group by name: embedding and positions, no expression.
    unmeasured
        For a function: the slides of all groups without their counts.
    """

    label: str
    group: str
    arguments: dict[str, Any]
    references: References
    targets: dict[str, Spots]
    unmeasured: Mapping[str, UnmeasuredSlide] = field(default_factory=dict)

    def __post_init__(self) -> None:
        measured = [name for name, spots in self.targets.items() if spots.y.shape[1] or spots.transcriptome.shape[1]]
        if measured:
            raise ValueError(
                f"the slides {quoted(measured)} are to be predicted and still carry genes. Pass what "
                "Spots.without_expression makes of them."
            )

    @property
    def key(self) -> tuple[str, str]:
        """What tells this fold from the others."""
        return self.label, self.group


@dataclass(frozen=True)
class FoldResult:
    """What a fold returns: predictions (spots x panel, float32) by slide, time, and what was warned of and where."""

    label: str
    group: str
    predicted: dict[str, pd.DataFrame]
    seconds: float
    warned: list[tuple[type[Warning], str, str, int]]

    @property
    def key(self) -> tuple[str, str]:
        """That of the fold."""
        return self.label, self.group


def make_folds(
    slides: Mapping[str, MeasuredSlide],
    splits: Sequence[Split],
    specs: dict[str, dict[str, Any]],
    null: str | None,
    unmeasured: Mapping[str, UnmeasuredSlide] | None = None,
) -> list[Fold]:
    """Every method with every group held out, group after group; the slides held out come without their expression."""
    folds = []
    for split in splits:
        train, test = set(split.train), set(split.test)
        references = References(split.name, {name: slide for name, slide in slides.items() if name in train}, null)
        held_out = {name: slide for name, slide in slides.items() if name in test}
        known = {name: slide for name, slide in (unmeasured or {}).items() if name in train | test}
        for label, spec in specs.items():
            targets = {
                name: replace(
                    Spots.without_expression(
                        slide.embedding(spec["embedding"]), slide.xy, picture=measured_picture(slide)
                    ),
                    mpp=slide.mpp,
                    patients=frozenset(patients_of(slide.adata)),
                )
                for name, slide in held_out.items()
            }
            folds.append(Fold(label, split.name, spec, references, targets, known if "function" in spec else {}))
    return folds


def run_fold(fold: Fold) -> FoldResult:
    """Fit on the references and predict every target; the seconds are those of both, and of making the bank."""
    started = time.perf_counter()
    # Every fold would repeat what there is to say about a slide: collected here, said once by the caller.
    with warnings.catch_warnings(record=True) as caught:
        bank, seconds_of_bank = fold.references.bank(fold.arguments)
        made = time.perf_counter()
        predicted = _predict_targets(fold, bank)
    warned = [(entry.category, str(entry.message), entry.filename, entry.lineno) for entry in caught]
    seconds = max(made - started, seconds_of_bank) + time.perf_counter() - made
    return FoldResult(fold.label, fold.group, predicted, seconds, warned)


def _predict_targets(fold: Fold, bank: AnnData) -> dict[str, pd.DataFrame]:
    genes, seed = bank.var_names, int(fold.arguments["seed"])
    if "function" in fold.arguments:
        return predict_with(
            fold.label,
            fold.arguments["function"],
            fold.group,
            {name: fold.unmeasured[name] for name in fold.targets},
            {name: (fold.unmeasured[name], slide) for name, slide in fold.references.in_place(seed).items()},
            genes,
            seed,
        )
    method, device = fold.arguments["method"], fold.arguments["device"]
    if method != NETWORK:
        return {
            name: pd.DataFrame(predict_baseline(spots, bank, method, seed, device), columns=genes)
            for name, spots in fold.targets.items()
        }
    # One training for all slides of the group.
    model = fit_bank(bank, preset=fold.arguments["preset"], seed=seed, device=device, trust=False)
    return {
        name: pd.DataFrame(predict_spots(model, spots, device=device).expression, columns=genes)
        for name, spots in fold.targets.items()
    }


def run_folds(folds: Sequence[Fold], n_jobs: int) -> Generator[FoldResult]:
    """Run the folds, each as soon as there is room, and hand over each result when it is there, in any order.

    Closed before its end, it ends the processes; those of a process that is killed end by themselves.
    """
    if n_jobs == 1:
        for fold in folds:
            yield run_fold(fold)
        return
    from joblib import Parallel, delayed, parallel_config  # type: ignore[import-untyped]

    # One thread a process: n_jobs processes of many threads each would fight for the same cores.
    options = {"initializer": end_with, "initargs": (os.getpid(),)}
    with parallel_config("loky", inner_max_num_threads=1, **options):
        # Arrays are not shared as read-only memory maps, so that a fold meets the same objects here and there.
        pool = Parallel(n_jobs=n_jobs, batch_size=1, return_as="generator_unordered", max_nbytes=None)
    with closing(pool(delayed(_run_in_process)(fold, settings.values()) for fold in folds)) as results:
        try:
            yield from results  # closed, it ends the processes and what they are at
        except RuntimeError as error:  # loky's own are of this class
            refuse_unread([fold.label for fold in folds if "function" in fold.arguments], error)
            raise


def _run_in_process(fold: Fold, values: dict[str, Any]) -> FoldResult:
    """Run a fold in a process that knows nothing of the settings made in the first one."""
    for name, value in (values | {"progress": False, "n_threads": 1}).items():
        setattr(settings, name, value)
    return run_fold(fold)


def score_folds(
    folds: list[Fold],
    slides: Mapping[str, MeasuredSlide],
    store: Checkpoint | None,
    n_jobs: int,
    warned: Iterable[str] = (),
    net: pd.DataFrame | None = None,
) -> dict[tuple[str, str], tuple[pd.DataFrame, float]]:
    """Scores and seconds of every fold, read from the store where they are finished, computed where they are not.

    What was ``warned`` of already is not said again. With gene sets (``net``) their pathways are compared as well.
    """
    finished: dict[tuple[str, str], tuple[pd.DataFrame, float]] = {}
    if store is not None:
        genes = {name: set(slide.var_names) for name, slide in slides.items()}
        stored = {fold.key: store.read(*fold.key, genes) for fold in folds}
        finished = {key: entry for key, entry in stored.items() if entry is not None}
    missing = {fold.key: fold for fold in folds if fold.key not in finished}
    warned = set(warned)
    try:
        with (
            closing(run_folds(list(missing.values()), n_jobs)) as results,  # also on Ctrl-C
            progress_bar(total=len(folds), initial=len(finished), desc="cross-validation", unit="fold") as bar,
        ):
            for result in results:
                scores = score_fold(result.predicted, slides, net)[FOLD_COLUMNS]
                if store is not None:
                    store.write(*result.key, scores, result.seconds, missing[result.key].arguments["device"])
                finished[result.key] = scores, result.seconds
                bar.update()
                for category, message, file, line in result.warned:
                    if message not in warned:
                        warnings.warn_explicit(message, category, file, line)
                        warned.add(message)
    finally:
        _banks.clear()
    return finished
