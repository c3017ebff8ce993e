"""Cells of any platform that gives counts and places: CosMx, MERSCOPE, a segmentation of one's own."""

from __future__ import annotations

import io
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix

from spahgc._logging import HINT
from spahgc._reading import read_h5ad, reading, unreadable
from spahgc._slides.polygons import Polygons
from spahgc._validate import check_anndata, quoted, user_path
from spahgc.image._mpp import check_mpp
from spahgc.io._alignment import Matrix, checked_affine, length_scale, transformed
from spahgc.io._cell_slide import MIN_COUNTS, Cells, check_finite, check_min_counts, check_outline_size, finish_cells
from spahgc.io._controls import without_controls
from spahgc.io._files import existing_file, read_bytes, read_text, refuse_repeated
from spahgc.io._geojson import read_geojson
from spahgc.io._space_ranger import COUNTS_REMEDY, check_counts, whole_counts
from spahgc.io._write_library import library_name

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

COSMX_UM = 0.120280945
"""Microns per pixel of CosMx's images, in which its tables name the places of cells."""
FIELD, CELL_OF_FIELD = "fov", "cell_ID"
"""Columns of CosMx that name a cell together; cell 0 of a field is what lies in no cell."""
CELL_NAMES = ("cell", "cell_id", "EntityID", "Unnamed: 0", "index")
"""Columns that may name a cell where the index does not, the first that is there."""
REMEDY = "Export the table again."
MAX_APART = 1.0
"""Median distance of centres from the middle of their outlines, in diameters of these, above which the two do not fit."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Columns:
    """Columns of places, and their unit."""

    x: str
    y: str
    unit_um: float | None
    """Microns; ``None``: pixels of the image, or unknown."""


KNOWN_COLUMNS = (
    Columns("CenterX_global_px", "CenterY_global_px", COSMX_UM),
    Columns("center_x", "center_y", 1.0),
    Columns("x_centroid", "y_centroid", 1.0),
    Columns("pxl_col_in_fullres", "pxl_row_in_fullres", None),
    Columns("x", "y", None),
)
"""CosMx, MERSCOPE, Xenium, Space Ranger and HEST, and everybody else."""
AREA_COLUMNS = ("Area", "area", "cell_area")
"""Areas, in squares of the unit of the places."""


def cells(
    counts: AnnData | pd.DataFrame | str | os.PathLike[str],
    table: pd.DataFrame | str | os.PathLike[str],
    image: str | os.PathLike[str] | None,
    *,
    affine: ArrayLike | str | os.PathLike[str] | None = None,
    columns: tuple[str, str] | None = None,
    area: str | None = None,
    polygons: GeoDataFrame | str | os.PathLike[str] | None = None,
    mpp: float | None = None,
    min_counts: int = MIN_COUNTS,
    library_id: str | None = None,
) -> AnnData:
    """Read cells of CosMx, MERSCOPE or any other platform, on their H&E image.

    Parameters
    ----------
    counts
        Counts, cells x features: an AnnData, a table whose index (or column ``cell``) names the cells, or a file: ``.h5ad``,
        10x's ``.h5``, or a table as ``.csv``, ``.tsv`` or ``.parquet``, packed or not (CosMx's ``exprMat_file``, MERSCOPE's
        ``cell_by_gene``).
    table
        Places of the cells: a table, or the file of one, whose index (or column ``cell``) names the cells; of CosMx ``fov``
        and ``cell_ID`` together do. Cells that have no counts are left out.
    image
        The H&E image; ``None`` where there is none, which leaves nothing to embed.
    affine
        3 x 3 matrix, or the file of one, from the unit of the table to pixels of the image. ``None``: the table is in
        pixels of the image. Columns that are known to be in another unit (microns of MERSCOPE, pixels of CosMx's own image)
        need it.
    columns
        Names of the columns of x and y; ``None`` takes those of CosMx, MERSCOPE, Xenium or Space Ranger, or ``x`` and ``y``.
    area
        Name of the column of areas, in squares of the table's unit; ``None`` takes ``Area``, ``area`` or ``cell_area``.
    polygons
        Outlines in the unit of the table: a GeoDataFrame whose index names the cells, or GeoJSON whose features have the
        name as ``id`` or as property ``cell_id``.
    mpp
        Microns per pixel of the image; ``None`` takes what table and matrix, or else the file, say.
    min_counts
        Cells with fewer counts of genes are flagged in ``obs["few_counts"]``; none is left out for it.
    library_id
        Name of the slide; ``None`` takes the file name of the image.

    Returns
    -------
    Cells x genes, as :func:`spahgc.io.xenium` describes them; `obs` has the columns of the table. Control probes are told by
    their names (``NegPrb1``, ``SystemControl1``, ``Blank-1``, ``NegControlProbe_1``, ...).

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is damaged, cells of the counts have no place, two have one name, places are not finite or in 3-D, the
        image is no H&E, more than 5 % of the cells lie outside of it, or outlines do not fit the places.

    Warns
    -----
    UserWarning
        If some cells lie outside the image and are left out.

    Examples
    --------
    >>> import spahgc as sp
    >>> affine = [[0, 2.1, 500], [-2.1, 0, 9000], [0, 0, 1]]  # microns to pixels of the H&E image
    >>> adata = sp.io.cells("cell_by_gene.csv", "cell_metadata.csv", "he.tif", affine=affine)  # doctest: +SKIP
    """
    min_counts = check_min_counts(min_counts)
    check_mpp("mpp", mpp)
    image_path = None if image is None else existing_file(image, "image")
    name = library_name(library_id, image_path)
    places = _named(_places_table(table), "table")
    where = _columns(places, columns)
    to_image = _to_image(affine, where)
    adata, notes = _counts(counts)

    rows = places.index.get_indexer(adata.obs_names)
    unknown = adata.obs_names[rows < 0]
    if len(unknown):
        raise ValueError(
            f"{len(unknown)} of {adata.n_obs} cells of the counts ({quoted(unknown, 3)}) are not in the table "
            f"({quoted(places.index, 3)}, {len(places)} in all). Name the cells alike in both."
        )
    placed = places.iloc[rows]
    adata.obs = placed.drop(columns=[column for column in ("slide",) if column in placed])
    adata = without_controls(adata)
    in_table = placed[[where.x, where.y]].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    check_finite(in_table, adata.obs_names, "the table")
    if mpp is None and where.unit_um is not None:
        mpp = where.unit_um / length_scale(to_image)
    resolution = mpp if mpp is not None else _file_mpp(image_path)
    drawn = None if polygons is None else _outlines(polygons, adata.obs_names, in_table).moved(to_image)
    if drawn is not None:
        check_outline_size(drawn, resolution, "the outlines of polygons=")
    areas = _areas(placed, area, length_scale(to_image), resolution)
    if areas is None and drawn is not None and resolution is not None:
        areas = np.where(drawn.known, drawn.areas * resolution**2, np.nan)
    found = Cells(
        adata,
        transformed(to_image, in_table),
        areas,
        drawn,
        "the table of cells",
        {"reader": "spahgc.io.cells", "affine": to_image, **notes, "n_cells_without_counts": len(places) - len(placed)},
    )
    _logger.log(HINT, "%s: %d cells, %d genes", name, *adata.shape)
    return finish_cells(found, name, mpp, image_path, min_counts=min_counts)


def _read_table(path: Path, label: str) -> pd.DataFrame:
    """A table of any usual ending, packed or not."""
    endings = [ending.lower() for ending in path.suffixes]
    with reading(path, label, REMEDY):
        if ".parquet" in endings:
            return pd.read_parquet(io.BytesIO(read_bytes(path)))
        separator = "\t" if {".tsv", ".txt"} & set(endings) else ","
        text = dict.fromkeys(CELL_NAMES, str)
        return pd.read_csv(io.BytesIO(read_bytes(path)), sep=separator, dtype=text)


def _places_table(table: Any) -> pd.DataFrame:
    if isinstance(table, pd.DataFrame):
        return table.copy()
    if isinstance(table, str | os.PathLike):
        return _read_table(existing_file(table, "table"), "the table of cells")
    array = np.asarray(table)
    raise TypeError(
        f"table is a {type(table).__name__} of shape {array.shape}; pass a table (pandas) whose index names the cells, with their x and "
        "y, or the path of one. A slide has two axes: of 3-D positions, keep x and y."
    )


def _named(table: pd.DataFrame, label: str) -> pd.DataFrame:
    """A table whose index names the cells, as text."""
    if table.empty:
        raise ValueError(f"{label} has no rows. Pass one row for each cell.")
    if {FIELD, CELL_OF_FIELD} <= set(table.columns):
        # CosMx numbers cells anew in each field of view.
        names = table[FIELD].astype(str) + "_" + table[CELL_OF_FIELD].astype(str)
        index: pd.Index = pd.Index(names.to_numpy(), dtype=object)
    else:
        column = next((name for name in CELL_NAMES if name in table), None)
        # An index that somebody made names the cells; one that counts the rows does not.
        counted = isinstance(table.index, pd.RangeIndex)
        index = (
            pd.Index(table[column].astype(str).to_numpy(), dtype=object)
            if counted and column
            else table.index.astype(str)
        )
        table = table.drop(columns=column) if counted and column else table
    refuse_repeated(index, f"cells of {label}", "Keep one row for each cell.")
    return table.set_axis(index, axis=0)


def _columns(table: pd.DataFrame, columns: tuple[str, str] | None) -> Columns:
    if columns is not None:
        names = (columns,) if isinstance(columns, str) else tuple(columns)
        if len(names) != 2:
            raise ValueError(
                f"columns={columns!r}; pass the names of two columns, x and y. A slide has two axes, not 3-D positions."
            )
        missing = [name for name in names if name not in table]
        if missing:
            raise ValueError(
                f"columns={columns!r}: the table has no {quoted(missing)}; it has {quoted(table.columns, 10)}."
            )
        known = next((one for one in KNOWN_COLUMNS if (one.x, one.y) == names), None)
        return Columns(str(names[0]), str(names[1]), None if known is None else known.unit_um)
    found = next((one for one in KNOWN_COLUMNS if one.x in table and one.y in table), None)
    if found is None:
        listed = "; ".join(f"{one.x}, {one.y}" for one in KNOWN_COLUMNS)
        raise ValueError(
            f"the table has none of the columns of places that are known ({listed}); it has {quoted(table.columns, 10)}. Name them with "
            "columns=(x, y)."
        )
    return found


def _to_image(affine: ArrayLike | str | os.PathLike[str] | None, where: Columns) -> Matrix:
    if affine is None:
        if where.unit_um is None:
            return np.eye(3)
        unit = "microns" if where.unit_um == 1 else f"pixels of {where.unit_um:.4g} um of the platform's own image"
        raise ValueError(
            f'the places in columns "{where.x}" and "{where.y}" are in {unit}, not in pixels of the H&E image. Pass affine= with the 3 x '
            "3 matrix that brings them there; numpy.eye(3) if they are in its pixels all the same."
        )
    if not isinstance(affine, str | os.PathLike):
        return checked_affine(affine, "affine")
    path = existing_file(affine, "affine")
    with reading(path, "the matrix", "It must be three lines of three numbers."):
        numbers = [line.replace(",", " ").split() for line in read_text(path).splitlines() if line.strip()]
        matrix = np.array([[float(number) for number in line] for line in numbers])
    return checked_affine(matrix, f'the matrix "{path}"')


def _counts(counts: AnnData | pd.DataFrame | str | os.PathLike[str]) -> tuple[AnnData, dict[str, object]]:
    """Counts of all features as CSR, float32, and what was left out."""
    path, notes = Path("counts="), dict[str, object]()
    if isinstance(counts, AnnData):
        check_anndata(counts, "counts")
        source = AnnData(counts.X, obs=pd.DataFrame(index=counts.obs_names.astype(str)), var=counts.var.copy())
    elif isinstance(counts, pd.DataFrame):
        source, notes = _of_table(counts)
    else:
        path = user_path(counts, "counts")
        if path.suffix == ".h5ad":
            read = read_h5ad(existing_file(path, "counts"), "the counts", COUNTS_REMEDY)
            source = AnnData(read.X, obs=pd.DataFrame(index=read.obs_names.astype(str)), var=read.var)
        elif path.is_dir() or path.suffix == ".h5":
            source = whole_counts(path, path)[0]
        else:
            source, notes = _of_table(_read_table(existing_file(path, "counts"), "the counts"))
    if source.X is None or not source.n_obs or not source.n_vars:
        raise ValueError(
            f'the counts "{path}" hold {source.n_obs} cells and {source.n_vars} features. Pass cells x features.'
        )
    source.X = csr_matrix(source.X)
    check_counts(source, path)
    refuse_repeated(source.obs_names, f'cells in the counts "{path}"', "Keep one row for each cell.")
    source.X = source.X.astype(np.float32)
    source.var_names_make_unique()
    return source, notes


def _of_table(table: pd.DataFrame) -> tuple[AnnData, dict[str, object]]:
    notes: dict[str, object] = {}
    if CELL_OF_FIELD in table:
        in_no_cell = pd.to_numeric(table[CELL_OF_FIELD], errors="coerce") == 0
        notes["n_fields_with_counts_in_no_cell"] = int(in_no_cell.sum())
        table = table[~in_no_cell]
    named = _named(table, "the counts")
    values = named.drop(columns=[name for name in (FIELD, CELL_OF_FIELD, *CELL_NAMES) if name in named])
    text = [str(name) for name, kind in values.dtypes.items() if getattr(kind, "kind", "O") not in "biuf"]
    if text:
        raise ValueError(f"columns {quoted(text)} of the counts hold no numbers. Keep the columns of features.")
    matrix = csr_matrix(values.to_numpy(dtype=np.float32))
    return AnnData(
        matrix, obs=pd.DataFrame(index=named.index), var=pd.DataFrame(index=values.columns.astype(str))
    ), notes


def _file_mpp(image: Path | None) -> float | None:
    from spahgc.image import open_image

    if image is None:
        return None
    try:
        with open_image(image) as opened:
            return opened.mpp
    except ValueError:
        return None  # what is wrong with it is said where it is opened to be read


def _areas(table: pd.DataFrame, area: str | None, scale: float, mpp: float | None) -> NDArray[np.float64] | None:
    """Areas in square microns, where they and the resolution are known."""
    if area is not None and area not in table:
        raise ValueError(f'area="{area}": the table has no such column; it has {quoted(table.columns, 10)}.')
    column = area if area is not None else next((name for name in AREA_COLUMNS if name in table), None)
    if column is None or mpp is None:
        return None
    return np.asarray(pd.to_numeric(table[column], errors="coerce"), dtype=np.float64) * (scale * mpp) ** 2


def _outlines(polygons: Any, names: pd.Index, centres: NDArray[np.float64]) -> Polygons:
    """Outlines of the cells in the unit of the table; refuses those of other cells, or in another unit."""
    if isinstance(polygons, str | os.PathLike):
        path = existing_file(polygons, "polygons")
        features = read_geojson(path)
        if any("Polygon" not in feature.kind for feature in features):
            raise unreadable(path, "the outlines", "there are points among them", "Export polygons alone.")
        rings = {str(one.properties.get("cell_id", one.name)): one.outline() for one in features}
    else:
        shapes = getattr(polygons, "geometry", None)
        if shapes is None:
            raise TypeError(f"polygons is a {type(polygons).__name__}; pass a GeoDataFrame, or the path of GeoJSON.")
        if bool(shapes.has_z.any()):
            raise ValueError(
                "polygons are in 3-D (x, y, z), and a slide has two axes: shapely.force_2d(polygons.geometry)."
            )
        largest = [max(getattr(shape, "geoms", [shape]), key=lambda part: part.area) for shape in shapes]
        rings = {
            str(name): np.asarray(shape.exterior.coords) for name, shape in zip(shapes.index, largest, strict=True)
        }
    known = [name for name in names if name in rings]
    if not known:
        raise ValueError(
            f"polygons= has the outline of none of the {len(names)} cells: it names {quoted(rings, 3)}, the counts {quoted(names, 3)}."
        )
    outlines = Polygons.of_rings([rings.get(name, np.empty((0, 2))) for name in names])
    check_fit(outlines, centres, "polygons=")
    return outlines


def check_fit(outlines: Polygons, centres: NDArray[np.float64], label: str) -> None:
    """Refuse outlines that lie elsewhere than the centres of their cells, as those in another unit do."""
    drawn = outlines.known
    apart = np.linalg.norm(outlines.centres[drawn] - centres[drawn], axis=1)
    widths = 2 * np.sqrt(outlines.areas[drawn] / np.pi)
    if len(apart) and np.median(apart) > MAX_APART * np.median(widths):
        raise ValueError(
            f"{label}: the outlines lie {np.median(apart):.4g} away from the centres of their cells and are {np.median(widths):.4g} wide "
            "(medians). Outlines and centres must be in one unit: are the outlines in microns and the centres in pixels, or the other "
            "way round?"
        )
