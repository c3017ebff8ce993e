"""Nearest spots by cosine similarity: exactly, block by block, or through an index whose recall is measured.

Works on rows of any array. May import ``_spots`` and the files at the root.
"""
