"""Jobs over many slides on disk, one after another or on a cluster, and the stores that they write.

Knows nothing of what is done with a slide. May import the files at the root.
"""
