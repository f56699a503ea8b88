"""The contracts: RunSpec (the settings of a run), RunRecord (its results), and the files that hold them.

Uses the standard library and pydantic only; every room may import it.
"""
