"""Where pixels come from: arrays, pictures, whole-slide files and SpatialData behind one protocol; patches of them."""

from spahgc.image._centers import describe_outside
from spahgc.image._open import open_image
from spahgc.image._patch import cut_patch
from spahgc.image._source import ImageSource, Level, PyramidSource
from spahgc.image._thumbnail import thumbnail

__all__ = ["ImageSource", "Level", "PyramidSource", "cut_patch", "describe_outside", "open_image", "thumbnail"]
