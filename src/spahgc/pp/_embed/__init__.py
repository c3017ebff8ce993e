"""H&E patches around every spot, cut in microns, and what an encoder sees in them.

One file an idea: the arguments, the image of a slide, stain, context, cutting, encoding, resuming, many slides. May import
``_many``, ``encoders``, ``image``, ``_slides`` and the files at the root.
"""
