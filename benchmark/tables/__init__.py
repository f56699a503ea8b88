"""The paper's tables: a YAML file each, with the published values, their sources, and our values beside them.

A cell without a value stays blank. Lightning and MLflow are never imported; torch is imported only to build
the shape of a model for a closed-form table.
"""
