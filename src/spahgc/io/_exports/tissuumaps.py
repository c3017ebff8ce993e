"""TissUUmaps: a project with the tissue, the spots by group, and a map a gene."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spahgc._files import folder_written_whole
from spahgc._validate import user_path
from spahgc.io._exports.content import Content, disarmed, distinct, new_folder, read_content
from spahgc.io._exports.picture import small_picture
from spahgc.io._files import existing_file

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from spahgc.image._source import Pixels

PROJECT, SPOTS, PICTURE = "project.tmap", "spots.csv", "tissue.png"
"""Files of a project."""
TILES = ".dzi"
"""With this after its name TissUUmaps serves a picture in tiles."""
SPOT, X, Y, GROUP = "spot", "x", "y", "group"
"""Columns of the table before those of the genes."""
COLOUR_SCALE = "interpolateViridis"
NO_MARKUP: Mapping[str, str] = {"<": "\u2039", ">": "\u203a"}
"""TissUUmaps puts names into its page, which takes pointed brackets for tags."""
DECIMALS, DIGITS = 2, 5
"""Decimals of a coordinate, pixels, and significant digits of a value."""


def write_tissuumaps(
    data: AnnData | SpatialData,
    path: str | os.PathLike[str],
    *,
    key: str = "spahgc",
    genes: str | Sequence[str] | None = None,
    groups: str | None = None,
    image: str | os.PathLike[str] | None = None,
    table_key: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a prediction as a project of TissUUmaps: the tissue, spots coloured by group, and a map for each gene.

    Parameters
    ----------
    data
        A slide with a prediction, or a SpatialData with such a table.
    path
        The folder of the project.
    key
        Key of the prediction.
    genes
        Genes of its panel to write; ``None`` takes all.
    groups
        Column of ``obs``; ``None`` takes ``obs[f"{key}_domain"]``, where it is there.
    image
        The full-resolution image, which the project then names by its path relative to the folder; TissUUmaps serves it
        where it lies in or below the folder that it was started for. ``None`` writes the reduced picture of the slide
        into the folder, which can then be moved and shared.
    table_key
        Key of the table of a SpatialData; ``None`` takes the only one.
    overwrite
        Replace a folder that is there.

    Returns
    -------
    The path of the project within the folder. Written are

    - ``project.tmap``: layers, and markers that are called as groups and genes;
    - ``spots.csv``: `spot`, `x`, `y` (pixels of the full-resolution image, to 0.01), `group`, and a column a gene, ``log1p``
      counts per 10,000, empty where a spot was not predicted;
    - ``tissue.png``: the reduced picture, unless `image` is named.

    A text that a spreadsheet would take for a formula has an apostrophe before it.

    Raises
    ------
    FileExistsError
        If the folder is there, and may not be replaced.
    FileNotFoundError
        If there is no such image.
    KeyError
        If prediction, column or coordinates are not there, or a gene is outside the panel.
    ValueError
        If the panel is empty, or the object holds several slides.
    OSError
        If the folder cannot be written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import spahgc as sp
    >>> (slide,) = sp.datasets.simulated(1, n_patients=1, n_spots=40, n_genes=20)
    >>> slide.layers["spahgc"] = slide.layers["truth"]
    >>> project = sp.io.write_tissuumaps(slide, pathlib.Path(tempfile.mkdtemp()) / "maps")
    >>> sorted(file.name for file in project.parent.iterdir())
    ['project.tmap', 'spots.csv', 'tissue.png']
    """
    folder = new_folder(path, overwrite=overwrite)
    linked = None if image is None else existing_file(user_path(image, "image"), "image")
    content = read_content(data, key=key, genes=genes, groups=groups, table_key=table_key)
    picture = small_picture(content, data, table_key) if linked is None else None
    columns = distinct(content.genes, forbidden=NO_MARKUP, reserved=(SPOT, X, Y, GROUP), spreadsheet=True)
    with folder_written_whole(folder, overwrite=overwrite) as part:
        layer, factor = _layer(content, picture, linked, folder, part)
        names = [] if content.groups is None else distinct(content.groups.names, forbidden=NO_MARKUP, spreadsheet=True)
        _write_table(content, columns, names, part / SPOTS)
        project = _project(content, columns, names, layer, factor)
        (part / PROJECT).write_text(json.dumps(project, indent=1, ensure_ascii=False), encoding="utf-8")
    return folder / PROJECT


def _layer(
    content: Content, picture: tuple[Pixels, float] | None, linked: Path | None, folder: Path, part: Path
) -> tuple[dict[str, str] | None, float]:
    """What the project shows below the spots, and its pixels per pixel of full resolution."""
    if linked is not None:
        relative = Path(os.path.relpath(linked.resolve(), folder.resolve())).as_posix()
        return {"name": _shown(linked.name), "tileSource": f"{relative}{TILES}"}, 1.0
    if picture is None:
        return None, 1.0
    from PIL import Image

    pixels, scale = picture
    Image.fromarray(np.ascontiguousarray(pixels)).save(part / PICTURE)
    return {"name": _shown(content.name), "tileSource": f"{PICTURE}{TILES}"}, scale


def _shown(name: str) -> str:
    """A name as a page may show it."""
    return distinct([name], forbidden=NO_MARKUP)[0]


def _write_table(content: Content, columns: list[str], names: list[str], path: Path) -> None:
    codes = [-1] * len(content.spots) if content.groups is None else content.groups.codes
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([SPOT, X, Y, GROUP, *columns])
        for spot, (x, y), code, values in zip(content.spots, content.xy, codes, content.values, strict=True):
            numbers = [f"{value:.{DIGITS}g}" if np.isfinite(value) else "" for value in values]
            place = [f"{x:.{DECIMALS}f}", f"{y:.{DECIMALS}f}"]
            writer.writerow([disarmed(_shown(spot)), *place, names[code] if code >= 0 else "", *numbers])


def _project(
    content: Content, columns: list[str], names: list[str], layer: dict[str, str] | None, factor: float
) -> dict[str, Any]:
    markers = []
    if content.groups is not None:
        colours = json.dumps(dict(zip(names, content.groups.colours, strict=True)), ensure_ascii=False)
        header = {"gb_col": GROUP, "cb_gr_dict": colours}
        radios = {"cb_gr": True, "cb_gr_dict": True}
        markers.append(_markers("groups", _shown(content.groups.column), factor, header, radios))
    genes = _markers("genes", f"predicted genes, {content.units}", factor, {"cb_col": columns[0]}, {"cb_col": True})
    genes["dropdownOptions"] = [
        {"optionName": gene, "name": gene, "expectedHeader.cb_col": column}
        for gene, column in zip(distinct(content.genes, forbidden=NO_MARKUP), columns, strict=True)
    ]
    markers.append(genes)
    return {
        "filename": _shown(content.name),
        "layers": [] if layer is None else [layer],
        "layerOpacities": {} if layer is None else {"0": 1},
        "layerVisibilities": {} if layer is None else {"0": True},
        "layerFilters": {},
        "filters": [],
        "compositeMode": "source-over",
        "markerFiles": markers,
        "regions": {},
        "plugins": [],
        "hideTabs": False,
        "settings": [],
    }


def _markers(uid: str, title: str, factor: float, header: dict[str, str], radios: dict[str, bool]) -> dict[str, Any]:
    """A set of markers: of what is not named here TissUUmaps takes its own choice."""
    return {
        "autoLoad": uid == "groups",
        "comment": "",
        "title": title,
        "name": title,
        "uid": uid,
        "path": SPOTS,
        "expectedHeader": {
            "X": X,
            "Y": Y,
            "gb_col": "null",
            "gb_name": "null",
            "cb_cmap": COLOUR_SCALE,
            "cb_col": "null",
            "cb_gr_dict": "",
            "coord_factor": f"{factor!r}",
            "scale_factor": "1",
            "shape_fixed": "disc",
            "opacity": "1",
            **header,
        },
        "expectedRadios": {
            "cb_col": False,
            "cb_gr": False,
            "cb_gr_dict": False,
            "cb_gr_key": False,
            "cb_gr_rand": False,
            "shape_fixed": True,
            **radios,
        },
        "settings": [],
    }
