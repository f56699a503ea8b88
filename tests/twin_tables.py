"""The rows and tokenizers of the twins, made once in a process. None of the tests may change them."""

import functools

from benchmark.models import registry
from benchmark.twin import data

tables = functools.cache(data.tables)


@functools.cache
def tokenizer_of(model):
    return registry.load_tokenizer(registry.source(model))
