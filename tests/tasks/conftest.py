"""Fixtures for the tests of every adapter."""

import pytest
from transformers import AutoTokenizer
from twin_rows import SHARED


@pytest.fixture(scope="module")
def gpt2():
    """GPT-2's own tokenizer."""
    folder = SHARED / "models" / "gpt2-tokenizer"
    if not folder.is_dir():
        pytest.skip("GPT-2's tokenizer is not beside the checkout")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
