"""A matrix's report: sections, pictures and pages made of records alone.

Draws what `analysis` finds.
"""
