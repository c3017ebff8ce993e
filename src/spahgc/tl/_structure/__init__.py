"""Structure beside correlation: what a Pearson correlation does not see of a predicted map.

Each file holds one score, on arrays of spots x genes in double precision; ``scores.py`` puts them into tables. May import
what ``tl`` may.
"""
