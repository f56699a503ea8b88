"""One run, from spec to record. `recipe.py` is the file to read first.

Only `timing` imports it; the runner starts it as a process.
"""
