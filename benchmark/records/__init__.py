"""The contracts: a spec, what ran asks for; a record, what came of it; and their files.

Standard library and pydantic alone; every room may import it.
"""
