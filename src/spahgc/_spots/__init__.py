"""Arrays of spots, without AnnData: rows that are read when they are asked for, standardised, averaged, cut in blocks.

May import the files at the root.
"""
