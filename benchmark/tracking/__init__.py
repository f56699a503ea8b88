"""Records and live runs as MLflow shows them.

The only room that knows MLflow.
"""
