"""Sections of one block laid over each other by their H&E images: search, refinement, quality, and what slides they are.

From the bottom up: ``picture.py`` (a small picture), ``structure.py`` (what is compared of it), ``laying.py`` (one on the
other), ``search.py``, ``matching.py``, ``affine.py``, ``bend.py``, ``quality.py``, ``pairs.py``; these know arrays alone.
``slides.py`` takes pictures of slides, ``given.py`` transformations of the user, ``record.py`` writes, ``register.py`` is
the public function. No counts are looked at.
"""
