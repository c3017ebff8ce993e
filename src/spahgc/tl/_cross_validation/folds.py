"""Folds of a cross-validation: what a method gets to see, and running, storing and resuming them."""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import re
import reprlib
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix, vstack

from spahgc._files import digest, write_text
from spahgc._keys import SPATIAL, Obs, Var
from spahgc._parameters import find_preset
from spahgc._settings import progress_bar, settings
from spahgc._slides.expression import log_expression, zero_spots
from spahgc._validate import check_writable_folder, quoted
from spahgc.pp._genes import common_genes
from spahgc.tl._evaluate import gene_scores
from spahgc.tl._fit import fit
from spahgc.tl._predict import NETWORK, predict

KEY = "cross_validated"
"""Layer of the targets in which predictions travel; no object of the user ever has it."""

SHUFFLE, SHUFFLE_ALL = "shuffle", "shuffle_all"
"""Null models, by name."""

OBS_KEPT = (Obs.slide, Obs.array_row, Obs.array_col)
"""Columns that tell where a spot is; others, such as total counts, may tell what was measured there."""

FOLD_COLUMNS = ["slide", "gene", "pearson", "spearman", "rmse", "n"]
"""What is kept of a fold."""

INPUTS_FILE = "inputs.json"
SLUG_LENGTH = 40
"""Most characters of a method's or group's name in a file name."""


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
        Keyword arguments of :func:`spahgc.tl.predict`.
    references
        Measured slides of all other groups.
    targets
        Slides of the group by name, without expression: see :func:`without_expression`.
    null
        Permute the expression of the references before anything is fitted: :data:`SHUFFLE` within each slide,
        :data:`SHUFFLE_ALL` among all of them; ``None`` leaves it in place.
    """

    label: str
    group: str
    arguments: dict[str, Any]
    references: tuple[AnnData, ...]
    targets: dict[str, AnnData]
    null: str | None = None

    def __post_init__(self) -> None:
        measured = [name for name, target in self.targets.items() if target.n_vars or target.layers]
        if measured:
            raise ValueError(
                f"the slides {quoted(measured)} are to be predicted and still carry genes. "
                "Pass them through without_expression first."
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


def without_expression(slide: AnnData) -> AnnData:
    """The slide as it would be had it never been measured: positions, embeddings and their records, no genes."""
    columns = [column for column in OBS_KEPT if column in slide.obs]
    return AnnData(obs=slide.obs[columns].copy(), obsm=dict(slide.obsm), uns=dict(slide.uns))


def make_folds(
    slides: dict[str, AnnData], groups: dict[str, str], specs: dict[str, dict[str, Any]], null: str | None
) -> list[Fold]:
    """Every method with every group held out; the slides held out come without their expression."""
    return [
        Fold(
            label=label,
            group=group,
            arguments=spec,
            references=tuple(slide for name, slide in slides.items() if groups[name] != group),
            targets={name: without_expression(slide) for name, slide in slides.items() if groups[name] == group},
            null=null,
        )
        for label, spec in specs.items()
        for group in sorted(set(groups.values()))
    ]


def run_fold(fold: Fold) -> FoldResult:
    """Fit on the references and predict every target."""
    started = time.perf_counter()
    # Every fold would repeat what there is to say about a slide: collected here, said once by the caller.
    with warnings.catch_warnings(record=True) as caught:
        predicted = _predict_targets(fold)
    warned = [(entry.category, str(entry.message), entry.filename, entry.lineno) for entry in caught]
    return FoldResult(fold.label, fold.group, predicted, time.perf_counter() - started, warned)


def _predict_targets(fold: Fold) -> dict[str, pd.DataFrame]:
    references = list(fold.references)
    if fold.null is not None:
        references = shuffled(references, fold.null, fold.arguments["seed"], fold.group)
    if fold.arguments["method"] != NETWORK:
        return {
            name: _prediction(predict(target, references, **fold.arguments, key_added=KEY, copy=True))
            for name, target in fold.targets.items()
        }
    # One training for all slides of the group; what a trained model knows already is not said again.
    of_fit = {name: value for name, value in fold.arguments.items() if name in inspect.signature(fit).parameters}
    of_predict = {name: value for name, value in fold.arguments.items() if name not in of_fit or name == "device"}
    model = fit(references, **of_fit)
    return {
        name: _prediction(predict(target, model=model, **of_predict, key_added=KEY, copy=True))
        for name, target in fold.targets.items()
    }


def _prediction(target: AnnData | None) -> pd.DataFrame:
    assert target is not None  # copy=True
    panel = target.var[Var.panel(KEY)].to_numpy(dtype=bool)
    return pd.DataFrame(np.asarray(target.layers[KEY])[:, panel], target.obs_names, target.var_names[panel])


def shuffled(slides: Sequence[AnnData], null: str, seed: int, group: str) -> list[AnnData]:
    """The slides with their rows of counts permuted, within each slide or among all of them.

    Seeded by the seed, the group held out and the names of the slides that are permuted together.
    """
    if null == SHUFFLE_ALL:  # rows change slides, so that only genes of all slides can go with them
        shared = common_genes({str(place): slide for place, slide in enumerate(slides)})
        slides = [slide[:, shared] for slide in slides]
    pools = [list(slides)] if null == SHUFFLE_ALL else [[slide] for slide in slides]
    copies = []
    for pool in pools:
        names = [str(slide.obs[Obs.slide].iloc[0]) for slide in pool]
        words = np.frombuffer(hashlib.sha256(json.dumps([group, *names]).encode()).digest(), dtype="<u4")
        counts = csr_matrix(vstack([slide.X for slide in pool]))
        counts = counts[np.random.default_rng([seed, *words.tolist()]).permutation(counts.shape[0])]
        ends = np.cumsum([slide.n_obs for slide in pool])
        for slide, end in zip(pool, ends, strict=True):
            copy = slide.copy()
            copy.X = counts[end - slide.n_obs : end]
            copies.append(copy)
    return copies


def run_folds(folds: Sequence[Fold], n_jobs: int) -> Iterator[FoldResult]:
    """Run the folds, each as soon as there is room, and hand over each result when it is there, in any order."""
    if n_jobs == 1:
        for fold in folds:
            yield run_fold(fold)
        return
    from joblib import Parallel, delayed, parallel_config  # type: ignore[import-untyped]

    # One thread a process: n_jobs processes of many threads each would fight for the same cores.
    with parallel_config("loky", inner_max_num_threads=1):
        # Arrays are not shared as read-only memory maps, so that a fold meets the same objects here and there.
        pool = Parallel(n_jobs=n_jobs, batch_size=1, return_as="generator_unordered", max_nbytes=None)
    yield from pool(delayed(_run_elsewhere)(fold, vars(settings)) for fold in folds)


def _run_elsewhere(fold: Fold, values: dict[str, Any]) -> FoldResult:
    """Run a fold in a process that knows nothing of the settings made in the first one."""
    for name, value in (values | {"progress": False}).items():
        setattr(settings, name, value)
    return run_fold(fold)


def score_folds(
    folds: list[Fold], slides: dict[str, AnnData], store: Checkpoint | None, n_jobs: int
) -> dict[tuple[str, str], tuple[pd.DataFrame, float]]:
    """Scores and seconds of every fold, read from the store where they are finished, computed where they are not."""
    finished: dict[tuple[str, str], tuple[pd.DataFrame, float]] = {}
    if store is not None:
        kept = {fold.key: store.read(*fold.key) for fold in folds}
        finished = {key: entry for key, entry in kept.items() if entry is not None}
    missing = {fold.key: fold for fold in folds if fold.key not in finished}
    said: set[str] = set()
    with progress_bar(total=len(folds), initial=len(finished), desc="cross-validation", unit="fold") as bar:
        for result in run_folds(list(missing.values()), n_jobs):
            scores = score_fold(result, slides)
            if store is not None:
                store.write(*result.key, scores, result.seconds, missing[result.key].arguments["device"])
            finished[result.key] = scores, result.seconds
            bar.update()
            for category, message, file, line in result.warned:
                if message not in said:
                    warnings.warn_explicit(message, category, file, line)
                    said.add(message)
    return finished


def score_fold(result: FoldResult, slides: dict[str, AnnData]) -> pd.DataFrame:
    """Compare the predictions of a fold with what was measured, which no method has seen."""
    tables = []
    for name, predicted in result.predicted.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # said already where the slide was a reference
            expression = log_expression(slides[name], label=f'slide "{name}"')
        measured = ~zero_spots(expression)
        genes = [gene for gene in predicted.columns if gene in slides[name].var_names]
        columns = slides[name].var_names.get_indexer(genes)
        scores = gene_scores(
            predicted.loc[:, genes].to_numpy()[measured], expression[measured][:, columns].toarray(), genes
        )
        tables.append(scores.rename(columns={"n_spots": "n"}).reset_index().assign(slide=name)[FOLD_COLUMNS])
    return pd.concat(tables, ignore_index=True)


class Checkpoint:
    """A folder with the scores of finished folds: a CSV each, and a JSON beside it that is written last.

    Parameters
    ----------
    folder
        The folder; made if it is not there.
    inputs
        Fingerprint of what all folds share.
    methods
        Fingerprint of each method, by label.

    Raises
    ------
    ValueError
        If the folder was begun with other inputs, or if one of its files was changed.
    OSError
        If it cannot be written.
    """

    def __init__(self, folder: str | Path, inputs: dict[str, Any], methods: dict[str, dict[str, Any]]) -> None:
        self.folder = check_writable_folder(folder)
        self.methods = methods
        path = self.folder / INPUTS_FILE
        if path.exists():
            self._refuse(json.loads(path.read_text(encoding="utf-8")), inputs, INPUTS_FILE)
        else:
            write_text(path, json.dumps(inputs, indent=1))

    def read(self, label: str, group: str) -> tuple[pd.DataFrame, float] | None:
        """Scores and seconds of a finished fold, ``None`` if it is not finished."""
        table, description = self._paths(label, group)
        if not description.exists():
            return None
        record = json.loads(description.read_text(encoding="utf-8"))
        self._refuse(record["method"], self.methods[label], f'method "{label}"')
        content = table.read_bytes() if table.exists() else b""
        if hashlib.sha256(content).hexdigest() != record["sha256"]:
            raise ValueError(
                f'"{table}" is not the file that {description.name} was written with. '
                f'Delete "{description}" to compute this fold again.'
            )
        # Genes may be called "NA" or "1e5": only the numbers are parsed.
        scores = pd.read_csv(
            io.BytesIO(content),
            dtype={"slide": str, "gene": str, "n": np.int64},
            keep_default_na=False,
            na_values={"pearson": [""], "spearman": [""], "rmse": [""]},
            float_precision="round_trip",
        )
        return scores, float(record["seconds"])

    def write(self, label: str, group: str, scores: pd.DataFrame, seconds: float, device: str | None) -> None:
        """Keep the scores of a fold: columns ``slide``, ``gene``, ``pearson``, ``spearman``, ``rmse``, ``n``."""
        table, description = self._paths(label, group)
        text = scores.to_csv(index=False, lineterminator="\n")
        record = {
            "label": label,
            "group": group,
            "method": self.methods[label],
            "seconds": seconds,
            "device": device,
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
        }
        write_text(table, text)
        write_text(description, json.dumps(record, indent=1))

    def _paths(self, label: str, group: str) -> tuple[Path, Path]:
        # Names may hold what no file name may, and two of them may differ in just that.
        slug = "_".join(re.sub(r"[^A-Za-z0-9.-]+", "-", name)[:SLUG_LENGTH] for name in (label, group))
        stem = f"{slug}_{digest(json.dumps([label, group]).encode())}"
        return self.folder / f"{stem}.csv", self.folder / f"{stem}.json"

    def _refuse(self, found: dict[str, Any], now: dict[str, Any], label: str) -> None:
        fields = differing_fields(found, json.loads(json.dumps(now)))
        if fields:
            shown = "; ".join(
                f"{name}: {reprlib.repr(old)} there, {reprlib.repr(new)} now" for name, old, new in fields[:3]
            )
            more = f"; and {len(fields) - 3} more" if len(fields) > 3 else ""
            raise ValueError(
                f'the checkpoint folder "{self.folder}" holds folds of other inputs ({label}: {shown}{more}). '
                "Pass another folder, or the inputs it was begun with."
            )


def differing_fields(old: Any, new: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    """Fields in which two nested dictionaries differ, as ``a.b.c``, with both values; ``None`` for one not there."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            found
            for key in sorted({*old, *new})
            for found in differing_fields(old.get(key), new.get(key), f"{name}.{key}".lstrip("."))
        ]
    return [] if old == new and type(old) is type(new) else [(name, old, new)]


def plain_arguments(spec: dict[str, Any]) -> dict[str, Any]:
    """The arguments as plain values: presets by their numbers, and not where it was computed."""
    plain = {name: value for name, value in spec.items() if name != "device"}
    return plain | {"preset": find_preset(spec["preset"]).to_dict()}


def slide_fingerprint(slide: AnnData) -> dict[str, Any]:
    """Fingerprint of what was measured on a slide and where."""
    counts = csr_matrix(slide.X, copy=True)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    indices = (counts.indptr.astype("<i8").tobytes(), counts.indices.astype("<i8").tobytes())
    return {
        "spots": slide.n_obs,
        "genes": digest(*(name.encode() for name in slide.var_names)),
        "counts": digest(*indices, counts.data.astype("<f8").tobytes()),
        "positions": digest(slide.obsm[SPATIAL].astype("<f8").tobytes()),
    }


def method_fingerprint(spec: dict[str, Any], slides: dict[str, AnnData]) -> dict[str, Any]:
    """Fingerprint of a method: its arguments, and the embeddings it stands on."""
    key = spec["embedding"]
    return plain_arguments(spec) | {
        "embeddings": {name: digest(slide.obsm[key].tobytes()) for name, slide in slides.items()}
    }
