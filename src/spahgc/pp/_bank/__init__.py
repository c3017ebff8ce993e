"""All reference spots as one object: building a bank in memory, keeping it on disk, and what a fit asks of it.

May import ``pp/_genes.py``, ``pp/_search``, ``encoders``, ``_slides``, ``_spots`` and the files at the root.
"""
