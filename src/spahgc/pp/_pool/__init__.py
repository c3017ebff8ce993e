"""Cells, bins or spots added up: ``membership.py`` says which belong together, ``pool.py`` adds their counts.

``regions.py`` reads regions that were drawn. May import ``io``, ``image``, ``_slides`` and the files at the root.
"""
