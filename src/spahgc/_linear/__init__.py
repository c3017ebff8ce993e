"""What is learned without a network: image axes, gene components, ridge regression, held-out predictions, trust.

Works on arrays of spots. May import ``_spots`` and the files at the root.
"""
