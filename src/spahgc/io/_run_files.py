"""The files of a run of Space Ranger, however a copy keeps them.

Space Ranger puts them into a folder and its ``spatial/``. Deposits such as those of GEO put them into one folder, with the name
of the sample before each and packed one by one, and often several samples beside each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from spahgc._validate import quoted
from spahgc.io._files import folder_content

SPATIAL_FOLDER = "spatial"
FILTERED, RAW = "filtered_feature_bc_matrix", "raw_feature_bc_matrix"
POSITIONS_FILES = ("tissue_positions.csv", "tissue_positions.parquet", "tissue_positions_list.csv")
"""Versions 2 to 4, Visium HD, version 1."""
SCALE_FILE = "scalefactors_json.json"
IMAGE_STEMS = {"hires": "tissue_hires_image", "lowres": "tissue_lowres_image"}
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
"""Space Ranger writes PNG; copies were converted."""
TABLES = {"matrix": ("matrix.mtx",), "features": ("features.tsv", "genes.tsv"), "barcodes": ("barcodes.tsv",)}
"""The three tables of a matrix that is no HDF5 file."""
PACKED = ".gz"
SEPARATORS = "_.-"
"""What stands between the name of a sample and that of a file."""
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")
AGGREGATE_FILES = ("aggregation.csv", "aggr_tissue_positions.csv", "aggr_tissue_positions_list.csv")
"""What spaceranger aggr writes beside the counts of several runs."""


@dataclass(frozen=True)
class CountTables:
    """A matrix as three tables."""

    matrix: Path
    features: Path
    barcodes: Path


@dataclass(frozen=True)
class RunFiles:
    """The files of one sample."""

    counts: Path | CountTables
    """An HDF5 file, a folder of tables, or the tables themselves."""
    positions: Path
    scales: Path
    images: dict[str, Path]
    """``hires`` and ``lowres``, where they are there."""

    @property
    def counts_path(self) -> Path:
        """What messages call the counts."""
        return self.counts if isinstance(self.counts, Path) else self.counts.matrix


@dataclass(frozen=True)
class Found:
    """A file under one of the names of its kind."""

    prefix: str
    """What stands before the name: the sample."""
    path: Path


def find_run(folder: Path, counts: str | None = None, prefix: str | None = None) -> RunFiles:
    """Find the files of a sample.

    Parameters
    ----------
    folder
        The folder that holds the counts; the other files lie in its ``spatial/``, or beside the counts.
    counts
        Name of the matrix in it; ``None`` finds the filtered one.
    prefix
        Name of the sample, with which its files begin; ``None`` takes the only one there is.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If there are several samples and `prefix` does not say which, if the files belong to several, or if the folder is
        an aggregate of several runs.
    """
    refuse_aggregate(folder)
    spatial = folder / SPATIAL_FOLDER
    places = [spatial, folder] if spatial.is_dir() else [folder]
    kinds = {
        "positions": _found(places, POSITIONS_FILES),
        "scale factors": _found(places, (SCALE_FILE,)),
        **{key: _found(places, [stem + ending for ending in IMAGE_ENDINGS]) for key, stem in IMAGE_STEMS.items()},
    }
    if not spatial.is_dir() and not kinds["positions"] and not kinds["scale factors"]:
        raise FileNotFoundError(
            f'"{folder}" has no folder "{SPATIAL_FOLDER}", which holds the positions, scale factors and images; it '
            f"holds {folder_content(folder)}. {_unpack_hint(folder)}Copy it from the run, or pass the folder "
            "that has it."
        )
    if counts is None:
        chosen_counts = _filtered_counts(folder, prefix)
    else:
        chosen_counts = _named_counts(folder, counts)
    if prefix is None and chosen_counts[0] and any(found.prefix == chosen_counts[0] for found in kinds["positions"]):
        prefix = chosen_counts[0]
    chosen = {kind: _choose(folder, kind, files, prefix) for kind, files in kinds.items()}
    positions, scales = chosen["positions"], chosen["scale factors"]
    if positions is None:
        raise FileNotFoundError(
            f'no positions in "{places[0]}": none of {quoted(POSITIONS_FILES)} is there, only {folder_content(places[0])}. '
            f"{_unpack_hint(folder)}Copy the table from the run."
        )
    if scales is None:
        raise FileNotFoundError(
            f'"{places[0] / SCALE_FILE}" is missing, without which nobody knows how large spots and images are. Copy it from '
            "the run."
        )
    _refuse_other_samples(folder, [chosen_counts[0], *(file.prefix for file in chosen.values() if file is not None)])
    images = {key: file.path for key in IMAGE_STEMS if (file := chosen[key]) is not None}
    return RunFiles(chosen_counts[1], positions.path, scales.path, images)


def refuse_aggregate(folder: Path) -> None:
    """Refuse what spaceranger aggr has made of several runs.

    Raises
    ------
    ValueError
        If the folder holds its files.
    """
    aggregate = [name for name in AGGREGATE_FILES if (folder / name).is_file()]
    if aggregate:
        raise ValueError(
            f'"{folder}" is an aggregate of several runs (spaceranger aggr; it holds {quoted(aggregate)}), of which each has '
            "an image and coordinates of its own. Read each run by itself."
        )


def count_tables(folder: Path) -> CountTables:
    """The three tables of a matrix in a folder of its own, packed or not.

    Raises
    ------
    FileNotFoundError
        If one is missing.
    """
    found = {kind: _found([folder], names) for kind, names in TABLES.items()}
    for kind, names in TABLES.items():
        if not found[kind]:
            raise FileNotFoundError(f'none of {quoted(names)} is in "{folder}", which holds {folder_content(folder)}')
    chosen = {kind: _choose(folder, f"tables {kind}", files, None) for kind, files in found.items()}
    return CountTables(**{kind: file.path for kind, file in chosen.items() if file is not None})


def _found(places: Iterable[Path], names: Iterable[str], *, folders: bool = False) -> list[Found]:
    """Files, or folders, whose names end with one of the names, the preferred first: by place, name, and unpacked first."""
    found = []
    for place in places:
        items = sorted(item for item in place.iterdir() if item.is_dir() == folders and not item.name.startswith("."))
        for name in names:
            for packed in ("",) if folders else ("", PACKED):
                ends = [item for item in items if item.name.endswith(name + packed)]
                prefixes = [item.name.removesuffix(name + packed) for item in ends]
                found += [
                    Found(start.rstrip(SEPARATORS), item)
                    for item, start in zip(ends, prefixes, strict=True)
                    if not start or start[-1] in SEPARATORS
                ]
    return found


def _choose(folder: Path, kind: str, files: list[Found], prefix: str | None) -> Found | None:
    """The file of the sample: that with its prefix, else that without one."""
    prefixes = list(dict.fromkeys(file.prefix for file in files))
    if prefix is not None:
        wanted = prefix.rstrip(SEPARATORS)
        files = [file for file in files if file.prefix == wanted] or [file for file in files if not file.prefix]
        if not files and prefixes and kind not in IMAGE_STEMS:
            raise FileNotFoundError(
                f'no {kind} of prefix="{prefix}" in "{folder}": the files of that kind begin with {quoted(prefixes)}. Pass '
                "one of these."
            )
        return files[0] if files else None
    if "" in prefixes:
        return next(file for file in files if not file.prefix)
    if len(prefixes) > 1:
        raise ValueError(
            f'"{folder}" holds the {kind} of {len(prefixes)} samples: {quoted(prefixes)}. Say with prefix= which one, or keep '
            "each sample in a folder of its own."
        )
    return files[0] if files else None


def _named_counts(folder: Path, counts: str) -> tuple[str, Path]:
    """The matrix that was asked for, and the sample that its name names."""
    path = folder / counts
    if not path.exists():
        raise FileNotFoundError(f'counts="{counts}" is not in "{folder}", which holds {folder_content(folder)}.')
    bare = path.name.removesuffix(PACKED).removesuffix(".h5")
    start = next((bare.removesuffix(name) for name in (FILTERED, RAW) if bare.endswith(name)), "")
    return start.rstrip(SEPARATORS), path


def _filtered_counts(folder: Path, prefix: str | None) -> tuple[str, Path | CountTables]:
    """The filtered matrix of the sample, and the sample that its name names."""
    # The file is faster to read than the folder beside it, which holds the same.
    matrices = [*_found([folder], (f"{FILTERED}.h5",)), *_found([folder], (FILTERED,), folders=True)]
    chosen = _choose(folder, "filtered counts", matrices, prefix)
    if chosen is not None:
        return chosen.prefix, chosen.path
    tables = {kind: _choose(folder, f"table {kind}", _found([folder], names), prefix) for kind, names in TABLES.items()}
    matrix, features, barcodes = (tables[kind] for kind in TABLES)
    if matrix is not None and features is not None and barcodes is not None:
        _refuse_other_samples(folder, [table.prefix for table in (matrix, features, barcodes)])
        return matrix.prefix, CountTables(matrix.path, features.path, barcodes.path)
    raw = next((name for name in (f"{RAW}.h5", RAW) if (folder / name).exists()), None)
    remedy = "Copy it from the run."
    if raw is not None:
        remedy = f'Copy it from the run, or pass counts="{raw}", of which the spots under tissue are kept.'
    raise FileNotFoundError(
        f'no counts in "{folder}": neither {FILTERED}.h5 nor the folder {FILTERED} is there, only {folder_content(folder)}. '
        f"{_unpack_hint(folder)}{remedy}"
    )


def _refuse_other_samples(folder: Path, prefixes: Iterable[str]) -> None:
    """Refuse files of several samples; one may be named more shortly than the other."""
    named = sorted({prefix for prefix in prefixes if prefix}, key=lambda prefix: (len(prefix), prefix))
    for shorter, longer in zip(named, named[1:], strict=False):
        parts = {longer[: len(shorter) + 1].rstrip(SEPARATORS), longer[-len(shorter) - 1 :].lstrip(SEPARATORS)}
        if len(longer) <= len(shorter) or shorter not in parts:
            raise ValueError(
                f'the files in "{folder}" belong to several samples: they begin with {quoted(named)}. Pass prefix= with the '
                "name of one, or keep each sample in a folder of its own."
            )


def _unpack_hint(folder: Path) -> str:
    archives = sorted(item.name for item in folder.iterdir() if item.name.endswith(ARCHIVES))
    return f"Unpack {quoted(archives)} first if that is in there. " if archives else ""
