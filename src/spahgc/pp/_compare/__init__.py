"""How a target and its references differ in look, and which references look like it; no count is read.

``colour.py`` and ``resolution.py`` look at images, ``embedding.py`` at embeddings, ``limits.py`` says what is large and what can be
done; ``compare.py`` makes the table of them, ``choose.py`` picks references.
"""
