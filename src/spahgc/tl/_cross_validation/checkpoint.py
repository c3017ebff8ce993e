"""Finished folds on disk, and the fingerprints of what they were made from."""

from __future__ import annotations

import hashlib
import io
import json
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from spahgc._files import digest, remove_leftovers_in, write_text
from spahgc._keys import POOLED_PEARSON, SCORES, SLIDE_SCORES, STRUCTURE_SCORES
from spahgc._parameters import find_preset
from spahgc._reading import reading
from spahgc._slides.measured import MeasuredSlide
from spahgc._validate import check_writable_folder, quoted
from spahgc.tl._cross_validation.functions import qualified_name

FOLD_SCORES = (*(score for score in SCORES if score != "mae"), *STRUCTURE_SCORES, *SLIDE_SCORES, POOLED_PEARSON)
"""Scores that are kept of a fold, all of which may be undefined."""
CORRELATIONS = ("pearson", "spearman", "ssim", *SLIDE_SCORES, POOLED_PEARSON)
"""Those of them that lie between -1 and 1."""
INPUTS_FILE = "inputs.json"
MAX_SPOTS = 2**31 - 1
"""Of a slide, in a table of scores; what draws resamples of them knows no larger numbers."""
ROUNDING = 1e-9
"""By which a correlation may pass 1."""
SLUG_LENGTH = 40
"""Most characters of a method's or group's name in a file name."""


class Checkpoint:
    """A folder with the scores of finished folds: a CSV each, and a JSON beside it that is written last.

    Parameters
    ----------
    folder
        The folder; made if it is not there.
    inputs
        Fingerprint of what all folds share; ``"slides"`` has that of every slide with its ``"group"``.
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
        remove_leftovers_in(self.folder)
        self.methods = methods
        self._group_of = {name: str(slide["group"]) for name, slide in inputs["slides"].items()}
        path = self.folder / INPUTS_FILE
        if path.exists():
            with reading(path, "the inputs of a cross-validation", "Pass another folder, or remove this one."):
                found = json.loads(path.read_text(encoding="utf-8"))
            self._refuse(found, inputs, INPUTS_FILE)
        else:
            write_text(path, json.dumps(inputs, indent=1))

    def read(self, label: str, group: str, genes: Mapping[str, set[str]]) -> tuple[pd.DataFrame, float] | None:
        """Scores and seconds of a finished fold, ``None`` if it is not finished.

        Parameters
        ----------
        label, group
            The method's label, and the group held out.
        genes
            Those of every slide.

        Raises
        ------
        ValueError
            If its files are damaged, or hold what is none of this fold.
        """
        table, description = self._paths(label, group)
        if not description.exists():
            return None
        remedy = f'Delete "{description}" to compute this fold again.'
        with reading(description, "the description of a finished fold", remedy):
            record = json.loads(description.read_text(encoding="utf-8"))
            method, digest_of_table, seconds = record["method"], record["sha256"], float(record["seconds"])
        self._refuse(method, self.methods[label], f'method "{label}"')
        with reading(table, "the scores of a finished fold", remedy):
            content = table.read_bytes() if table.exists() else b""
        if hashlib.sha256(content).hexdigest() != digest_of_table:
            raise ValueError(f'"{table}" is not the file that {description.name} was written with. {remedy}')
        with reading(table, "the scores of a finished fold", remedy):
            scores = _parsed(content)
            self._check_scores(scores, group, genes)
        return scores, seconds

    def _check_scores(self, scores: pd.DataFrame, group: str, genes: Mapping[str, set[str]]) -> None:
        """Refuse scores of another fold, and numbers that none can have."""
        foreign = sorted({name for name in scores["slide"].unique() if self._group_of.get(name) != group})
        if foreign:
            raise ValueError(f'it holds slides that are not of group "{group}": {quoted(foreign)}')
        for name, rows in scores.groupby("slide"):
            unknown = sorted(set(rows["gene"]) - genes[str(name)])
            if unknown:
                raise ValueError(f'it holds genes that slide "{name}" does not have: {quoted(unknown)}')
        if (scores[[*CORRELATIONS]].abs() > 1 + ROUNDING).any(axis=None):
            raise ValueError("it holds a correlation outside -1 to 1")
        if (scores[["rmse", "variance_ratio"]] < 0).any(axis=None):
            raise ValueError("it holds a negative error or ratio of variances")
        if scores.duplicated(["slide", "gene"]).any():
            raise ValueError("it holds a gene of a slide more than once")
        if not scores["n"].between(1, MAX_SPOTS).all():
            raise ValueError(f"it holds numbers of spots from {scores['n'].min():,} to {scores['n'].max():,}")

    def write(self, label: str, group: str, scores: pd.DataFrame, seconds: float, device: str | None) -> None:
        """Keep the scores of a fold: columns ``slide``, ``gene``, ``n`` and the scores."""
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


def _parsed(content: bytes) -> pd.DataFrame:
    """The scores of a fold, as :meth:`Checkpoint.write` took them."""
    # Genes may be called "NA" or "1e5": only the numbers are parsed.
    scores = pd.read_csv(
        io.BytesIO(content),
        dtype={"slide": str, "gene": str, "n": np.int64} | dict.fromkeys(FOLD_SCORES, np.float64),
        keep_default_na=False,
        na_values={name: [""] for name in FOLD_SCORES},
        float_precision="round_trip",
    )
    missing = {"slide", "gene", "n", *FOLD_SCORES} - set(scores.columns)
    if missing:
        raise ValueError(f"it lacks the columns {quoted(sorted(missing))}")
    return scores


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
    """The arguments as plain values: presets by their numbers, functions by their names, and not where it was computed."""
    plain = {name: value for name, value in spec.items() if name != "device"}
    if "function" in plain:
        plain["function"] = qualified_name(plain["function"])
    return plain | {"preset": find_preset(spec["preset"]).to_dict()}


def slide_fingerprint(slide: MeasuredSlide) -> dict[str, Any]:
    """Fingerprint of what was measured on a slide and where."""
    counts = slide.counts().copy()
    counts.sum_duplicates()
    counts.eliminate_zeros()
    indices = (counts.indptr.astype("<i8").tobytes(), counts.indices.astype("<i8").tobytes())
    totals = {} if slide.totals is None else {"totals": digest(slide.totals.astype("<f8").tobytes())}
    return totals | {
        "spots": len(slide.obs_names),
        "genes": digest(*(name.encode() for name in slide.var_names)),
        "counts": digest(*indices, counts.data.astype("<f8").tobytes()),
        "positions": digest(slide.xy.astype("<f8").tobytes()),
    }


def method_fingerprint(spec: dict[str, Any], slides: Mapping[str, MeasuredSlide]) -> dict[str, Any]:
    """Fingerprint of a method: its arguments, and the embeddings it stands on."""
    key = spec["embedding"]
    return plain_arguments(spec) | {
        "embeddings": {name: digest(slide.embedding(key).tobytes()) for name, slide in slides.items()}
    }
