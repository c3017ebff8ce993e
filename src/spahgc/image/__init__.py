"""Where pixels come from: arrays, pictures, whole-slide files and SpatialData behind one protocol; patches of them.

:class:`ImageSource` reads a region at a level; a file for each kind of source implements it, and ``_open.py`` chooses among
them. May import the files at the root.
"""

from spahgc.image._open import open_image
from spahgc.image._patch import cut_patch, describe_outside
from spahgc.image._resample import thumbnail
from spahgc.image._source import ImageSource, Level, PyramidSource

__all__ = ["ImageSource", "Level", "PyramidSource", "cut_patch", "describe_outside", "open_image", "thumbnail"]
