"""Slides with a prediction become files of other programs: QuPath, TissUUmaps, Vitessce, Loupe, Xenium Explorer, cellxgene.

``content`` says once what is written of a slide; each of the other files knows one format and the names that would break it.
"""
