"""Where pixels come from: arrays, JPEG, PNG and TIFF files behind one protocol, and patches cut from them."""

from spahgc.image._centers import describe_outside
from spahgc.image._open import open_image
from spahgc.image._patch import cut_patch
from spahgc.image._source import ImageSource
from spahgc.image._thumbnail import thumbnail

__all__ = ["ImageSource", "cut_patch", "describe_outside", "open_image", "thumbnail"]
