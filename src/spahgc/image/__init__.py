"""Where pixels come from: arrays, pictures, whole-slide files and SpatialData behind one protocol; patches of them."""

from spahgc.image._open import open_image
from spahgc.image._patch import cut_patch, describe_outside
from spahgc.image._resample import thumbnail
from spahgc.image._source import ImageSource, Level, PyramidSource

__all__ = ["ImageSource", "Level", "PyramidSource", "cut_patch", "describe_outside", "open_image", "thumbnail"]
