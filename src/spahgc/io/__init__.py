"""Files become AnnData."""

from spahgc.io._hest import hest
from spahgc.io._slide import slide
from spahgc.io._st import st
from spahgc.io._visium import visium
from spahgc.io._visium_hd import visium_hd

__all__ = ["hest", "slide", "st", "visium", "visium_hd"]
