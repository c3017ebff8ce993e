"""Tables in, tables out: several slides as one argument, their tables, spot positions, expression, library and resolution.

SpatialData is taken apart here: rooms above get AnnData or arrays, and ``encoders``, ``image`` and ``nn`` below know no
table. May import ``image`` and the files at the root.
"""
