"""Tables in, tables out: several slides as one argument, their tables, places and expression.

AnnData and SpatialData are met here and nowhere below; what leaves this room for a method of prediction are arrays. May
import ``image`` and the files at the root.
"""
