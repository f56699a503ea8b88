"""The paper's tables: one YAML each, the published values with their sources, ours beside them.

A table shows paper beside ours and never fills a blank. No lightning and no mlflow here; torch only where
a closed-form table builds a model's shape.
"""
