"""Measures a training step: live bytes, optimizer state, floating-point operations and time.

The rooms `run` and `memory` import it.
"""
