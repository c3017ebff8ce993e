"""Vitessce: a folder that any web server shows, with the prediction as zarr and a configuration of the views."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from spahgc._files import folder_written_whole
from spahgc._installation import install_command
from spahgc._keys import SPATIAL
from spahgc.io._exports.content import Content, new_folder, read_content
from spahgc.io._exports.picture import small_picture

if TYPE_CHECKING:
    from spatialdata import SpatialData

CONFIG, TABLE, PICTURE = "config.json", "slide.zarr", "tissue.ome.tif"
"""Files of the folder."""
SCHEMA = "1.0.16"
"""Version of Vitessce's configuration."""
ON_PICTURE = "spatial_picture"
"""Key of ``obsm``: spot centres in pixels of the picture that Vitessce shows."""
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

    Serve the folder (with ``Access-Control-Allow-Origin``, as ``npx http-server --cors`` does) and open
    ``https://vitessce.io/?url=http://localhost:8000/config.json``.

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
    - ``slide.zarr``: an AnnData; `X`, predicted ``log1p`` counts per 10,000, NaN where a spot was not predicted;
      `obs["group"]`; `obsm["spatial"]`, pixels of the full-resolution image; `obsm["spatial_picture"]`, of the picture;
    - ``tissue.ome.tif``: the reduced picture, where there is one.

    Raises
    ------
    FileExistsError
        If the folder is there, and may not be replaced.
    ImportError
        If the package is missing: ``pip install "spahgc[vitessce]"``.
    KeyError
        If prediction, column or coordinates are not there, or a gene is outside the panel.
    ValueError
        If the panel is empty, or the object holds several slides.
    OSError
        If the folder cannot be written.

    Examples
    --------
    >>> import spahgc as sp
    >>> sp.io.write_vitessce(slide, "case_7_vitessce")  # doctest: +SKIP
    """
    try:
        import vitessce
    except ImportError as error:
        raise ImportError(
            f"the configuration is made by the package vitessce, which is not installed. Run {install_command(EXTRA)}."
        ) from error
    folder = new_folder(path, overwrite=overwrite)
    content = read_content(data, key=key, genes=genes, groups=groups, table_key=table_key)
    picture = small_picture(content, data, table_key)
    with folder_written_whole(folder, overwrite=overwrite) as part:
        table_for_browser(content, 1.0 if picture is None else picture[1]).write_zarr(part / TABLE)
        if picture is not None:
            import tifffile

            tifffile.imwrite(
                part / PICTURE, np.moveaxis(picture[0], -1, 0), photometric="minisblack", metadata={"axes": "CYX"}
            )
        views = _config(vitessce, content, part, None if picture is None else picture[1])
        (part / CONFIG).write_text(json.dumps(views.to_dict(base_url=base_url), indent=1), encoding="utf-8")
    return folder / CONFIG


def table_for_browser(content: Content, scale: float) -> AnnData:
    """What Vitessce reads: dense values, which it takes gene by gene, and centres on both images."""
    obs = pd.DataFrame(index=pd.Index(content.spots))
    if content.groups is not None:
        obs[GROUP] = content.groups.categorical
    table = AnnData(content.values, obs=obs, var=pd.DataFrame(index=pd.Index(content.genes)))
    table.obsm[SPATIAL] = content.xy
    table.obsm[ON_PICTURE] = content.xy * scale
    return table


def _config(vitessce: Any, content: Content, folder: Path, scale: float | None) -> Any:
    """The views; `scale` is that of the picture, ``None`` without one."""
    config = vitessce.VitessceConfig(schema_version=SCHEMA, name=content.name, base_dir=str(folder))
    dataset = config.add_dataset(name=content.name)
    grouped: dict[str, Any] = (
        {} if content.groups is None else {"obs_set_paths": [f"obs/{GROUP}"], "obs_set_names": [content.groups.column]}
    )
    dataset.add_object(
        vitessce.AnnDataWrapper(
            adata_path=TABLE,
            obs_feature_matrix_path="X",
            obs_spots_path=f"obsm/{ON_PICTURE}",
            coordination_values={"obsType": "spot", "featureType": "gene", "featureValueType": content.units},
            **grouped,
        )
    )
    if scale is not None:
        dataset.add_object(vitessce.ImageOmeTiffWrapper(img_path=PICTURE))
    spatial, layers, genes = (
        config.add_view(view, dataset=dataset) for view in ("spatialBeta", "layerControllerBeta", "featureList")
    )
    right = layers / genes
    if content.groups is not None:
        right = layers / (genes / config.add_view("obsSets", dataset=dataset))
    config.layout(spatial | right)
    radius = content.diameter / 2 * (1.0 if scale is None else scale)
    config.link_views_by_dict(
        [spatial, layers],
        {"spotLayer": vitessce.CoordinationLevel([{"obsType": "spot", "spatialSpotRadius": radius}])},
        meta=True,
    )
    return config
