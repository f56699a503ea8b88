"""The paper's tables as data: one YAML each, the paper's values with their sources, and their rendering.

A table shows paper beside ours and never fills a blank. No lightning and no mlflow here; torch only where
a closed-form table builds a model's shape.
"""
