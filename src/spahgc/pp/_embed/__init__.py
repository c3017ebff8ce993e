"""H&E patches around every spot, cut in microns, and what an encoder sees in them.

One file an idea: the image of a slide and its resolution, stain, context, cutting, encoding, resuming. May import
``_many``, ``io``, ``encoders``, ``image``, ``_slides`` and the files at the root.
"""
