"""One run, from spec to record. Read `recipe.py` first.

Only `timing` imports this package. The runner (`matrices`) starts it as a process.
"""
