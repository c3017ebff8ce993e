"""Reading: what a prediction left in a slide, as a table or as a slide of its own.

Reads what ``tl`` wrote and changes nothing. May import everything but ``pl`` and ``cli``.
"""

from spahgc.get._predicted import predicted
from spahgc.get._summary import summary

__all__ = ["predicted", "summary"]
