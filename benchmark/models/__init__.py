"""Model names: where each model is loaded from, its weights, and its shape.

Imports `twin`, which builds the tiny models.
"""
