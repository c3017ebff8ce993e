"""From arrays of spots to trained networks and back: graphs as tensors, tasks, training, prediction, model files.

The one room that imports ``nn``. May also import ``_linear``, ``_spots`` and, for searches and graphs, ``pp``.
"""
