"""Preprocessing: tiles of a plain image, embeddings, gene panel, references, the three graphs.

What needs more than a file has a room of its own: ``_embed`` for patches and embeddings, ``_bank`` for the references,
``_search`` for similar spots, ``_register`` for sections laid over each other, ``_compare`` for how slides differ in look; ``_edge_types.py`` registers the edges of the graph. May import ``_many``, ``io``,
``encoders``, ``image``, ``_spots``, ``_slides`` and the files at the root.
"""

from spahgc.pp._bank.references import reference_bank
from spahgc.pp._bank.store import open_bank
from spahgc.pp._compare.choose import choose_references
from spahgc.pp._compare.compare import compare
from spahgc.pp._cross_graph import cross_graph
from spahgc.pp._embed.context import Context
from spahgc.pp._embed.embed import embed
from spahgc.pp._embed.many import embed_many
from spahgc.pp._genes import select_genes
from spahgc.pp._hetero_data import hetero_data
from spahgc.pp._points import points
from spahgc.pp._pool.pool import pool
from spahgc.pp._register.register import register
from spahgc.pp._spatial_graph import spatial_graph
from spahgc.pp._tile import tile
from spahgc.pp._use_embedding import use_embedding

__all__ = [
    "Context",
    "choose_references",
    "compare",
    "cross_graph",
    "embed",
    "embed_many",
    "hetero_data",
    "open_bank",
    "points",
    "pool",
    "reference_bank",
    "register",
    "select_genes",
    "spatial_graph",
    "tile",
    "use_embedding",
]
