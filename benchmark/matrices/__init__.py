"""Matrices: what is run, in which order, and what is left to run. The named ones are the YAML files here.

Starts runs; imports none of `run`.
"""
