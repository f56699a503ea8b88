"""A task's rows: read, drawn by seed, encoded, and put into batches.

Imports `twin` and `tasks`.
"""
