"""Files become AnnData."""

from spahgc.io._st import st

__all__ = ["st"]
