"""Files become AnnData, and predictions files of other programs: a file each, with what several share beside them.

Readers give counts in ``X``, spot centres in pixels in ``obsm["spatial"]``, reduced images and scale factors in
``uns["spatial"]``; the full image stays where it lies. What writes for other programs lives in ``_exports``. May import
``image`` and the files at the root.
"""

from spahgc.io._cells import cells
from spahgc.io._exports.cellxgene import write_cellxgene
from spahgc.io._exports.geojson import write_geojson
from spahgc.io._exports.tables import write_loupe, write_xenium_explorer
from spahgc.io._exports.tissuumaps import write_tissuumaps
from spahgc.io._exports.vitessce import write_vitessce
from spahgc.io._features import features
from spahgc.io._hest import hest
from spahgc.io._shapes import shapes
from spahgc.io._slide import slide
from spahgc.io._st import st
from spahgc.io._visium import visium
from spahgc.io._visium_hd import visium_hd
from spahgc.io._xenium import xenium

__all__ = [
    "cells",
    "features",
    "hest",
    "shapes",
    "slide",
    "st",
    "visium",
    "visium_hd",
    "write_cellxgene",
    "write_geojson",
    "write_loupe",
    "write_tissuumaps",
    "write_vitessce",
    "write_xenium_explorer",
    "xenium",
]
