"""The report of a matrix: sections, pictures and pages, made from records only.

Shows what `analysis` computes.
"""
