"""Engines: where the runs of a matrix are made, a file each. `places.py` says what an engine is."""
