"""The errors that the libraries raise for a model's files where they are damaged, and each in one line."""

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

DAMAGED = (
    *(OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError),
    *(RecursionError, SafetensorError, StrictDataclassError),
)
"""A configuration is read as whatever its values are, so that a wrong one can raise almost anything."""


def reason(error: Exception) -> str:
    """What is wrong, in one line."""
    text = str(error).strip()
    if isinstance(error, StrictDataclassError):  # its last line says which value is wrong
        return f"config.json: {text.split(': ')[-1].strip()}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return text.splitlines()[0] if text else type(error).__name__
