"""Ratios of step and evaluation times, measured in one process; the preview of a schedule.

Imported by `tables` and commands.
"""
