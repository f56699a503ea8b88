"""Offline twins: generated data in the official schemas, and tiny models of each family.

Twins are for tests and for machines without network. Their files, columns, tokenizers and heads are those of
the original; only the content is generated. Importing this package loads neither torch nor datasets.
"""
