"""A task's rows: read, drawn by seed, encoded, and put into batches.

Imported by `matrices`, `run` and `timing`.
"""
