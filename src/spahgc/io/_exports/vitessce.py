"""Vitessce: a folder that any web server shows, with the prediction as zarr and a configuration of the views."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
from anndata import AnnData

from spahgc._files import folder_written_whole
from spahgc._installation import install_command
from spahgc._keys import SPATIAL
from spahgc.io._exports.content import Content, distinct, new_folder, predicted_spots, printable, read_content
from spahgc.io._exports.picture import small_picture

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from spahgc.image._source import Pixels

CONFIG, TABLE, PICTURE = "config.json", "slide.zarr", "tissue.ome.tif"
"""Files of the folder."""
SCHEMA = "1.0.16"
"""Version of Vitessce's configuration."""
ZARR_FORMAT = 2
"""Which every release of Vitessce reads."""
NO_LONGER_DEFAULT = "Writing zarr v2"
"""What anndata says of it, also where it is chosen."""
TILE_PX = 512
"""Side of a tile of the picture, and the most pixels of a side of its smallest level: a browser loads no larger one whole."""
DRAWN = "spatial_drawn"
"""Key of ``obsm``: spot centres where Vitessce draws them."""
GROUP = "group"
BASE_URL = "http://localhost:8000"
"""Where ``python -m http.server`` shows the folder in which it is started."""
EXTRA = "vitessce"


def write_vitessce(
    data: AnnData | SpatialData,
    path: str | os.PathLike[str],
    *,
    key: str = "spahgc",
    genes: str | Sequence[str] | None = None,
    groups: str | None = None,
    base_url: str = BASE_URL,
    table_key: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a prediction for Vitessce: tissue, spots by predicted gene and by group, in a browser.

    Serve the folder (with ``Access-Control-Allow-Origin``, as ``npx http-server --cors -p 8000`` does) and open
    ``https://vitessce.io/#?url=http://localhost:8000/config.json``. Vitessce asks its own server for a list of genes; without
    a network the gene list is grey for half a minute, and then works.

    Parameters
    ----------
    data
        A slide with a prediction, or a SpatialData with such a table.
    path
        The folder.
    key
        Key of the prediction.
    genes
        Genes of its panel to write; ``None`` takes all.
    groups
        Column of ``obs``; ``None`` takes ``obs[f"{key}_domain"]``, where it is there.
    base_url
        Address at which the folder will be served.
    table_key
        Key of the table of a SpatialData; ``None`` takes the only one.
    overwrite
        Replace a folder that is there.

    Returns
    -------
    The path of the configuration within the folder. Written are

    - ``config.json``: data and views, made by the package ``vitessce``;
    - ``slide.zarr``: an AnnData of the spots that were predicted, in zarr's format 2; `X`, predicted ``log1p`` counts per
      10,000; `obs["group"]`; `obsm["spatial"]`, pixels of the full-resolution image; `obsm["spatial_drawn"]`, where
      Vitessce draws them: microns, or pixels of the picture where the resolution of the slide is not known, and then its
      bar of scale has no meaning;
    - ``tissue.ome.tif``: the reduced picture as a pyramid, where there is one.

    Raises
    ------
    FileExistsError
        If the folder is there, and may not be replaced.
    ImportError
        If the package is missing: ``pip install "spahgc[vitessce]"``.
    KeyError
        If prediction, column or coordinates are not there, or a gene is outside the panel.
    ValueError
        If the panel is empty, no spot was predicted, or the object holds several slides.
    OSError
        If the folder cannot be written.

    Examples
    --------
    >>> import spahgc as sp
    >>> sp.io.write_vitessce(slide, "case_7_vitessce")  # doctest: +SKIP
    """
    vitessce = _package()
    folder = new_folder(path, overwrite=overwrite)
    content = predicted_spots(read_content(data, key=key, genes=genes, groups=groups, table_key=table_key))
    picture = small_picture(content, data, table_key)
    view = _view(content, None if picture is None else picture[1])
    with folder_written_whole(folder, overwrite=overwrite) as part:
        _write_table(table_for_browser(content, view), part / TABLE)
        if picture is not None:
            write_picture(part / PICTURE, picture[0], view.um_per_picture_px)
        config = _config(vitessce, content, view, base_url.rstrip("/"), has_picture=picture is not None)
        (part / CONFIG).write_text(json.dumps(config.to_dict(), indent=1), encoding="utf-8")
    return folder / CONFIG


def _package() -> Any:
    """The package, without its warnings of extras that serve notebooks and are not needed here."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            import vitessce
    except ImportError as error:
        raise ImportError(
            f"the configuration is made by the package vitessce, which is not installed. Run {install_command(EXTRA)}."
        ) from error
    return vitessce


@dataclass(frozen=True)
class View:
    """Where things lie in Vitessce, whose bar of scale reads in microns."""

    scale: float
    """Of its units one pixel of the full-resolution image is."""
    um_per_picture_px: float | None
    """``None`` where the resolution is not known, or there is no picture."""


def _view(content: Content, picture_scale: float | None) -> View:
    """Microns, or pixels of the picture where the resolution of the slide is not known."""
    if content.mpp is None:
        return View(picture_scale or 1.0, None)
    return View(content.mpp, None if picture_scale is None else content.mpp / picture_scale)


def table_for_browser(content: Content, view: View) -> AnnData:
    """What Vitessce reads: dense values, which it takes gene by gene, and centres on the image and where it draws them."""
    obs = pd.DataFrame(index=pd.Index(distinct(content.spots)))
    if content.groups is not None:
        obs[GROUP] = content.groups.categorical
    table = AnnData(content.values, obs=obs, var=pd.DataFrame(index=pd.Index(distinct(content.genes))))
    table.obsm[SPATIAL] = content.xy
    table.obsm[DRAWN] = content.xy * view.scale
    return table


def _write_table(table: AnnData, path: Path) -> None:
    with warnings.catch_warnings(), ad.settings.override(zarr_write_format=ZARR_FORMAT):
        warnings.filterwarnings("ignore", message=NO_LONGER_DEFAULT)
        table.write_zarr(path)


def write_picture(path: Path, pixels: Pixels, um_per_px: float | None) -> None:
    """Write a pyramid that a browser reads tile by tile, an OME-TIFF; each level has half the pixels of the one before."""
    import tifffile

    levels = [np.moveaxis(pixels, -1, 0)]
    while max(levels[-1].shape[1:]) > TILE_PX:
        levels.append(_halved(levels[-1]))
    size = {} if um_per_px is None else {f"PhysicalSize{axis}": um_per_px for axis in "XY"}
    units = {} if um_per_px is None else {f"PhysicalSize{axis}Unit": "\u00b5m" for axis in "XY"}
    options: dict[str, Any] = {"photometric": "minisblack", "tile": (TILE_PX, TILE_PX), "compression": "deflate"}
    with tifffile.TiffWriter(path, ome=True) as out:
        metadata = {"axes": "CYX", "Name": "tissue", "Channel": {"Name": ["Red", "Green", "Blue"]}, **size, **units}
        out.write(levels[0], subifds=len(levels) - 1, metadata=metadata, **options)
        for level in levels[1:]:
            out.write(level, subfiletype=1, **options)


def _halved(pixels: Pixels) -> Pixels:
    """Channels x height x width: means of two by two pixels; a last odd row or column is left out."""
    channels, height, width = pixels.shape
    even = pixels[:, : height // 2 * 2, : width // 2 * 2].reshape(channels, height // 2, 2, width // 2, 2)
    halved: Pixels = even.mean(axis=(2, 4), dtype=np.float32).round().astype(np.uint8)
    return halved


def _config(vitessce: Any, content: Content, view: View, base_url: str, *, has_picture: bool) -> Any:
    """Data and views. Files are named by their addresses: for paths the package sets up a server, and asks for more packages."""
    config = vitessce.VitessceConfig(schema_version=SCHEMA, name=printable(content.name))
    dataset = config.add_dataset(name=printable(content.name))
    kinds = {"obsType": "spot", "featureType": "gene", "featureValueType": content.units}
    grouped: dict[str, Any] = (
        {}
        if content.groups is None
        else {"obs_set_paths": [f"obs/{GROUP}"], "obs_set_names": [printable(content.groups.column)]}
    )
    dataset.add_object(
        vitessce.AnnDataWrapper(
            adata_url=f"{base_url}/{TABLE}",
            obs_feature_matrix_path="X",
            obs_spots_path=f"obsm/{DRAWN}",
            coordination_values=kinds,
            **grouped,
        )
    )
    if has_picture:
        dataset.add_object(vitessce.ImageOmeTiffWrapper(img_url=f"{base_url}/{PICTURE}"))
    names = ["spatialBeta", "layerControllerBeta", "featureList", *(["obsSets"] if grouped else [])]
    spatial, layers, *lists = (config.add_view(name, dataset=dataset) for name in names)
    config.layout(spatial | vitessce.vconcat(layers, *lists))
    first = {"obsColorEncoding": "geneSelection", "featureSelection": [distinct(content.genes)[0]]}
    config.link_views_by_dict([spatial, layers, *lists], {**kinds, **first}, meta=False)
    spots = vitessce.CoordinationLevel([{"obsType": "spot", "spatialSpotRadius": content.diameter / 2 * view.scale}])
    config.link_views_by_dict([spatial, layers], {"spotLayer": spots}, scope_prefix=_prefix(vitessce, "obsSpots"))
    if has_picture:
        colours = vitessce.CoordinationLevel([{"photometricInterpretation": "RGB"}])
        config.link_views_by_dict([spatial, layers], {"imageLayer": colours}, scope_prefix=_prefix(vitessce, "image"))
    return config


def _prefix(vitessce: Any, kind: str) -> str:
    """With it Vitessce takes a layer for that which it would make itself of the only data set, "A"."""
    prefix: str = vitessce.get_initial_coordination_scope_prefix("A", kind)
    return prefix
