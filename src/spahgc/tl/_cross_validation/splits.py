"""Which slides are predicted from which: groups held out in turn, or splits that somebody else laid down."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from anndata import AnnData

from spahgc._keys import Obs
from spahgc._logging import warn
from spahgc._reading import reading
from spahgc._slides.patients import patients_of
from spahgc._validate import quoted, user_path

SPLIT_FILE = re.compile(r"(train|test)_(.+)\.csv")
"""Names of the two files of a split."""
SAMPLE = "sample_id"
"""Column of these files that names the slide."""


@dataclass(frozen=True)
class Split:
    """One fold: slides that are learned from, and slides that are predicted.

    Parameters
    ----------
    name
        Name of the group that is predicted.
    train, test
        Names of the slides.
    """

    name: str
    train: tuple[str, ...]
    test: tuple[str, ...]


def splits_of_groups(groups: Mapping[str, str]) -> list[Split]:
    """Every group held out in turn, sorted by name; learned from are all other slides."""
    return [
        Split(
            group,
            tuple(name for name in groups if groups[name] != group),
            tuple(name for name in groups if groups[name] == group),
        )
        for group in sorted(set(groups.values()))
    ]


def groups_of_splits(splits: Iterable[Split]) -> dict[str, str]:
    """The split in which each slide is predicted."""
    return dict(sorted((name, split.name) for split in splits for name in split.test))


# Groups.


def find_group_by(slides: Mapping[str, AnnData]) -> str:
    """What is held out together where nobody said it: patients, where every slide names one and there are two, else slides.

    Warns
    -----
    UserWarning
        If some slides name a patient and others do not, or if one names several.
    """
    patients = {name: patients_of(slide) for name, slide in slides.items()}
    unnamed = [name for name, found in patients.items() if not found]
    several = [name for name, found in patients.items() if len(found) > 1]
    problem = ""
    if several:
        problem = f'obs["{Obs.patient}"] has several values in {quoted(several)}'
    elif unnamed and len(unnamed) < len(patients):
        problem = f'obs["{Obs.patient}"] is not filled in {quoted(unnamed)}, as it is in the other slides'
    if problem:
        warn(
            f"{problem}: slides are held out one at a time, so that a slide may be predicted from another of its patient. "
            f'Name the patient of every slide, or pass group_by="{Obs.slide}".',
            stacklevel=3,
        )
    if several or unnamed:
        return Obs.slide
    return Obs.patient if len({patient for found in patients.values() for patient in found}) > 1 else Obs.slide


def groups_by(slides: Mapping[str, AnnData], group_by: str) -> dict[str, str]:
    """Group of every slide."""
    groups = {name: name if group_by == Obs.slide else _group(slide, name, group_by) for name, slide in slides.items()}
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
            f'Add the column, or pass group_by="{Obs.slide}".'
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


# Splits of others.


def read_splits(splits: Any) -> list[Split]:
    """Splits from a folder with ``train_0.csv``, ``test_0.csv`` and so on, or from a mapping of (train, test).

    Raises
    ------
    TypeError
        If it is neither.
    ValueError
        If a file has no partner or no column ``sample_id``, if a side is empty, if a slide stands on both sides of a
        split, or is predicted in two.
    FileNotFoundError
        If there is no such folder, or no split in it.
    """
    if isinstance(splits, str | os.PathLike):
        named = _files(user_path(splits, "splits="))
    elif isinstance(splits, Mapping):
        named = {str(name): _pair(name, pair) for name, pair in splits.items()}
    else:
        raise TypeError(
            f"splits= must be a folder or a mapping of (train, test) by name, found {type(splits).__name__}. Pass the folder "
            'with train_0.csv and test_0.csv, or {"0": (["A", "B"], ["C"])}.'
        )
    found = [Split(name, tuple(train), tuple(test)) for name, (train, test) in named.items()]
    _check(found)
    return found


def _pair(name: object, pair: Any) -> tuple[list[str], list[str]]:
    if isinstance(pair, Mapping) and set(pair) == {"train", "test"}:
        pair = pair["train"], pair["test"]
    if isinstance(pair, str | Mapping) or not isinstance(pair, Iterable) or len(sides := list(pair)) != 2:
        raise TypeError(f'split "{name}" must be (train, test), two lists of slides, found {pair!r}.')
    if any(isinstance(side, str) or not isinstance(side, Iterable) for side in sides):
        raise TypeError(f'split "{name}" must be (train, test), two lists of slides, found {pair!r}.')
    train, test = ([str(slide) for slide in side] for side in sides)
    return train, test


def _files(folder: Path) -> dict[str, tuple[list[str], list[str]]]:
    if not folder.is_dir():
        raise FileNotFoundError(f'splits="{folder}" is no folder. Pass the one with train_0.csv and test_0.csv.')
    sides: dict[str, dict[str, Path]] = {}
    for path in folder.iterdir():
        match = SPLIT_FILE.fullmatch(path.name)
        if match:
            sides.setdefault(match[2], {})[match[1]] = path
    if not sides:
        raise FileNotFoundError(f'the folder splits="{folder}" holds no train_0.csv and test_0.csv.')
    alone = [next(iter(files.values())).name for files in sides.values() if len(files) < 2]
    if alone:
        raise ValueError(f'the folder splits="{folder}" lacks the other file of {quoted(sorted(alone))}. Add it.')
    return {
        name: (_slides(sides[name]["train"]), _slides(sides[name]["test"])) for name in sorted(sides, key=_in_order)
    }


def _in_order(name: str) -> tuple[bool, int, str]:
    """Numbers by their size, then other names."""
    return (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)


def _slides(path: Path) -> list[str]:
    with reading(path, "the slides of a split", "Copy it again."):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)  # a slide may be called "001" or "NA"
        if SAMPLE not in table:
            raise ValueError(f'it has no column "{SAMPLE}", which names the slides, but {quoted(table.columns)}')
        names = [name.strip() for name in table[SAMPLE]]
        if not all(names):
            raise ValueError(f'the column "{SAMPLE}" is empty in {names.count("")} of {len(names)} rows')
    return names


def _check(splits: list[Split]) -> None:
    if not splits:
        raise ValueError("splits= is empty. Pass at least one (train, test).")
    tested: dict[str, str] = {}
    for split in splits:
        for side, names in (("train", split.train), ("test", split.test)):
            if not names:
                raise ValueError(f'split "{split.name}" has no slide in {side}. Name at least one.')
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(
                    f'split "{split.name}" names {quoted(twice)} more than once in {side}. Name each once.'
                )
        both = [name for name in split.test if name in split.train]
        if both:
            raise ValueError(
                f'split "{split.name}" has {quoted(both)} in train and in test: the measurement would reach its own '
                "prediction. Take them out of one of the two."
            )
        for name in split.test:
            if name in tested:
                raise ValueError(
                    f'slide "{name}" is in test of split "{tested[name]}" and of split "{split.name}", and would count '
                    "twice. Pass repeated splits one after the other."
                )
            tested[name] = split.name


def check_known(splits: Iterable[Split], slides: Mapping[str, AnnData]) -> None:
    """Refuse splits of slides that were not passed, and say so where the slides of a patient stand on both sides."""
    named = {name for split in splits for name in (*split.train, *split.test)}
    unknown = sorted(named - set(slides))
    if unknown:
        raise ValueError(
            f"splits= names {len(unknown)} slides that were not passed: {quoted(unknown, 20)}. The slides are "
            f'{quoted(slides, 20)}; obs["{Obs.slide}"] names them.'
        )
    patients = {name: patients_of(slides[name]) for name in named}
    for split in splits:
        known, wanted = (set().union(*(patients[name] for name in side)) for side in (split.train, split.test))
        if known & wanted:
            warn(
                f'split "{split.name}" has slides of the patients {quoted(sorted(known & wanted))} in train and in test: '
                "its scores are not those of a new patient.",
                stacklevel=3,
            )
