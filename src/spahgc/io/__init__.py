"""Files become AnnData: a reader a file, with the tables and checks that several share beside them.

Counts in ``X``, spot centres in pixels in ``obsm["spatial"]``, reduced images and scale factors in ``uns["spatial"]``; the
full image stays where it lies. May import ``image`` and the files at the root.
"""

from spahgc.io._cells import cells
from spahgc.io._hest import hest
from spahgc.io._shapes import shapes
from spahgc.io._slide import slide
from spahgc.io._st import st
from spahgc.io._visium import visium
from spahgc.io._visium_hd import visium_hd
from spahgc.io._xenium import xenium

__all__ = ["cells", "hest", "shapes", "slide", "st", "visium", "visium_hd", "xenium"]
