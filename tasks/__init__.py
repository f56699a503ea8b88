"""Tasks: their data, prompts, losses and metrics.

Never imports `benchmark`. Imported by `cli`, `timing`, `matrices`, `run` and `data`.
"""
