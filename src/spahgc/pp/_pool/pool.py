"""Counts of cells, bins or spots added up to spots, tiles or regions."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, issparse

from spahgc._keys import SPATIAL, UNS, Obs, Obsm, Uns, Var
from spahgc._logging import warn
from spahgc._slides.library import check_one_slide, find_library
from spahgc._slides.matrix import in_memory, is_whole, raw_matrix, row_sums
from spahgc._slides.polygons import Polygons
from spahgc._slides.resolution import slide_mpp
from spahgc._slides.split import placed_table
from spahgc._slides.tissue import only_on_tissue
from spahgc._slides.totals import remember_library_sizes
from spahgc._validate import check_anndata, check_coordinates
from spahgc.image._grid import LAYOUTS
from spahgc.image._mpp import check_mpp
from spahgc.io._tiles import check_microns
from spahgc.io._write_library import MPP, SPOT_DIAMETER
from spahgc.pp._pool.membership import Places, grid_places, region_places, spot_places
from spahgc.pp._pool.regions import read_regions

if TYPE_CHECKING:
    from spatialdata import SpatialData

EXACT_IN_FLOAT32 = 2.0**24
"""Largest whole number up to which all are numbers of single precision; larger sums are kept in double precision."""
MAX_CATEGORIES = 200
"""Categories of a column of ``obs`` up to which the share of each is kept: more are names, not kinds."""
SUM_OF_SHARES = 1e-3
"""How far rows of an array in ``obsm`` may sum to something else than 1 and still be shares."""
COUNTS = "counts"
KEPT_UNS = (Uns.slide_mpp, Uns.cohort, Uns.slide_image)
"""Entries of ``uns["spahgc"]`` that are true of the pooled slide as well."""


def pool(
    cells: AnnData | SpatialData,
    *,
    spacing_um: float = 100.0,
    diameter_um: float | None = 55.0,
    layout: str = "hexagonal",
    spots: AnnData | None = None,
    regions: Any = None,
    layer: str | None = None,
    units: str | None = None,
    mpp: float | None = None,
    table_key: str | None = None,
) -> AnnData:
    """Add up the counts of cells, bins or spots to spots, tiles or regions.

    A cell belongs where its centre lies, with all of its counts, and to one spot at most: sums are exact.

    Parameters
    ----------
    cells
        A slide of cells, bins of Visium HD or spots, its centres in ``obsm["spatial"]``.
    spacing_um
        Distance of neighbouring spots of the grid, microns.
    diameter_um
        Diameter of the spots, microns, at most `spacing_um`; ``None`` makes tiles that cover everything (squares, or
        hexagons), so that no cell is left out.
    layout
        ``"hexagonal"`` (as Visium) or ``"square"``. The grid is the one that :func:`spahgc.pp.tile` lays over the image.
    spots
        Take the places of the spots of this slide, which is on the same image, instead of a grid. All of them are kept,
        in their order.
    regions
        Take regions instead: a GeoDataFrame, polygons of shapely by name or in a list, or the path of GeoJSON, in pixels
        of the full-resolution image. All are kept; a cell in several counts in each.
    layer
        Layer that holds the counts; ``None`` takes ``X``.
    units
        ``"counts"`` adds up corrected counts as well, which are no whole numbers.
    mpp
        Microns per pixel of the image; ``None`` takes what the slide says.
    table_key
        Key of the table of a SpatialData; ``None`` takes the only one.

    Returns
    -------
    Spots x genes:

    - `X`: sums of counts, CSR, float32 (float64 where a sum is above 16.7 million);
    - `obs`: `n_pooled` (cells in the spot), `array_row` and `array_col` of a grid, what is the same for all cells (`slide`,
      `patient`, ...), the most frequent category of each categorical column, `area_um2` (of regions their own, else the sum
      of the cells'), and `spahgc_total_counts`;
    - `obsm["spatial"]`: centres of spots, centroids of regions;
    - `obsm["<column>_share"]`: share of the cells in each category of a categorical column, in the order of
      ``obs[column].cat.categories``, NaN without a cell; shares in `obsm` (rows that sum to 1) are averaged, `obsm["controls"]` is added up;
    - `obsm["polygons"]`: the regions' outlines;
    - `uns["spatial"]`: that of the cells with the diameter of the spots;
    - `uns["spahgc"]["pooled"]`: the arguments, `n_from`, `n_left_out` and `counts_left_out` (cells in no spot, and their
      counts), `n_in_several`.

    Raises
    ------
    KeyError
        If centres or the layer are not there.
    ValueError
        If the values are no counts, the resolution is needed and not known, no cell lies in any place, spots overlap, or an
        argument is no size.

    Warns
    -----
    UserWarning
        If regions share cells, which are counted in each, or spots lie off the tissue and are left out.

    See Also
    --------
    spahgc.io.xenium, spahgc.io.visium_hd, spahgc.io.cells : read cells.

    Examples
    --------
    >>> import spahgc as sp
    >>> (cells,) = sp.datasets.simulated(1, n_patients=1, n_spots=40, n_genes=20, cells=True)
    >>> spots = sp.pp.pool(cells, spacing_um=100, diameter_um=55)
    >>> tiles = sp.pp.pool(cells, spacing_um=50, diameter_um=None, layout="square")
    >>> bool(tiles.X.sum() == cells.X.sum())
    True
    """
    _check_arguments(spacing_um, diameter_um, layout, spots, regions, units)
    check_mpp("mpp", mpp)
    table = placed_table(cells, table_key, "the slide")
    check_anndata(table, "the slide")
    check_one_slide(table)
    table = only_on_tissue(table, "the slide", "the sums")
    xy = check_coordinates(table, "the slide")
    resolution = slide_mpp(table, mpp=mpp)
    counts = _counts(table, layer, units)
    drawn: list[Any] = []
    if regions is not None:
        drawn, names = read_regions(regions)
        places = region_places(xy, drawn, names)
    else:
        places = _circles(xy, spacing_um, diameter_um, layout, spots, resolution)
    membership = places.membership
    if not membership.nnz:
        raise ValueError(_no_cell(xy, places, resolution, regions is not None))
    pooled = AnnData(_stored(csr_matrix(membership @ counts)), obs=_columns(table, places), var=_var(table))
    pooled.obsm[SPATIAL] = places.xy
    _add_tables(pooled, table, membership)
    times = np.asarray(membership.sum(axis=0)).ravel()
    record: dict[str, Any] = {
        "n_from": int(table.n_obs),
        "layout": "regions" if drawn else "spots" if spots is not None else layout,
        "n_left_out": int((times == 0).sum()),
        "counts_left_out": float(row_sums(counts)[times == 0].sum()),
        "n_in_several": int((times > 1).sum()),
    }
    if not drawn:
        record |= {} if spots is not None else {"spacing_um": float(spacing_um)}
        record |= {} if diameter_um is None else {"diameter_um": float(diameter_um)}
    if record["n_in_several"]:
        _warn_of_several(record["n_in_several"])
    _write_uns(pooled, table, record, _diameter_px(places, drawn, spacing_um, diameter_um, resolution), resolution)
    _add_areas(pooled, table, membership, drawn, resolution)
    _add_totals(pooled, table, membership)
    return pooled


def _check_arguments(
    spacing_um: float, diameter_um: float | None, layout: str, spots: AnnData | None, regions: Any, units: str | None
) -> None:
    check_microns("spacing_um", spacing_um)
    check_microns("diameter_um", diameter_um)
    if layout not in LAYOUTS:
        raise ValueError(f'layout="{layout}" is not known; pass one of {", ".join(LAYOUTS)}')
    if spots is not None and regions is not None:
        raise ValueError("spots= and regions= both say where to pool; pass one of them.")
    if spots is not None and diameter_um is None:
        raise ValueError("spots= needs their diameter: pass diameter_um= in microns.")
    if spots is None and regions is None and diameter_um is not None and diameter_um > spacing_um:
        raise ValueError(
            f"diameter_um={diameter_um:g} is more than spacing_um={spacing_um:g}: spots would overlap, and cells be counted twice. "
            "Pass a smaller diameter_um, or None for tiles that touch."
        )
    if units not in (None, COUNTS):
        raise ValueError(
            f'units="{units}" cannot be added up: pass layer= with counts, and units="{COUNTS}" if they are corrected ones.'
        )


def _counts(table: AnnData, layer: str | None, units: str | None) -> csr_matrix:
    counts = raw_matrix(table, layer, "the slide")
    where = "X" if layer is None else f'layer "{layer}"'
    if counts.nnz and counts.data.min() < 0:
        raise ValueError(f"{where} has negative values, which are no counts. Pass layer= with the counts.")
    if units is None and not is_whole(counts):
        raise ValueError(
            f"{where} holds fractions, and only counts can be added up: the sum of logarithms or of scaled counts says nothing. Pass "
            f'layer= with the counts, or units="{COUNTS}" if these are corrected counts.'
        )
    return counts


def _circles(
    xy: NDArray[np.float64],
    spacing_um: float,
    diameter_um: float | None,
    layout: str,
    spots: AnnData | None,
    mpp: float | None,
) -> Places:
    if mpp is None:
        raise ValueError(
            "microns cannot be turned into pixels: the resolution of the slide is not known. Pass mpp= with its microns per pixel."
        )
    diameter_px = None if diameter_um is None else diameter_um / mpp
    if spots is None:
        return grid_places(xy, spacing_um / mpp, diameter_px, layout)
    check_anndata(spots, "spots")
    centres = check_coordinates(spots, "spots")
    return spot_places(xy, centres, [str(name) for name in spots.obs_names], diameter_px or 0.0)


def _no_cell(xy: NDArray[np.float64], places: Places, mpp: float | None, regions: bool) -> str:
    (left, top), (right, bottom) = xy.min(axis=0), xy.max(axis=0)
    where = f"the centres go from x={left:.4g} to {right:.4g} and y={top:.4g} to {bottom:.4g}"
    if not len(places.xy):
        return (
            f"no cell lies in any spot of the grid: {where}. Pass a larger diameter_um, or None for tiles that touch."
        )
    (x0, y0), (x1, y1) = places.xy.min(axis=0), places.xy.max(axis=0)
    what = "regions" if regions else "spots"
    hint = ""
    if regions and mpp is not None and (x1 <= right * mpp * 1.01 and y1 <= bottom * mpp * 1.01):
        hint = f" Are the regions in microns? Divide them by {mpp:.4g}."
    return (
        f"no cell lies in any of the {len(places.xy)} {what}: {where}, those of the {what} from x={x0:.4g} to {x1:.4g} and y={y0:.4g} to "
        f"{y1:.4g}. Both must be pixels of the same full-resolution image.{hint}"
    )


def _stored(sums: csr_matrix) -> csr_matrix:
    """Sums in the precision that keeps them exact."""
    large = sums.nnz and sums.data.max() > EXACT_IN_FLOAT32
    return sums if large else sums.astype(np.float32)


def _var(table: AnnData) -> pd.DataFrame:
    return table.var.drop(columns=[name for name in (Var.total,) if name in table.var])


def _columns(table: AnnData, places: Places) -> pd.DataFrame:
    obs = pd.DataFrame(index=pd.Index(places.names, dtype=object))
    if places.row is not None:
        obs[Obs.array_row], obs[Obs.array_col] = places.row, places.col
    obs[Obs.n_pooled] = places.membership.getnnz(axis=1).astype(np.int64)
    for name in table.obs:
        column = table.obs[name]
        if (
            name not in obs
            and len(column)
            and column.notna().all()
            and column.nunique() == 1
            and not _is_number(column)
        ):
            obs[name] = pd.Categorical([column.iloc[0]] * len(obs))
    return obs


def _is_number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column)


def _add_tables(pooled: AnnData, table: AnnData, membership: csr_matrix) -> None:
    """Shares of categories and of what lies in ``obsm``; sums of controls."""
    n = membership.getnnz(axis=1)
    for name in table.obs:
        column = table.obs[name]
        kinds = _categories(column)
        if kinds is None or name in pooled.obs:
            continue
        codes = pd.Categorical(column, categories=kinds).codes
        known = np.flatnonzero(codes >= 0)
        one_hot = csr_matrix((np.ones(len(known)), (known, codes[known])), shape=(table.n_obs, len(kinds)))
        sums = np.asarray((membership @ one_hot).todense())
        whole = sums.sum(axis=1)
        pooled.obsm[Obsm.shares(str(name))] = _divided(sums, whole)
        most = [kinds[place] if some else None for place, some in zip(sums.argmax(axis=1), whole > 0, strict=True)]
        pooled.obs[name] = pd.Categorical(most, categories=kinds)
    for key, values in table.obsm.items():
        if key == Obsm.controls and isinstance(values, pd.DataFrame):
            sums = membership @ values.to_numpy(np.float64)
            pooled.obsm[key] = pd.DataFrame(sums, index=pooled.obs_names, columns=values.columns)
        elif key != SPATIAL and _are_shares(values):
            array = values.to_numpy(np.float64) if isinstance(values, pd.DataFrame) else np.asarray(values, np.float64)
            means = _divided(membership @ array, n)
            pooled.obsm[key] = (
                pd.DataFrame(means, index=pooled.obs_names, columns=values.columns)
                if isinstance(values, pd.DataFrame)
                else means
            )


def _categories(column: pd.Series) -> list[Any] | None:
    """Categories of a column that says what kind a cell is; ``None`` for other columns."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        kinds = list(column.cat.categories)
    elif column.dtype == object or pd.api.types.is_string_dtype(column):
        kinds = sorted({str(value) for value in column.dropna()})
        if not all(isinstance(value, str) for value in column.dropna()):
            return None
    else:
        return None
    return kinds if 0 < len(kinds) <= MAX_CATEGORIES else None


def _are_shares(values: Any) -> bool:
    """Whether rows hold numbers of at least 0 whose sum is 1."""
    if isinstance(values, pd.DataFrame):
        if not all(_is_number(values[name]) for name in values):
            return False
        values = values.to_numpy(np.float64)
    values = None if issparse(values) else np.asarray(in_memory(values))
    if values is None or values.ndim != 2 or values.shape[1] < 2 or values.dtype.kind not in "fiu":
        return False
    return bool(
        np.isfinite(values).all()
        and values.min(initial=0) >= 0
        and np.abs(values.sum(axis=1) - 1).max() <= SUM_OF_SHARES
    )


def _divided(sums: NDArray[np.float64], by: NDArray[np.floating] | NDArray[np.integer]) -> NDArray[np.float64]:
    """Rows divided by numbers; NaN where these are 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.asarray(sums) / np.asarray(by, dtype=np.float64)[:, None])


def _diameter_px(
    places: Places, drawn: list[Any], spacing_um: float, diameter_um: float | None, mpp: float | None
) -> float:
    if drawn:
        return float(2 * np.sqrt(np.median([shape.area for shape in drawn]) / np.pi))
    return (spacing_um if diameter_um is None else diameter_um) / (mpp or 1.0)


def _write_uns(pooled: AnnData, table: AnnData, record: dict[str, Any], diameter_px: float, mpp: float | None) -> None:
    """Library and record of the pooled slide; images are shared with the cells."""
    library = find_library(table)
    if library is not None:
        entry = {key: value for key, value in library.record.items() if key != "scalefactors"}
        factors = dict(library.scale_factors) | {SPOT_DIAMETER: diameter_px} | ({} if mpp is None else {MPP: mpp})
        pooled.uns[SPATIAL] = {library.name: {**entry, "scalefactors": factors}}
    own = table.uns.get(UNS, {})
    entries = {key: copy.deepcopy(own[key]) for key in KEPT_UNS if key in own}
    if mpp is not None:
        entries[Uns.slide_mpp] = float(mpp)
    pooled.uns[UNS] = {**entries, Uns.pooled: record}


def _add_areas(pooled: AnnData, table: AnnData, membership: csr_matrix, drawn: list[Any], mpp: float | None) -> None:
    if drawn:
        parts = [max(getattr(shape, "geoms", [shape]), key=lambda part: part.area) for shape in drawn]
        pooled.obsm[Obsm.polygons] = Polygons.of_rings([np.asarray(part.exterior.coords) for part in parts]).as_matrix()
        if mpp is not None:
            pooled.obs[Obs.area] = [shape.area * mpp**2 for shape in drawn]
    elif Obs.area in table.obs:
        pooled.obs[Obs.area] = membership @ np.nan_to_num(table.obs[Obs.area].to_numpy(np.float64))


def _add_totals(pooled: AnnData, table: AnnData, membership: csr_matrix) -> None:
    """Library sizes: sums of those of the cells, where these are more than the counts of the genes that are left."""
    if Obs.total not in table.obs:
        remember_library_sizes(pooled)
        return
    totals = membership @ table.obs[Obs.total].to_numpy(np.float64)
    if np.array_equal(totals, row_sums(pooled.X)):
        remember_library_sizes(pooled)
        return
    pooled.obs[Obs.total] = totals
    n_genes = table.uns.get(UNS, {}).get(Uns.library_size, {}).get("n_genes", table.n_vars)
    pooled.uns[UNS][Uns.library_size] = {"n_genes": int(n_genes)}


def _warn_of_several(n: int) -> None:
    warn(
        f"{n} cells lie in several regions and count in each. Where sums must add up, draw regions that do not overlap.",
        stacklevel=3,
    )
