"""The peak bytes of a training step: simulated without weights, measured with them.

Imported by `matrices`, `tables` and commands.
"""
