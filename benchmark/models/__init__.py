"""Names of models, their sources, weights and shapes.

Imports the twin, for its tiny models.
"""
