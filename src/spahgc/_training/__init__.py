"""From the spots of a bank to trained networks and back: graphs as tensors, tasks, training, prediction, model files.

The one room, beside the baselines of ``tl``, that imports ``nn``. May also import ``_linear``, ``_spots``, ``_slides``, for
searches and graphs ``pp``, and the files at the root.
"""
