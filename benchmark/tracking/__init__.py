"""Logs records and running matrices to MLflow.

No other room imports MLflow.
"""
