"""What a training step holds and computes: live bytes, optimizer state, operations, time.

Below `run` and `memory`, which both measure with it.
"""
