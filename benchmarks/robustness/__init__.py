"""What the harnesses ``fuzz.py``, ``killed.py``, ``races.py`` and ``disk.py`` share.

``children`` runs something in a process of its own under limits, ``errors`` tells the package's own errors from others,
``slides`` makes the small slides and models, ``samples`` the whole files of every kind and how each is read, ``mutate``
changes them, ``operations`` are the functions and commands that write, ``moments`` stops them at a moment.
"""
